"""An experiment: variants of one configuration under the same seeds, and which runs it still needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    """What makes it of the configuration the experiment started from, each as for `--set`."""
    values: dict[str, Any]
    """The changed keys with their values."""
    config: Config
    """Complete; its seed is that of the experiment's runs, one after another."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Variants x seeds, and how they are compared."""

    kind: Literal["ablation", "sweep"]
    preset: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    metric: str
    """E.g. `ndcg@10`: what changes and tests are about."""
    split: str
    """`validation` or `test`, likewise."""
    reference: int | None
    """Number of the variant that the others are compared with; None = there is none."""
    varied: tuple[str, ...] = ()
    """Keys of a sweep."""
    notes: tuple[str, ...] = ()
    quick_epochs: int | None = None
    """Not None: a quick look of at most so many epochs, which every output says."""

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "--seeds", "must be at least 1", len(self.seeds))
        require(self.split in ("validation", "test"), "--split", "must be validation or test", self.split)
        ks = self.variants[0].config.evaluation.ks
        known = [f"{name}@{k}" for name in ("ndcg", "mrr", "hit") for k in ks]
        require(self.metric in known, "--metric", f"must be one of {', '.join(known)}", self.metric)


Action = Literal["new", "resumed", "reused"]


@dataclass(frozen=True)
class PlannedRun:
    """A run that an experiment needs."""

    label: str
    """Of the first variant that has this configuration."""
    config: Config
    identity: str
    """Hex digits that stand for configuration and data."""
    action: Action
    name: str
    """Last part of the run's name."""
    existing: RunFolder | None
    """The run to reuse or to go on with."""

    @property
    def seed(self) -> int:
        return self.config.training.seed


@dataclass(frozen=True)
class Plan:
    """An experiment on a data set with its runs, equal configurations once."""

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

    def facts(self) -> dict[str, Any]:
        """The plan as `--dry-run --json` prints it, without the estimate."""
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
        """dataset/preset/name of a run, also of one that is to come."""
        return run.existing.name if run.existing else f"{self.prepared.name}/{self.experiment.preset}/{run.name}"


def with_seed(config: Config, seed: int) -> Config:
    """The configuration under another seed."""
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def limited(config: Config, quick_epochs: int | None) -> Config:
    """The configuration with at most so many epochs; unchanged for None."""
    return config if quick_epochs is None else replace_in(config, [f"training.epochs={quick_epochs}"])


def run_identity(config: Config, content_hash: str) -> str:
    """Equal for runs that would come to the same: complete configuration but for the device, and content of the data."""
    tree = config_tree(config)
    del tree["training"]["device"]
    text = json.dumps([tree, content_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plan_experiment(experiment: Experiment, prepared: PreparedDataset, *, runs_dir: Path) -> Plan:
    """Which runs are there, which are begun, which are to come.

    A finished run of equal configuration and data is reused wherever it lies under `runs_dir/<dataset>`, an unfinished one
    is gone on with; everything else gets a name such as `PCL-removed-s0-3f2a91b7`, the same each time.
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
            parent = Path(runs_dir) / prepared.name / experiment.preset
            name = found.path.name if found is not None else _free_name(parent, name)
            planned[identity] = PlannedRun(variant.label, config, identity, action, name, found)
    return Plan(experiment, prepared, Path(runs_dir), tuple(planned.values()))


def _existing(runs_dir: Path, prepared: PreparedDataset) -> dict[str, RunFolder]:
    """Identity to the run to use: a finished one, else one with a checkpoint, the newest of several."""
    content, found = prepared.manifest["content_hash"], {}
    runs = [run for run in list_runs(runs_dir, dataset=prepared.name) if _content_of(run) == content]
    for run in sorted(runs, key=lambda run: (_is_finished(run), run.last.exists())):
        try:
            found[run_identity(run.config(), content)] = run
        except AthweError:  # of another version of athwe, or damaged: it stands for no configuration of this one
            continue
    return found


def _content_of(run: RunFolder) -> str | None:
    return run.manifest().get("data", {}).get("content_hash")


def _is_finished(run: RunFolder) -> bool:
    return run.manifest().get("status") == FINISHED and run.per_user.exists()


def _free_name(parent: Path, name: str) -> str:
    """`name`, or `name-2` and so on where a folder that is no usable run has it."""
    taken, number = name, 1
    while (parent / taken).exists():
        number += 1
        taken = f"{name}-{number}"
    return taken
