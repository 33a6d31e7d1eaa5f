"""How far long work of `prepare` is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from athwe_cli.render import Output

_SECONDS_BETWEEN_LINES = 30.0


class WorkDisplay:
    """Listens to encoding, downloading and clustering; one thing at a time."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.has_worked = False
        self._what = ""
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._last_line = 0.0

    def __call__(self, what: str, done: int, total: int, per_second: float) -> None:
        """Show `done` of `total` items of `what`; a total of 0 is unknown."""
        if what != self._what:
            self._begin(what, total)
        rate = f"{per_second:,.0f} items/s" if per_second >= 10 else f"{per_second:.1f} items/s" if per_second else ""
        now = time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, completed=done, rate=rate)
        elif total and (now - self._last_line > _SECONDS_BETWEEN_LINES or done == total):
            self._last_line = now
            left = f", {(total - done) / per_second:,.0f} s left" if per_second and done < total else ""
            self.output.note(f"{what}: {done:,} of {total:,}{', ' if rate else ''}{rate}{left}")
        if total and done == total:
            self.close()

    def _begin(self, what: str, total: int) -> None:
        self.close()
        self._what, self._last_line, self.has_worked = what, time.monotonic(), True
        if not self.output.err.is_terminal:
            self.output.note(what)
            return
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._progress = Progress(TextColumn("{task.description}"), *columns, console=self.output.err, transient=True)
        self._task = self._progress.add_task(what, total=total or None, rate="")
        self._progress.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._what = None, ""
