"""Training the runs of an experiment: one after another in this process, or several at once where a launcher starts them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from athwe_core.analysis.experiments.launch import (
    POLL_SECONDS,
    Launcher,
    Messages,
    Running,
    assignable_devices,
    local_launcher,
)
from athwe_core.analysis.experiments.plan import Plan, PlannedRun
from athwe_core.config import Config
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import CheckpointError, require
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.runs.schema import EpochRecord
from athwe_core.training.loop import train
from athwe_core.training.tracking.listener import require_trackers, tracked

KILLED_REMEDY = "Run the same command again, with fewer --jobs if memory was short; finished epochs are kept"


class ExperimentListener(Protocol):
    """Is called about the progress of an experiment. With several processes the calls about their runs are interleaved."""

    def run_reused(self, run: PlannedRun) -> None:
        """A finished run takes the place of this one."""

    def run_begins(self, run: PlannedRun) -> None:
        """Training begins or continues."""

    def epoch_begins(
        self, run: PlannedRun, epoch: int, *, epochs: int, steps: int, done: int, best: float | None
    ) -> None:
        """As in `training.loop.Listener`, like the next two. Another process reports a step at most twice a second."""

    def step_ends(self, run: PlannedRun, step: int, means: dict[str, float]) -> None: ...

    def epoch_ends(self, run: PlannedRun, record: EpochRecord, *, is_best: bool) -> None: ...

    def note(self, run: PlannedRun, text: str) -> None:
        """One sentence that the user should know."""

    def run_ends(self, run: PlannedRun, outcome: str) -> None:
        """`finished`, `stopped` (saved, to be continued) or `failed` (the error follows)."""


class _RunListener:
    """The training loop's listener for one run of the experiment."""

    def __init__(self, listener: ExperimentListener, run: PlannedRun) -> None:
        self.listener, self.run = listener, run

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        self.listener.epoch_begins(self.run, epoch, epochs=epochs, steps=steps, done=done, best=best)

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.listener.step_ends(self.run, step, means)

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        self.listener.epoch_ends(self.run, record, is_best=is_best)

    def note(self, text: str) -> None:
        self.listener.note(self.run, text)


def default_jobs(plan: Plan) -> int:
    """One run at a time for each CUDA device that can be assigned to runs, else 1."""
    return max(1, len(assignable_devices(configs_to_train(plan))))


def configs_to_train(plan: Plan) -> list[Config]:
    """Configurations of the runs that are not finished, as their folders have them where these exist."""
    return [run.existing.config() if run.existing else run.config for run in plan.to_train()]


def run_all(
    plan: Plan,
    *,
    jobs: int,
    command: str,
    listener: ExperimentListener,
    should_stop: Callable[[], bool] = lambda: False,
    track: Sequence[str] = (),
    launcher: Launcher | None = None,
) -> dict[str, RunFolder] | None:
    """Train the runs of the plan that are not finished.

    Args:
        jobs: runs at once, >= 1, without a launcher. One trains in this process. Of several, each has a process of its own,
            an equal share of this process's threads, and a CUDA device of its own where there are several and the
            configuration names none.
        command: the command that does this again, for the manifests of the runs.
        should_stop: called often; True saves every run under way and ends.
        track: trackers that record the runs which are trained, see `training.tracking`.
        launcher: starts the runs, as many at once as it says; None = as `jobs` says.
    Returns: identity to finished run; None when stopped, after which the same call continues.
    Raises: the error of the run that failed, after the others are saved and their processes have ended (ChildError where it
        is no AthweError and arose in a process of its own); CheckpointError, before anything is trained, when another
        process trains a run of the plan.
    """
    require(jobs >= 1, "--jobs", "must be at least 1", jobs)
    require_trackers(track)
    to_train = plan.to_train()
    folders = {run.identity: run.existing for run in plan.runs if run.existing is not None}
    for planned in to_train:
        if planned.existing is not None:
            with planned.existing.locked():
                pass
    for planned in plan.runs:
        if planned.action == "reused":
            listener.run_reused(planned)
    jobs = min(jobs, len(to_train))
    if launcher is None and jobs > 1:
        launcher = local_launcher(configs_to_train(plan), jobs=jobs)
    if launcher is not None:
        finished = _launched(plan, to_train, folders, launcher, command, listener, should_stop, track)
    else:
        finished = _in_this_process(plan, to_train, folders, command, listener, should_stop, track)
    return folders if finished else None


