"""Progress of training: a bar in a terminal, a line for each epoch everywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from athwe_cli.render import Output


class TrainingDisplay:
    """The training loop's listener: a live bar per epoch in a terminal, one line per epoch (and minute) elsewhere.

    Lines fit into 80 columns. All loss terms are in the run's `metrics.jsonl`.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._best = ""
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._last_line = time.monotonic()
        self._header = ""
        self._steps = self._epochs = 0
        self._began = 0.0
        self._done_before = 0
        self._seconds: list[float] = []

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Put up the bar."""
        self._best = f"best {best:.4f}" if best is not None else ""
        self._epochs, self._steps, self._done_before = epochs, steps, done
        self._header = f"epoch {epoch}/{epochs}"
        self._began = self._last_line = time.monotonic()
        if self.output.err.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[loss]} [bold]{task.fields[best]}[/]"),
                console=self.output.err,
                transient=True,
            )
            self._task = self._progress.add_task(self._header, total=steps, completed=done, loss="", best=self._best)
            self._progress.start()

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Move the bar, or print a line a minute."""
        now = time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, completed=step, loss=_loss(means))
        elif now - self._last_line > 60:
            self._last_line = now
            left = (now - self._began) / (step - self._done_before) * (self._steps - step)
            self.output.note(f"{self._header}: step {step}/{self._steps}, {duration(left)} left, {_loss(means)}")

    def epoch_ends(self, record: Mapping[str, Any], *, is_best: bool) -> None:
        """Print the epoch's line."""
        self.close()
        from athwe_core.evaluation.metrics import metric_name
        from athwe_core.runs.schema import selected

        reached = "nothing held out"
        if record["validation"]:
            name, value = selected(record)
            reached = f"{metric_name(name)} {value:.4f} ({'best' if is_best else self._best})"
        self._seconds.append(record["seconds"] + record["validation_seconds"])
        left = median(self._seconds) * (self._epochs - record["epoch"])
        at_most = f", <{short_duration(left)} left" if left else ""
        self.output.note(
            f"epoch {record['epoch']:3}/{self._epochs}  {record['seconds']:.1f} s{at_most}  "
            f"{_loss(record['losses'])}  {reached}"
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def short_duration(seconds: float) -> str:
    """`45s`, `12min`, `3h`: the next whole unit above."""
    if seconds < 90:
        return f"{math.ceil(seconds)}s"
    return f"{math.ceil(seconds / 60)}min" if seconds < 90 * 60 else f"{math.ceil(seconds / 3600)}h"


def _loss(means: Mapping[str, float]) -> str:
    return f"loss {means['total']:.2f}"
