"""An optuna study in a journal file: opened again after any interruption, with what was broken off put back in the queue."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from athwe_core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
IMPORTANCE_TRIALS = 4
"""Complete trials below which importances say nothing."""


def load_optuna() -> ModuleType:
    """The library, its own messages off.

    Raises: ConfigError where it is not installed.
    """
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("athwe tune", "needs optuna", remedy='Type: pip install "athwe[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(
    folder: Path, *, name: str, settings: dict[str, Any], startup_trials: int, warmup_epochs: int
) -> optuna.Study:
    """The study in `folder`, begun where there is none; this process has to be the only one that has it open.

    Args:
        settings: what decides its trials; the same each time.
        startup_trials: complete trials before the median of an epoch prunes any.
        warmup_epochs: epochs before a trial is pruned.
    Raises: ConfigError when it was begun with other settings; CheckpointError for an unreadable journal.
    """
    optuna = load_optuna()
    journal = folder / JOURNAL
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # of a killed process
    _cut_torn_line(journal)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_epochs + 1)
    try:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        study = optuna.create_study(
            study_name=name, storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError) as error:
        remedy = "Choose another --name, or delete the folder"
        raise CheckpointError(str(journal), f"must be the journal of a study ({error})", remedy=remedy) from None
    begun_with = study.user_attrs.get("settings")
    if begun_with is None:
        study.set_user_attr("settings", settings)
    else:
        _require_same(begun_with, settings, name)
    return study


def settled(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count: complete, pruned, or failed for a reason of their own."""
    states = load_optuna().trial.TrialState
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (states.COMPLETE, states.PRUNED)
        or (trial.state == states.FAIL and "reason" in trial.user_attrs)
    ]


def revive(study: optuna.Study) -> bool:
    """Put a trial that was broken off back in the queue, as it was; True when the queue has one."""
    states = load_optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False):
        if trial.state == states.WAITING:
            return True
        if trial.state == states.RUNNING:
            study.tell(trial.number, state=states.FAIL)
            if "reason" not in trial.user_attrs:
                study.enqueue_trial(trial.user_attrs["params"], user_attrs=trial.user_attrs)
                return True
    return False


def importances(study: optuna.Study) -> dict[str, float] | None:
    """Share of each key in what sets the best trials apart (PED-ANOVA), largest first; None for too few complete trials."""
    optuna = load_optuna()
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in optuna 4
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {str(key): float(share) for key, share in found.items()}


def _cut_torn_line(journal: Path) -> None:
    """Take away a last line that a power failure left unfinished, which optuna would not read past."""
    if journal.exists():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with journal.open("r+b") as file:
                file.truncate(whole)


def _require_same(begun_with: dict[str, Any], settings: dict[str, Any], name: str) -> None:
    for key in sorted(begun_with.keys() | settings.keys()):
        before, now = begun_with.get(key), settings.get(key)
        if before != now:
            rule = f"was {before!r} when study {name!r} began, and must stay so"
            raise ConfigError(key, rule, now, "Choose another --name for a new study")
