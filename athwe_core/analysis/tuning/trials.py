"""The trials of a study: each proposal of optuna becomes the configuration of an ordinary run, which may be pruned."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from athwe_core.analysis.experiments.plan import run_identity
from athwe_core.analysis.experiments.result_folder import EXPERIMENTS
from athwe_core.analysis.tuning.optuna_study import SPACE_OF, Settings, load_optuna, requeue_interrupted, settled
from athwe_core.analysis.tuning.search_space import SearchSpace, Values, draw, with_values
from athwe_core.config import Config, config_tree, flattened
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError, NonFiniteLossError, require
from athwe_core.models.inputs import adapt_to_data
from athwe_core.runs.find import MANIFEST, RunFolder, create_run
from athwe_core.runs.schema import EpochRecord, selected
from athwe_core.training.loop import Listener, train
from athwe_core.training.randomness import keyed_rng, keyed_seed
from athwe_core.training.tracking.listener import tracked

if TYPE_CHECKING:
    import optuna

PRUNED = "pruned"
"""Status of a run that was stopped early because other trials did better."""
STARTUP_TRIALS, WARMUP_EPOCHS = 5, 3
DRAWS = 1000
"""Combinations drawn before all of them count as tried."""


class TuningListener(Listener, Protocol):
    """Is called about the progress of tuning: the trials, and the training of each."""

    def trial_begins(self, number: int, *, trials: int, values: Values, run: str) -> None:
        """Trial `number` (from 0) begins or continues; the study ends when it has `trials` trials."""

    def trial_ends(self, number: int, *, state: str, value: float | None) -> None:
        """The trial is complete, pruned or failed; `value` is its best validation value where it is complete."""

    def note(self, text: str) -> None:
        """One sentence that the user should know, e.g. about a damaged checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A study and all that determines its trials."""

    space: SearchSpace
    base: Config
    """A configuration that fits `prepared`. Each trial has this one with values of the space."""
    prepared: PreparedDataset
    runs_dir: Path
    preset: str
    """The middle part of the runs' names."""
    name: str
    """Its runs are `tune-<name>-<number>`."""
    seed: int
    """Of the proposals. A proposal depends on the seed, its number and the trials before; interruptions do not matter."""
    startup_trials: int = STARTUP_TRIALS
    """Complete trials before one may be pruned for being below the median of its epoch."""
    warmup_epochs: int = WARMUP_EPOCHS
    """Epochs before a trial may be pruned."""

    def __post_init__(self) -> None:
        is_plain = self.name == Path(self.name).name and self.name not in ("", ".", "..")
        require(is_plain, "--name", "must be a plain name", self.name)
        require(self.seed >= 0, "--seed", "must not be negative", self.seed)

    @property
    def folder(self) -> Path:
        return Path(self.runs_dir) / self.prepared.name / EXPERIMENTS / f"tune-{self.name}"

    def settings(self) -> Settings:
        """All that must be the same when the study is continued."""
        leaves = flattened(config_tree(self.base))
        del leaves["training.device"]
        space = {f"{SPACE_OF}{key}": str(part) for key, part in self.space.items()}
        pruning = {"startup trials": self.startup_trials, "warm-up epochs": self.warmup_epochs}
        data = self.prepared.manifest["content_hash"][:12]
        return {"preset": self.preset, "content of the data": data, "--seed": self.seed, **pruning, **space, **leaves}

    def config(self, values: Values) -> Config:
        """The configuration of a trial, adapted to the data."""
        return adapt_to_data(with_values(self.base, values), self.prepared)[0]

    def decode(self, params: Mapping[str, Any]) -> Values:
        """Values of the keys, from what optuna stores."""
        return {key: part.decode(params[key]) for key, part in self.space.items()}

    def identity(self, config: Config) -> str:
        """Equal for trials that would give the same result."""
        return run_identity(config, self.prepared.manifest["content_hash"])

    def run(self, number: int) -> RunFolder:
        """Where the trial's run is, or will be."""
        return RunFolder(Path(self.runs_dir) / self.prepared.name / self.preset / f"tune-{self.name}-{number}")


def next_trial(
    study: optuna.Study, tuning: Tuning, under_way: Sequence[optuna.trial.Trial] = ()
) -> optuna.trial.Trial | None:
    """A trial that was interrupted, else a new one; None when no untried combination is found.

    Args:
        under_way: trials of this process that have not ended.
    """
    if not requeue_interrupted(study, [trial.number for trial in under_way]):
        number = len(settled(study)) + len(under_way)
        values = _propose(study, tuning, number, [trial.user_attrs["identity"] for trial in under_way])
        if values is None:
            return None
        params = {key: part.encode(values[key]) for key, part in tuning.space.items()}
        identity = tuning.identity(tuning.config(values))
        study.enqueue_trial(params, user_attrs={"number": number, "identity": identity, "params": params})
    return study.ask({key: part.distribution() for key, part in tuning.space.items()})


