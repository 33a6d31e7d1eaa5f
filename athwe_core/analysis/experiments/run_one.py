"""One run of an experiment, trained in a process of its own: `python -m athwe_core.analysis.experiments.run_one`."""

from __future__ import annotations

import time
from pathlib import Path

from athwe_core.analysis.child_process import Document, Parent, serve
from athwe_core.runs.find import RunFolder
from athwe_core.runs.schema import EpochRecord
from athwe_core.training.allocator import keep_freed_memory
from athwe_core.training.loop import train
from athwe_core.training.tracking.listener import tracked

SECONDS_BETWEEN_STEPS = 0.5
"""Between two steps that are reported."""


class _Reporter:
    """The training loop's listener: each call becomes a message, steps only now and then."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.last_step = 0.0

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        self.parent.send("epoch_begins", epoch=epoch, epochs=epochs, steps=steps, done=done, best=best)

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self.last_step > SECONDS_BETWEEN_STEPS:
            self.last_step = now
            self.parent.send("step_ends", step=step, means=means)

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        self.parent.send("epoch_ends", record=record, is_best=is_best)

    def note(self, text: str) -> None:
        self.parent.send("note", text=text)


def train_run(document: Document, parent: Parent) -> dict[str, bool]:
    """Train the run in the folder `run` on the data under `prepared_dir`, recorded by the trackers `track`.

    Returns: `finished`; False when the parent stopped it.
    """
    run, reporter = RunFolder(Path(document["run"])), _Reporter(parent)
    prepared = run.open_data(Path(document["prepared_dir"]))
    with tracked(reporter, document["track"], run, notify=reporter.note) as listener:
        result = train(run, prepared, listener=listener, should_stop=parent.wants_stop, notify=reporter.note)
    return {"finished": result.finished}


if __name__ == "__main__":
    keep_freed_memory()
    serve(train_run)
