"""One run of an experiment, trained in a process of its own: `python -m athwe_core.analysis.experiments.run_one`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from athwe_core.analysis.child_process import Document, Parent, serve
from athwe_core.errors import CheckpointError
from athwe_core.runs.find import RunFolder
from athwe_core.runs.schema import EpochRecord
from athwe_core.training.allocator import keep_freed_memory
from athwe_core.training.loop import train
from athwe_core.training.tracking.listener import tracked

SECONDS_BETWEEN_STEPS = 0.5
"""Between two steps that are reported."""
TAKEOVER_SECONDS = 300.0
"""How long a run waits for a lost process to let go of it. One that lost its parent saves after its step and ends."""
TAKEOVER_POLL_SECONDS = 1.0


class LostProcess(TypedDict):
    """A process that trained the run before and is not reachable any more."""

    process: int
    host: str


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

    Processes in `lost` trained the run before, see `take_over`.
    Returns: `finished`; False when the parent stopped it.
    """
    run, reporter = RunFolder(Path(document["run"])), _Reporter(parent)
    if document.get("lost"):
        take_over(run, document["lost"], parent)
    prepared = run.open_data(Path(document["prepared_dir"]))
    with tracked(reporter, document["track"], run, notify=reporter.note) as listener:
        result = train(run, prepared, listener=listener, should_stop=parent.wants_stop, notify=reporter.note)
    return {"finished": result.finished}


def take_over(run: RunFolder, lost: Sequence[LostProcess], parent: Parent) -> None:
    """Wait until the processes that trained the run before hold it no longer, or the parent wants to stop.

    A lost process has either died with its node, or it notices that its parent is gone, saves and ends. In both cases the
    file system releases its lock, on NFS 4 within the lease of 90 s. Where the file system has no locks, the file of a dead
    process on another host stays. It is removed after `TAKEOVER_SECONDS`, if it still names one of the lost processes. This
    is safe unless such a process still runs, cut off from its parent but not from the disk, and needs longer for its step.

    Raises:
        CheckpointError: Another process trains the run.
    """
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while not parent.wants_stop():
        is_over = time.monotonic() >= deadline
        if is_over:
            for process in lost:
                run.release_lost(**process)
        with suppress(*([] if is_over else [CheckpointError])), run.locked():
            return
        time.sleep(TAKEOVER_POLL_SECONDS)


if __name__ == "__main__":
    keep_freed_memory()
    serve(train_run)