def finish_trial(
    study: optuna.Study,
    trial: optuna.trial.Trial,
    tuning: Tuning,
    *,
    trials: int,
    command: str,
    listener: TuningListener,
    should_stop: Callable[[], bool],
    track: Sequence[str],
) -> bool:
    """Train the trial's run to its end, or until it is pruned or fails; False when it was stopped."""
    run, reports = begin_trial(trial, tuning, trials=trials, command=command, listener=listener)
    try:
        with tracked(reports, track, run, notify=listener.note) as tracking:
            try:
                for record in run.metrics():
                    reports.report(record)
                result = train(run, tuning.prepared, listener=tracking, should_stop=should_stop, notify=listener.note)
            except EndedEarlyError:
                result = None
        if result is not None and not result.finished:
            return False
    except NonFiniteLossError as error:
        settle_failed(study, trial, error, listener)
    else:
        (settle_pruned if result is None else settle_complete)(study, trial, run, listener)
    return True


def begin_trial(
    trial: optuna.trial.Trial, tuning: Tuning, *, trials: int, command: str, listener: TuningListener
) -> tuple[RunFolder, Reports]:
    """The trial's run, which exists when the trial was interrupted, and what reports its epochs to optuna."""
    number, values = trial.user_attrs["number"], tuning.decode(trial.params)
    config = tuning.config(values)
    run = _run(tuning, number, config, command)
    listener.trial_begins(number, trials=trials, values=values, run=run.name)
    return run, Reports(trial, listener, config.training.epochs)


def settle_pruned(study: optuna.Study, trial: optuna.trial.Trial, run: RunFolder, listener: TuningListener) -> None:
    """Record that the trial was stopped early because other trials did better."""
    run.update_manifest(status=PRUNED)
    study.tell(trial, state=load_optuna().trial.TrialState.PRUNED)
    listener.trial_ends(trial.user_attrs["number"], state="pruned", value=None)


def settle_failed(
    study: optuna.Study, trial: optuna.trial.Trial, error: NonFiniteLossError, listener: TuningListener
) -> None:
    """Record that a loss of the trial was not finite."""
    trial.set_user_attr("reason", str(error))
    study.tell(trial, state=load_optuna().trial.TrialState.FAIL)
    listener.trial_ends(trial.user_attrs["number"], state="failed", value=None)


def settle_complete(study: optuna.Study, trial: optuna.trial.Trial, run: RunFolder, listener: TuningListener) -> None:
    """Record the best validation value of the trial's epochs."""
    value = max(selected(record)[1] for record in run.metrics())
    study.tell(trial, value)
    listener.trial_ends(trial.user_attrs["number"], state="complete", value=value)


class EndedEarlyError(Exception):
    """Ends the training of a trial that is pruned; its state is saved."""


@dataclass
class Reports:
    """The training loop's listener: validation values go to optuna, everything to the listener of the study."""

    trial: optuna.trial.Trial
    listener: Listener
    last_epoch: int
    reported: set[int] = field(default_factory=set)

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        self.listener.epoch_begins(epoch, epochs=epochs, steps=steps, done=done, best=best)

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.listener.step_ends(step, means)

    def epoch_ends(self, record: EpochRecord, *, is_best: bool) -> None:
        self.listener.epoch_ends(record, is_best=is_best)
        self.report(record)

    def report(self, record: EpochRecord) -> None:
        """Report an epoch to optuna, once; raises EndedEarlyError when the trial is to be pruned."""
        epoch = record["epoch"]
        if epoch not in self.reported:
            self.reported.add(epoch)
            self.trial.report(selected(record)[1], epoch)
        if epoch < self.last_epoch and self.trial.should_prune():
            raise EndedEarlyError


def _propose(study: optuna.Study, tuning: Tuning, number: int, under_way: Sequence[str]) -> Values | None:
    """Values that neither a settled trial has nor one of the identities `under_way`.

    They are from the tree-structured Parzen estimator, at random where it repeats itself.
    """
    optuna = load_optuna()
    tried = {trial.user_attrs["identity"] for trial in settled(study)}.union(under_way)
    seed = keyed_seed(tuning.seed, "sampler", number) % 2**32
    scratch = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    scratch.add_trials(settled(study))
    proposed = scratch.ask({key: part.distribution() for key, part in tuning.space.items()})
    values, rng = tuning.decode(proposed.params), keyed_rng(tuning.seed, "draw", number)
    seen: list[Values] = []
    for _ in range(DRAWS):
        if values not in seen:
            seen.append(values)
            try:
                if tuning.identity(tuning.config(values)) not in tried:
                    return values
            except ConfigError:  # values that do not fit together
                pass
        values = draw(tuning.space, rng)
    return None


def _run(tuning: Tuning, number: int, config: Config, command: str) -> RunFolder:
    """The trial's run, which exists when the trial was interrupted."""
    run = tuning.run(number)
    if not (run.path / MANIFEST).exists():
        shutil.rmtree(run.path, ignore_errors=True)  # a process was killed before it had written anything
        return create_run(
            tuning.runs_dir, config, tuning.prepared, preset=tuning.preset, name=run.path.name, command=command
        )
    if run_identity(run.config(), run.manifest()["data"]["content_hash"]) != tuning.identity(config):
        rule = f"must be of a new study: run {run.name} exists with another configuration"
        raise ConfigError("--name", rule, tuning.name, "Choose another, or delete that run")
    return run
