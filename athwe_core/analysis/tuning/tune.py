"""Tuning: trials until there are enough, the best chosen on validation alone, its test scores read once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from athwe_core.analysis.experiments.launch import Launcher
from athwe_core.analysis.experiments.result import Software
from athwe_core.analysis.tuning.launched_trials import launch_trials
from athwe_core.analysis.tuning.optuna_study import importances, load_optuna, open_study, settled
from athwe_core.analysis.tuning.search_space import Values, combinations
from athwe_core.analysis.tuning.trials import Tuning, TuningListener, finish_trial, next_trial
from athwe_core.errors import CheckpointError, NonFiniteLossError, require
from athwe_core.locks import HeldError, held
from athwe_core.runs.find import CONFIG
from athwe_core.safe_write import replace_text
from athwe_core.training.tracking.listener import require_trackers

if TYPE_CHECKING:
    import optuna

__all__ = ["Tuning", "TuningListener", "tune"]

RESULT, BEST = "result.json", "best.yaml"
LOCK = ".lock"
"""Exists while a process works on the study."""


class TrialResult(TypedDict):
    """A trial that counts."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    """Best validation value of its epochs; None where it has none."""
    values: Values
    epochs: int
    best_epoch: int | None
    run: str
    reason: str | None
    """Why it failed."""


class BestTrial(TypedDict):
    """The trial that was chosen on validation."""

    number: int
    run: str
    values: Values
    validation: dict[str, float]
    test: dict[str, float]
    config: str
    """Path of the complete configuration."""


class TuningResult(TypedDict):
    """The content of a study's `result.json`."""

    kind: Literal["tune"]
    study: str
    dataset: str
    preset: str
    data_version: str
    tie_order: str
    split_rule: str
    exclude_seen: bool
    seed: int
    metric: str
    split: str
    space: dict[str, str]
    combinations: int | None
    """None with a continuous range."""
    trials: list[TrialResult]
    best: BestTrial
    importance: dict[str, float] | None
    """Share of each key; None for too few complete trials."""
    notes: list[str]
    command: str
    athwe: Software
    folder: str


def tune(
    tuning: Tuning,
    *,
    trials: int,
    command: str,
    listener: TuningListener,
    should_stop: Callable[[], bool] = lambda: False,
    track: Sequence[str] = (),
    launcher: Launcher | None = None,
) -> TuningResult | None:
    """Continue the study until it has `trials` trials; an interrupted trial is continued first.

    A trial counts when it is complete, pruned, or failed because of a loss that is not finite. It is complete when its
    training has ended; its value is the best validation value of its epochs. The study is in `tuning.folder`, which also
    receives the result as `result.json` and the chosen configuration as `best.yaml`. Test scores are read of the chosen
    trial only.

    Args:
        tuning: the study.
        trials: number of trials in the end, >= 1, those of earlier calls included.
        command: the command that does this again, for the manifests of the runs and the result.
        listener: called about trials and their training.
        should_stop: called after every step; True saves the state and ends.
        track: trackers that record the trials' runs, see `training.tracking`.
        launcher: starts the trials, as many at once as it says; None = one after the other, in this process.
    Returns: the result; None when stopped.
    Raises: ConfigError without optuna, or for a study begun with other settings; CheckpointError when another process works
        on the study or its journal is unreadable; NonFiniteLossError when no trial is complete.
    """
    require(trials >= 1, "--trials", "must be at least 1", trials)
    require_trackers(track)
    load_optuna()
    tuning.folder.mkdir(parents=True, exist_ok=True)
    with _only_here(tuning.folder):
        study = open_study(
            tuning.folder,
            name=tuning.name,
            settings=tuning.settings(),
            startup_trials=tuning.startup_trials,
            warmup_epochs=tuning.warmup_epochs,
        )
        notes: list[str] = []
        if launcher is not None:
            is_enough = launch_trials(
                study,
                tuning,
                launcher,
                trials=trials,
                command=command,
                listener=listener,
                should_stop=should_stop,
                track=track,
            )
            if is_enough is None:
                return None
            if not is_enough:
                notes.append(_exhausted(len(settled(study))))
        while (done := len(settled(study))) < trials and not notes:
            if should_stop():
                return None
            trial = next_trial(study, tuning)
            if trial is None:
                notes.append(_exhausted(done))
            elif not finish_trial(
                study,
                trial,
                tuning,
                trials=trials,
                command=command,
                listener=listener,
                should_stop=should_stop,
                track=track,
            ):
                return None
        return _write_result(study, tuning, notes=notes, command=command)


