"""An experiment: variants of one configuration, or models, under the same seeds, and which runs it still needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from athwe_core.config import Config, config_tree
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import AthweError, require
from athwe_core.models.registry import replace_in
from athwe_core.runs.find import FINISHED, RunFolder, list_runs


@dataclass(frozen=True)
class Variant:
    """One configuration of an experiment."""

    label: str
    """In tables and figures, e.g. `-PCL` or `0.3, 4`."""
    slug: str
    """In the names of its runs, e.g. `PCL-removed`."""
    changes: tuple[str, ...]
    """How it differs from the configuration that the experiment started from, each as for `--set`."""
    values: dict[str, object]
    """The changed keys with their values."""
    config: Config
    """Complete; its seed is replaced by each of the experiment's seeds."""
    preset: str | None = None
    """The preset it started from, where that is not the experiment's."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Variants under the same seeds, and how they are compared.

    Raises: ConfigError for no seeds, an unknown split, or a metric that the configuration does not compute.
    """

    kind: Literal["ablation", "sweep", "models"]
    preset: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    metric: str
    """The metric of changes and tests, e.g. `ndcg@10`."""
    split: str
    """The split of changes and tests: `validation` or `test`."""
    reference: int | None
    """Index of the variant that the others are compared with; None = no comparison."""
    varied: tuple[str, ...] = ()
    """Keys of a sweep."""
    notes: tuple[str, ...] = ()
    quick_epochs: int | None = None
    """At most so many epochs, for a quick look, which every output says; None = as many as the configuration has."""

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "--seeds", "must be at least 1", len(self.seeds))
        require(self.split in ("validation", "test"), "--split", "must be validation or test", self.split)
        ks = self.variants[0].config.evaluation.ks
        known = [f"{name}@{k}" for name in ("ndcg", "mrr", "hit") for k in ks]
        require(self.metric in known, "--metric", f"must be one of {', '.join(known)}", self.metric)


Action = Literal["new", "resumed", "reused"]


class RunFacts(TypedDict):
    """A planned run in the output of `--dry-run --json`."""

    seed: int
    action: Action
    run: str


class VariantFacts(TypedDict):
    """A variant in the output of `--dry-run --json`."""

    label: str
    values: dict[str, object]
    changes: list[str]
    runs: list[RunFacts]


class PlanFacts(TypedDict):
    """A plan as `--dry-run --json` prints it, without the estimate."""

    kind: str
    dataset: str
    preset: str
    data_version: str
    seeds: list[int]
    quick_epochs: int | None
    metric: str
    split: str
    varied: list[str]
    variants: list[VariantFacts]
    notes: list[str]


@dataclass(frozen=True)
class PlannedRun:
    """A run that an experiment needs."""

    label: str
    """Of the first variant that has this configuration."""
    config: Config
    identity: str
    """Hash of configuration and data, as of `run_identity`."""
    action: Action
    name: str
    """Last part of the run's name."""
    preset: str
    """The preset that the configuration started from."""
    existing: RunFolder | None
    """The run to reuse or to continue."""

    @property
    def seed(self) -> int:
        """Of its configuration."""
        return self.config.training.seed


