"""An optuna study in a journal file. After any interruption it can be opened again, and the interrupted trial continues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.warning_filters import warnings_as

if TYPE_CHECKING:
    import optuna

Settings = dict[str, object]
"""Names of settings with their values, as JSON holds them."""

SPACE_OF = "search space of "
"""Beginning of the names of settings that are parts of the search space; the key follows."""
JOURNAL = "journal.log"
IMPORTANCE_TRIALS = 4
"""Complete trials that importances need at least."""


def load_optuna() -> ModuleType:
    """Import optuna and turn its own messages off.

    Raises: ConfigError where it is not installed.
    """
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("athwe tune", "needs optuna", remedy="Run: pip install 'athwe[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(folder: Path, *, name: str, settings: Settings, startup_trials: int, warmup_epochs: int) -> optuna.Study:
    """Open the study in `folder`, or begin one. No other process may have it open.

    Args:
        folder: an existing folder.
        name: of the study.
        settings: all that determines the trials; must be the same each time.
        startup_trials: complete trials before the median of an epoch prunes any.
        warmup_epochs: epochs before a trial is pruned.
    Raises: ConfigError when the study was begun with other settings; CheckpointError for an unreadable journal.
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


def requeue_interrupted(study: optuna.Study, under_way: Sequence[int] = ()) -> bool:
    """Put an interrupted trial back in the queue, with the same values; whether the queue has a trial.

    Args:
        under_way: optuna's numbers of trials that run but were not interrupted.
    """
    states = load_optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False):
        if trial.state == states.WAITING:
            return True
        if trial.state == states.RUNNING and trial.number not in under_way:
            study.tell(trial.number, state=states.FAIL)
            if "reason" not in trial.user_attrs:
                study.enqueue_trial(trial.user_attrs["params"], user_attrs=trial.user_attrs)
                return True
    return False


def importances(study: optuna.Study) -> dict[str, float] | None:
    """Share of each key in what distinguishes the best trials, largest first; None for too few complete trials.

    Source: PED-ANOVA, Watanabe et al. 2023, as in optuna.
    """
    optuna = load_optuna()
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS:
        return None
    with warnings_as("ignore", "PedAnovaImportanceEvaluator is experimental"):
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {str(key): float(share) for key, share in found.items()}


def _cut_torn_line(journal: Path) -> None:
    """Remove a last line that a power failure left unfinished, which optuna cannot read."""
    if journal.exists():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with journal.open("r+b") as file:
                file.truncate(whole)


def _require_same(begun_with: Settings, settings: Settings, name: str) -> None:
    """Raise ConfigError for the first setting that differs."""
    remedy = "Choose another --name for a new study"
    for key in sorted(begun_with.keys() | settings.keys()):
        before, now = begun_with.get(key), settings.get(key)
        if before != now:
            rule = f"must be {before!r} as when study {name!r} began"
            if key not in begun_with and not key.startswith(SPACE_OF):
                rule = f"is new: study {name!r} was begun by an older version of athwe, which did not have it"
            raise ConfigError(key, rule, now, remedy)
