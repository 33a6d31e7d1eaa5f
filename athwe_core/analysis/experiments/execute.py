"""The runs of an experiment, one after another in this process or several at once in processes of their own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, Protocol

import torch

from athwe_core.analysis.experiments.plan import Plan, PlannedRun
from athwe_core.analysis.experiments.worker_process import ENDED, FAILED, Worker, rebuild_exception
from athwe_core.errors import AthweError, CheckpointError, require
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.training.loop import train

POLL_SECONDS = 0.2
"""How often a waiting parent asks whether it should stop."""


class ExperimentListener(Protocol):
    """Hears what an experiment does; the command line shows it. With several processes the runs' calls are interleaved."""

    def run_reused(self, run: PlannedRun) -> None:
        """A finished run stands for this one."""

    def run_begins(self, run: PlannedRun) -> None:
        """Training begins or goes on."""

    def epoch_begins(
        self, run: PlannedRun, epoch: int, *, epochs: int, steps: int, done: int, best: float | None
    ) -> None:
        """As `training.loop.Listener`, and so are the next two; of another process steps come twice a second at most."""

    def step_ends(self, run: PlannedRun, step: int, means: dict[str, float]) -> None: ...

    def epoch_ends(self, run: PlannedRun, record: dict[str, Any], *, is_best: bool) -> None: ...

    def note(self, run: PlannedRun, text: str) -> None:
        """One sentence that the user should know."""

    def run_ends(self, run: PlannedRun, outcome: str) -> None:
        """`finished`, `stopped` (saved, to be gone on with) or `failed` (the error follows)."""


class _Tell:
    """What training tells of one run, passed on with the run."""

    def __init__(self, listener: ExperimentListener, run: PlannedRun) -> None:
        self.listener, self.run = listener, run

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        self.listener.epoch_begins(self.run, epoch, epochs=epochs, steps=steps, done=done, best=best)

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.listener.step_ends(self.run, step, means)

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        self.listener.epoch_ends(self.run, record, is_best=is_best)

    def note(self, text: str) -> None:
        self.listener.note(self.run, text)


def default_jobs(plan: Plan) -> int:
    """One for each CUDA device that runs can be shared out to, else 1."""
    return max(1, len(_devices(plan.to_train())))


def run_all(
    plan: Plan,
    *,
    jobs: int,
    command: str,
    listener: ExperimentListener,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, RunFolder] | None:
    """Train what the plan still needs.

    Args:
        jobs: processes at once; 1 trains in this one. Each of several has its share of this process's threads, and its own
            CUDA device where there are several and the configuration names none.
        command: what to type to do it again, for the runs' manifests.
        should_stop: asked again and again; True saves every run under way and ends.
    Returns: identity to finished run; None when it was asked to stop, after which the same call goes on.
    Raises: AthweError of the run that failed, after the others are saved and their processes gone; CheckpointError, before
        anything is trained, when another process trains a run of the plan.
    """
    require(jobs >= 1, "--jobs", "must be at least 1", jobs)
    to_train = plan.to_train()
    folders = {run.identity: run.existing for run in plan.runs if run.existing is not None}
    for planned in to_train:
        if planned.existing is not None:
            with planned.existing.locked():
                pass
    for planned in plan.runs:
        if planned.action == "reused":
            listener.run_reused(planned)
    if min(jobs, len(to_train)) > 1:
        finished = _in_processes(plan, to_train, folders, min(jobs, len(to_train)), command, listener, should_stop)
    else:
        finished = _in_this_process(plan, to_train, folders, command, listener, should_stop)
    return folders if finished else None


def _in_this_process(
    plan: Plan,
    to_train: list[PlannedRun],
    folders: dict[str, RunFolder],
    command: str,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
) -> bool:
    for planned in to_train:
        if should_stop():
            return False
        folder = _folder(plan, planned, folders, command)
        listener.run_begins(planned)
        tell = _Tell(listener, planned)
        try:
            result = train(folder, plan.prepared, listener=tell, should_stop=should_stop, notify=tell.note)
        except Exception:
            listener.run_ends(planned, "failed")
            raise
        listener.run_ends(planned, "finished" if result.finished else "stopped")
        if not result.finished:
            return False
    return True


def _folder(plan: Plan, planned: PlannedRun, folders: dict[str, RunFolder], command: str) -> RunFolder:
    """The run's folder, made when its turn comes so that an interrupted experiment leaves no empty ones."""
    if planned.identity not in folders:
        folders[planned.identity] = create_run(
            plan.runs_dir,
            planned.config,
            plan.prepared,
            preset=plan.experiment.preset,
            name=planned.name,
            command=command,
        )
    return folders[planned.identity]


def _in_processes(
    plan: Plan,
    to_train: list[PlannedRun],
    folders: dict[str, RunFolder],
    jobs: int,
    command: str,
    listener: ExperimentListener,
    should_stop: Callable[[], bool],
) -> bool:
    pending, busy, stopping = deque(to_train), dict[Any, tuple[Worker, PlannedRun]](), False
    unfinished = len(to_train)
    threads, devices = max(1, torch.get_num_threads() // jobs), _devices(to_train)
    prepared_dir = plan.prepared.path.parent.parent
    workers = []
    try:
        for index in range(jobs):
            device = devices[index % len(devices)] if devices else None
            workers.append(Worker(prepared_dir, threads=threads, visible_device=device))
        idle = list(workers)
        while True:
            if not stopping and should_stop():
                stopping = True
                pending.clear()
                for worker in workers:
                    worker.stop()
            while idle and pending:
                worker, planned = idle.pop(), pending.popleft()
                worker.train(_folder(plan, planned, folders, command))
                listener.run_begins(planned)
                busy[worker.connection] = worker, planned
            if not busy:
                return unfinished == 0
            for connection in wait(list(busy), timeout=POLL_SECONDS):
                worker, planned = busy[connection]
                message = worker.receive()
                if message is None:
                    listener.run_ends(planned, "failed")
                    raise _died(folders[planned.identity], worker)
                what, *content = message
                if what == FAILED:
                    listener.run_ends(planned, "failed")
                    raise rebuild_exception(*content)
                if what == ENDED:
                    listener.run_ends(planned, "finished" if content[0] else "stopped")
                    unfinished -= content[0]
                    idle.append(busy.pop(connection)[0])
                else:
                    arguments, named = content
                    getattr(_Tell(listener, planned), what)(*arguments, **named)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()
        for _, planned in busy.values():
            with suppress(CheckpointError), folders[planned.identity].locked():
                pass  # what a killed process left half-written goes


def _died(run: RunFolder, worker: Worker) -> AthweError:
    return AthweError(
        f"run {run.name}",
        f"must be trained to its end: its process ended with exit code {worker.exit_code()}",
        remedy="Run the same command again, with fewer --jobs if memory was short; finished epochs are kept",
    )


def _devices(to_train: list[PlannedRun]) -> list[str]:
    """CUDA devices to share out, as CUDA_VISIBLE_DEVICES names them; empty where a run asks for one, or there are not two."""
    asked = {(run.existing.config() if run.existing else run.config).training.device for run in to_train}
    count = torch.cuda.device_count()
    if not asked <= {"auto", "cuda"} or count < 2:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]