def _in_this_process(
    plan: Plan,
    to_train: list[PlannedRun],
    folders: dict[str, RunFolder],
    command: str,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
    track: Sequence[str],
) -> bool:
    """Train the runs one after another; whether all are finished."""
    for planned in to_train:
        if should_stop():
            return False
        folder = _folder(plan, planned, folders, command)
        listener.run_begins(planned)
        of_run = _RunListener(listener, planned)
        try:
            with tracked(of_run, track, folder, notify=of_run.note) as reports:
                result = train(folder, plan.prepared, listener=reports, should_stop=should_stop, notify=of_run.note)
        except Exception:
            listener.run_ends(planned, "failed")
            raise
        listener.run_ends(planned, "finished" if result.finished else "stopped")
        if not result.finished:
            return False
    return True


def _folder(plan: Plan, planned: PlannedRun, folders: dict[str, RunFolder], command: str) -> RunFolder:
    """The run's folder, created when its turn comes so that an interrupted experiment leaves no empty ones."""
    if planned.identity not in folders:
        folders[planned.identity] = create_run(
            plan.runs_dir,
            planned.config,
            plan.prepared,
            preset=planned.preset,
            name=planned.name,
            command=command,
        )
    return folders[planned.identity]


def run_document(run: RunFolder, prepared: PreparedDataset, track: Sequence[str]) -> dict[str, object]:
    """The arguments of `run_one`, for any working folder."""
    prepared_dir = prepared.path.parent.parent
    return {"run": str(run.path.absolute()), "prepared_dir": str(prepared_dir.absolute()), "track": list(track)}


def _launched(
    plan: Plan,
    to_train: list[PlannedRun],
    folders: dict[str, RunFolder],
    launcher: Launcher,
    command: str,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
    track: Sequence[str],
) -> bool:
    """Train as many runs at once as the launcher has slots; whether all are finished."""
    pending, slots, num_finished = deque(to_train), list(range(launcher.jobs)), 0
    busy: dict[Running, tuple[PlannedRun, int]] = {}
    messages: Messages = SimpleQueue()
    try:
        while pending or busy:
            if should_stop():
                pending.clear()
                for child in busy:
                    child.stop()
            while pending and slots:
                planned, slot = pending.popleft(), slots.pop()
                document = run_document(_folder(plan, planned, folders, command), plan.prepared, track)
                busy[launcher.start(document, slot=slot, messages=messages)] = planned, slot
                listener.run_begins(planned)
            try:
                child, message = messages.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            if message is not None:
                of_run = _RunListener(listener, busy[child][0])
                getattr(of_run, message.event)(**message.fields)
                continue
            planned, slot = busy.pop(child)
            try:
                finished = child.result(f"run {folders[planned.identity].name}", remedy=KILLED_REMEDY)["finished"]
            except Exception:
                listener.run_ends(planned, "failed")
                _remove_partial_files(folders[planned.identity])
                raise
            listener.run_ends(planned, "finished" if finished else "stopped")
            num_finished += finished
            slots.append(slot)
    finally:
        for child in busy:
            child.stop()
        for child, (planned, _) in busy.items():
            child.join()
            _remove_partial_files(folders[planned.identity])
    return num_finished == len(to_train)


def _remove_partial_files(run: RunFolder) -> None:
    """Remove what a killed process left half-written, which taking the run's lock does."""
    with suppress(CheckpointError), run.locked():
        pass
