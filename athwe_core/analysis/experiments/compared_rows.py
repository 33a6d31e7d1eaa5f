"""The rows of a comparison: runs that differ only in their seed, and files of ranks that another program made."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64

from athwe_core.analysis.experiments.plan import run_identity, with_seed
from athwe_core.config import Config
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.evaluation.external_ranks import ExternalRanks
from athwe_core.evaluation.metrics import per_user_metrics
from athwe_core.runs.find import FINISHED, TRAINED, RunFolder

Rule = str | bool
"""Value of a rule that compared runs must share."""


@dataclass(frozen=True)
class ComparedRun:
    """A finished run with its ranks of the split."""

    name: str
    folder: RunFolder
    config: Config
    manifest: dict[str, Any]
    frame: pl.DataFrame
    """Lines of `per_user_frame`, by `user_id`."""
    held_out: str
    """Equal for equal users with equal held-out items."""

    def rules(self) -> dict[str, Rule]:
        """What runs must share to be ranked together; `held_out` identifies the users and their held-out items."""
        data = self.manifest["data"]
        return {
            "dataset": data["name"],
            "content_hash": data["content_hash"][:12],
            "split_rule": data.get("split_rule", "leave-one-out"),  # runs of older versions have only this one
            "tie_order": data["tie_order"],
            "exclude_seen": self.config.evaluation.exclude_seen,
            "held_out": self.held_out,
        }


@dataclass(frozen=True)
class ComparedRow:
    """Runs that differ only in seed and device, or files of ranks under one label."""

    label: str
    frames: list[pl.DataFrame]
    """Lines of `per_user_frame` of each run or file, by `user_id`."""
    held_out: str
    runs: list[ComparedRun]
    """Empty for files."""
    files: list[str]
    """Empty for runs."""

    def per_user(self, metric: str, k: int) -> Float64[np.ndarray, "S U"]:
        """The metric by run or file, and user."""
        return np.stack([per_user_metrics(frame["rank"].to_numpy(), (k,))[metric] for frame in self.frames])


def read_runs(runs: Sequence[RunFolder], split: str) -> list[ComparedRun]:
    """Each run once, named by its path where another one has its name.

    Raises: CheckpointError for a run that is not finished or has no ranks of the split.
    """
    unique = list({run.path.resolve(): run for run in runs}.values())
    names = Counter(run.name for run in unique)
    return [_read_one(run, run.name if names[run.name] == 1 else str(run.path), split) for run in unique]


def _read_one(run: RunFolder, name: str, split: str) -> ComparedRun:
    manifest = run.manifest()
    if manifest.get("status") == TRAINED:
        rule = "was trained on items that other runs hold out, and is never compared"
        raise CheckpointError(f"run {name}", rule, remedy="Leave it out")
    if manifest.get("status") != FINISHED:
        raise CheckpointError(
            f"run {name}", "must be finished", manifest.get("status"), f"Continue it with: athwe train --resume {name}"
        )
    frame = run.ranks(split).sort("user_id")
    return ComparedRun(name, run, run.config(), manifest, frame, _held_out(frame))


def _held_out(frame: pl.DataFrame) -> str:
    digest = hashlib.sha256(repr(frame.select("user_id", "target_item_id").rows()).encode()).hexdigest()
    return f"{len(frame)} users, {digest[:12]}"


def rows_of_runs(runs: Sequence[ComparedRun]) -> list[ComparedRow]:
    """Rows in the order of their first runs, under labels of their own. A second run of a seed begins another row."""
    members: dict[tuple[str, str, int], list[ComparedRun]] = {}
    for run in runs:
        identity = run_identity(with_seed(run.config, 0), run.manifest["data"]["content_hash"])
        seed, again = run.config.training.seed, 0
        while any(seed == other.config.training.seed for other in members.get((identity, run.held_out, again), [])):
            again += 1
        members.setdefault((identity, run.held_out, again), []).append(run)
    rows = list(members.values())
    labels = _labels([row[0] for row in rows])
    return [
        ComparedRow(label, [run.frame for run in row], row[0].held_out, row, [])
        for label, row in zip(labels, rows, strict=True)
    ]


def _labels(firsts: Sequence[ComparedRun]) -> list[str]:
    """The preset; with the name of the row's first run where several rows have the preset."""
    presets = [str(run.manifest["preset"]) for run in firsts]
    longer = [f"{preset} {run.folder.path.name}" for preset, run in zip(presets, firsts, strict=True)]
    labels = [short if presets.count(short) == 1 else long for short, long in zip(presets, longer, strict=True)]
    return [label if labels.count(label) == 1 else run.name for label, run in zip(labels, firsts, strict=True)]


def rows_of_files(files: Mapping[str, Sequence[ExternalRanks]], *, taken: Sequence[str]) -> list[ComparedRow]:
    """A row for each label.

    Args:
        files: Label to its files, one for each seed.
        taken: Labels of other rows.
    Raises: ConfigError for a label that another row has.
    """
    for label in files:
        if label in taken:
            remedy = f"Name it: --ranks 'other {label}=FILE'"
            raise ConfigError("--ranks", "must have a label that no row of runs has", label, remedy)
    return [
        ComparedRow(
            label,
            [one.frame.sort("user_id") for one in of_label],
            _held_out(of_label[0].frame.sort("user_id")),
            [],
            [str(one.path) for one in of_label],
        )
        for label, of_label in files.items()
    ]