@dataclass(frozen=True)
class Plan:
    """An experiment on a data set with its runs; equal configurations share a run."""

    experiment: Experiment
    prepared: PreparedDataset
    runs_dir: Path
    runs: tuple[PlannedRun, ...]
    """All variants of the first seed, then of the second, and so on."""

    def of_variant(self, variant: Variant) -> list[PlannedRun]:
        """Its runs in the order of the seeds."""
        by_identity = {run.identity: run for run in self.runs}
        configs = (with_seed(variant.config, seed) for seed in self.experiment.seeds)
        return [by_identity[run_identity(config, self.prepared.manifest["content_hash"])] for config in configs]

    def to_train(self) -> list[PlannedRun]:
        """Runs that are not finished."""
        return [run for run in self.runs if run.action != "reused"]

    def facts(self) -> PlanFacts:
        """The plan for `--dry-run --json`."""
        experiment = self.experiment
        return {
            "kind": experiment.kind,
            "dataset": self.prepared.name,
            "preset": experiment.preset,
            "data_version": self.prepared.version,
            "seeds": list(experiment.seeds),
            "quick_epochs": experiment.quick_epochs,
            "metric": experiment.metric,
            "split": experiment.split,
            "varied": list(experiment.varied),
            "variants": [
                {
                    "label": variant.label,
                    "values": variant.values,
                    "changes": list(variant.changes),
                    "runs": [
                        {"seed": run.seed, "action": run.action, "run": self.full_name(run)}
                        for run in self.of_variant(variant)
                    ],
                }
                for variant in experiment.variants
            ],
            "notes": list(experiment.notes),
        }

    def full_name(self, run: PlannedRun) -> str:
        """dataset/preset/name of a run, whether it exists yet or not."""
        return run.existing.name if run.existing else f"{self.prepared.name}/{run.preset}/{run.name}"


def with_seed(config: Config, seed: int) -> Config:
    """The configuration with another seed."""
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def limited(config: Config, quick_epochs: int | None) -> Config:
    """The configuration with at most so many epochs; unchanged for None."""
    return config if quick_epochs is None else replace_in(config, [f"training.epochs={quick_epochs}"])


def run_identity(config: Config, content_hash: str) -> str:
    """A hash that is equal for runs that give the same result.

    Args:
        config: complete; its device, and whether processes divide the item tables, do not count.
        content_hash: of the prepared data.
    """
    tree = config_tree(config)
    del tree["training"]["device"], tree["training"]["shard_tables"]
    text = json.dumps([tree, content_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plan_experiment(experiment: Experiment, prepared: PreparedDataset, *, runs_dir: Path) -> Plan:
    """Find out which runs exist, which are unfinished and which are still to be created.

    A finished run of equal configuration and data is reused wherever it is under `runs_dir/<dataset>`. An unfinished one is
    continued. Every other run gets a name such as `PCL-removed-s0-3f2a91b7`, the same each time.
    """
    there = _existing(runs_dir, prepared)
    planned: dict[str, PlannedRun] = {}
    for seed in experiment.seeds:
        for variant in experiment.variants:
            config = with_seed(variant.config, seed)
            identity = run_identity(config, prepared.manifest["content_hash"])
            if identity in planned:
                continue
            found = there.get(identity)
            action: Action = "new" if found is None else "reused" if _is_finished(found) else "resumed"
            name = f"{variant.slug}-s{seed}-{identity[:8]}"
            preset = variant.preset or experiment.preset
            parent = Path(runs_dir) / prepared.name / preset
            name = found.path.name if found is not None else _free_name(parent, name)
            planned[identity] = PlannedRun(variant.label, config, identity, action, name, preset, found)
    return Plan(experiment, prepared, Path(runs_dir), tuple(planned.values()))


def _existing(runs_dir: Path, prepared: PreparedDataset) -> dict[str, RunFolder]:
    """Identity to the run to use: a finished one, else one with a checkpoint, the newest of several."""
    content, found = prepared.manifest["content_hash"], {}
    runs = [run for run in list_runs(runs_dir, dataset=prepared.name) if _content_of(run) == content]
    for run in sorted(runs, key=lambda run: (_is_finished(run), run.last.exists())):
        try:
            found[run_identity(run.config(), content)] = run
        except AthweError:  # of another version of athwe, or damaged
            continue
    return found


def _content_of(run: RunFolder) -> str | None:
    return run.manifest().get("data", {}).get("content_hash")


def _is_finished(run: RunFolder) -> bool:
    return run.manifest().get("status") == FINISHED and run.per_user.exists()


def _free_name(parent: Path, name: str) -> str:
    """`name`, or `name-2` and so on where an unusable folder has that name."""
    taken, number = name, 1
    while (parent / taken).exists():
        number += 1
        taken = f"{name}-{number}"
    return taken