def _exhausted(done: int) -> str:
    return f"the study ends after {done} trials: no untried combination is left"


@contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    """Hold the study for this process; the system releases it when the process ends, however it ends."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK))
        except HeldError as error:
            rule = f"is being worked on by {error}"
            raise CheckpointError(f"study {folder}", rule, remedy=f"{error.remedy}, or choose another --name") from None
        yield


def _write_result(study: optuna.Study, tuning: Tuning, *, notes: list[str], command: str) -> TuningResult:
    """Choose the best trial, and write and return the result."""
    trials = [_described(trial, tuning) for trial in sorted(settled(study), key=lambda t: t.user_attrs["number"])]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    if not complete:
        reasons = [trial["reason"] for trial in trials]
        raise NonFiniteLossError(
            f"a trial of study {tuning.name}",
            "must be complete",
            reasons,
            "Narrow the search space, e.g. of training.lr",
        )
    best = max(complete, key=lambda trial: trial["value"] or 0.0)
    run = tuning.run(best["number"])
    manifest, path = run.manifest(), tuning.folder / BEST
    metric = tuning.base.training.selection_metric
    header = (
        f"# Trial {best['number']} of study {tuning.name}, the best of {len(trials)} by validation {metric}.\n"
        f"# athwe train --dataset {tuning.prepared.name} --preset {tuning.preset} --config {path}\n"
    )
    replace_text(path, header + (run.path / CONFIG).read_text(encoding="utf-8"))
    results = manifest["results"]
    result: TuningResult = {
        "kind": "tune",
        "study": tuning.name,
        "dataset": tuning.prepared.name,
        "preset": tuning.preset,
        "data_version": tuning.prepared.version,
        "tie_order": tuning.prepared.manifest["statistics"]["tie_order"],
        "split_rule": tuning.prepared.split_rule,
        "exclude_seen": tuning.base.evaluation.exclude_seen,
        "seed": tuning.seed,
        "metric": tuning.base.training.selection_metric,
        "split": "validation",
        "space": {key: str(part) for key, part in tuning.space.items()},
        "combinations": combinations(tuning.space),
        "trials": trials,
        "best": {
            "number": best["number"],
            "run": run.name,
            "values": best["values"],
            "validation": results["validation"],
            "test": results["test"],
            "config": str(path),
        },
        "importance": importances(study),
        "notes": notes,
        "command": command,
        "athwe": {"version": manifest["versions"]["athwe"], "git_commit": manifest["versions"]["git_commit"]},
        "folder": str(tuning.folder),
    }
    replace_text(tuning.folder / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def _described(trial: optuna.trial.FrozenTrial, tuning: Tuning) -> TrialResult:
    """A settled trial, from validation alone."""
    states = load_optuna().trial.TrialState
    ended: dict[object, Literal["complete", "pruned", "failed"]] = {
        states.COMPLETE: "complete",
        states.PRUNED: "pruned",
        states.FAIL: "failed",
    }
    by_epoch = trial.intermediate_values
    number = trial.user_attrs["number"]
    return {
        "number": number,
        "state": ended[trial.state],
        "value": max(by_epoch.values(), default=None),
        "values": tuning.decode(trial.params),
        "epochs": len(by_epoch),
        "best_epoch": max(by_epoch, key=by_epoch.__getitem__, default=None),
        "run": tuning.run(number).name,
        "reason": trial.user_attrs.get("reason"),
    }
