"""Trials of a study, several at once, where a launcher starts their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from athwe_core.analysis.experiments.execute import KILLED_REMEDY, run_document
from athwe_core.analysis.experiments.launch import POLL_SECONDS, Launcher, Messages, Running
from athwe_core.analysis.tuning.optuna_study import settled
from athwe_core.analysis.tuning.trials import (
    EndedEarlyError,
    Reports,
    Tuning,
    TuningListener,
    begin_trial,
    next_trial,
    settle_complete,
    settle_failed,
    settle_pruned,
)
from athwe_core.errors import NonFiniteLossError
from athwe_core.evaluation.metrics import metric_name
from athwe_core.runs.find import RunFolder
from athwe_core.runs.schema import EpochRecord, selected

if TYPE_CHECKING:
    import optuna


def launch_trials(
    study: optuna.Study,
    tuning: Tuning,
    launcher: Launcher,
    *,
    trials: int,
    command: str,
    listener: TuningListener,
    should_stop: Callable[[], bool],
    track: Sequence[str],
) -> bool | None:
    """Train trials until the study has enough. A proposal knows the trials that have ended, so their order counts.

    Of the training the listener hears notes only: each epoch is one. A trial that is to be pruned saves and ends, so it may
    have trained a few steps more than one in this process.

    Args: as of `tune`; `launcher` starts the runs, as many at once as it says.
    Returns: whether there are enough; False where no untried combination is left; None when stopped.
    Raises: the error of a trial that is no NonFiniteLossError, after the others are saved.
    """
    messages: Messages = SimpleQueue()
    slots, busy = list(range(launcher.jobs)), dict[Running, _UnderWay]()
    is_stopped = is_exhausted = False
    try:
        while True:
            if should_stop():
                is_stopped = True
                for running in busy:
                    running.stop()
            while slots and not is_stopped and not is_exhausted and len(settled(study)) + len(busy) < trials:
                trial = next_trial(study, tuning, [other.trial for other in busy.values()])
                if trial is None:
                    is_exhausted = True
                    break
                number = trial.user_attrs["number"]
                notes = _Notes(listener, number)
                run, reports = begin_trial(trial, tuning, trials=trials, command=command, listener=listener)
                reports.listener = notes
                trained = _UnderWay(trial, run, reports, notes, slots[-1])
                if trained.is_ended_early_by(run.metrics()):
                    settle_pruned(study, trial, run, listener)
                    continue
                document = run_document(run, tuning.prepared, track)
                busy[launcher.start(document, slot=slots.pop(), messages=messages)] = trained
            if not busy:
                return None if is_stopped else not is_exhausted
            try:
                running, message = messages.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            trained = busy[running]
            if message is None:
                del busy[running]
                slots.append(trained.slot)
                trained.settle(study, running, listener)
            elif message.event == "epoch_ends":
                trained.notes.epoch_ends(**message.fields)
                if trained.is_ended_early_by([message.fields["record"]]):
                    running.stop()
            elif message.event == "note":
                trained.notes.note(**message.fields)
    finally:
        for running in busy:
            running.stop()
        for running in busy:
            running.join()


@dataclass
class _UnderWay:
    """A trial that is being trained."""

    trial: optuna.trial.Trial
    run: RunFolder
    reports: Reports
    notes: _Notes
    slot: int
    is_pruned: bool = False

    def is_ended_early_by(self, records: Sequence[EpochRecord]) -> bool:
        """Report epochs to optuna; whether the trial is to be pruned."""
        try:
            for record in records if not self.is_pruned else ():
                self.reports.report(record)
        except EndedEarlyError:
            self.is_pruned = True
        return self.is_pruned

    def settle(self, study: optuna.Study, running: Running, listener: TuningListener) -> None:
        """Record how it ended. One that was stopped stays open, and is continued by the next call."""
        try:
            result = running.result(f"run {self.run.name}", remedy=KILLED_REMEDY)
        except NonFiniteLossError as error:
            settle_failed(study, self.trial, error, listener)
            return
        if self.is_pruned:
            settle_pruned(study, self.trial, self.run, listener)
        elif result["finished"]:
            settle_complete(study, self.trial, self.run, listener)


class _Notes:
    """The listener of one of several trials at once: what it passes on names the trial."""

    def __init__(self, listener: TuningListener, number: int) -> None:
        self._listener, self._number = listener, number

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Pass nothing on."""

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Pass nothing on."""

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        """Tell the validation value."""
        name, value = selected(record)
        best = " (best so far)" if is_best else ""
        self.note(f"epoch {record['epoch']}: validation {metric_name(name)} {value:.4f}{best}")

    def note(self, text: str) -> None:
        """Pass it on."""
        self._listener.note(f"trial {self._number}: {text}")
