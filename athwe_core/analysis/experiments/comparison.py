"""Finished runs side by side, as in table 1 of HM4SR: metrics, change, paired tests, speed, size, groups of users."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, TypedDict, TypeVar

import numpy as np
import polars as pl
from jaxtyping import Float64
from safetensors import SafetensorError

from athwe_core.analysis.experiments.plan import run_identity, with_seed
from athwe_core.analysis.experiments.result import (
    Spread,
    TestedOver,
    change_percent,
    describe_test,
    num_parameters,
    paired_p_value,
    spread,
)
from athwe_core.config import Config
from athwe_core.errors import CheckpointError, ConfigError, require
from athwe_core.evaluation.groups import GROUPINGS, group_metrics
from athwe_core.evaluation.metrics import mean_metrics, per_user_metrics
from athwe_core.evaluation.significance import holm
from athwe_core.runs.checkpoint import WEIGHTS
from athwe_core.runs.find import FINISHED, RunFolder

_T = TypeVar("_T")

COMPARABLE = ("dataset", "content_hash", "split_rule", "tie_order", "exclude_seen", "held_out")
"""What runs must share to be ranked together; `held_out` identifies the users and their held-out items."""

Rule = str | bool
"""Value of one of `COMPARABLE`."""


class Difference(TypedDict):
    """One of `COMPARABLE` that the runs do not share."""

    what: str
    values: dict[str, Rule]
    """By the name of the run."""


class ComparisonRow(TypedDict):
    """Runs that differ only in seed and device."""

    label: str
    runs: list[str]
    seeds: list[int]
    preset: str
    metrics: dict[str, Spread]
    seconds_per_epoch: float
    epochs: list[int]
    devices: list[str]
    parameters: int | None
    """None where the weights are gone."""
    change_percent: float | None
    """Of the chosen metric against the first row; None for that row, and where its value is 0."""
    p_value: float | None
    """Of the paired test against the first row; None for that row, and where users or held-out items differ."""
    p_holm: float | None
    p_over: TestedOver | None


GroupEntry = dict[str, float]
"""`users`, the number of users in the group, and under the label of each row its metric."""


class Comparison(TypedDict):
    """What `athwe compare --json` prints."""

    dataset: str
    split: str
    split_rule: str | None
    """None where runs differ, as the next two."""
    tie_order: str | None
    exclude_seen: bool | None
    users: int
    """Of the first row."""
    metric: str
    comparable: bool
    differences: list[Difference]
    rows: list[ComparisonRow]
    test: str | None
    """What the p-values are of, a sentence; None where nothing was tested."""
    groups: dict[str, dict[str, GroupEntry]]
    """By grouping and group."""


@dataclass(frozen=True)
class _Run:
    """A finished run with its ranks of the split."""

    name: str
    folder: RunFolder
    config: Config
    manifest: dict[str, Any]
    frame: pl.DataFrame
    """Rows of `per_user.parquet`, by `user_id`."""
    held_out: str
    """Equal for equal users with equal held-out items."""

    def rules(self) -> dict[str, Rule]:
        """Value of each of `COMPARABLE`."""
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
class _Row:
    """Runs that differ only in seed and device."""

    label: str
    runs: list[_Run]

    def per_user(self, metric: str, k: int) -> Float64[np.ndarray, "S U"]:
        """The metric by run and user."""
        return np.stack([per_user_metrics(run.frame["rank"].to_numpy(), (k,))[metric] for run in self.runs])


def compare_runs(
    runs: Sequence[RunFolder], *, split: str = "test", metric: str = "ndcg@10", force: bool = False
) -> Comparison:
    """Rows of runs, each compared with the first row.

    Runs whose configurations differ only in seed and device form a row. A second run of the same seed begins another row. The
    metric is tested pair by pair of users. Where both rows have several seeds, the test treats the seeds as a random sample
    too; `p_over` of each row says so. p-values are corrected by Holm's rule for the number of rows tested.

    Args:
        runs: finished ones; a run given twice counts once.
        split: `validation` or `test`. The ranks in each run's `per_user.parquet` are read; nothing is ranked anew.
        metric: `ndcg@k`, `mrr@k` or `hit@k`: the metric of change, tests and groups.
        force: compare rows of different data, split, tie order or seen-item rule too, marked by `comparable: false`; without
            p-values where users or held-out items differ.
    Raises: ConfigError for an unknown metric or split, no runs, or runs that are not comparable without `force`;
        CheckpointError for a run that is not finished or has no ranks of the split.
    """
    k = _cut_off(metric)
    require(split in ("validation", "test"), "--split", "must be validation or test", split)
    require(len(runs) > 0, "RUN", "must name at least one run", 0)
    found = _read(runs, split)
    differences = _differences(found)
    if differences and not force:
        raise ConfigError(
            "RUN",
            f"must share data, split, tie order and seen-item rule. They do not: {_described(differences)}",
            remedy="Leave some out, or add --force to see them side by side, marked as not comparable",
        )
    rows = _rows(found)
    ks = sorted({k, *(k for run in found for k in run.config.evaluation.ks)})
    rules = [run.rules() for run in found]
    compared = _with_tests([_facts(row, ks) for row in rows], rows, metric, k)
    return {
        "dataset": ", ".join(dict.fromkeys(run.manifest["data"]["name"] for run in found)),
        "split": split,
        "split_rule": _shared([str(rule["split_rule"]) for rule in rules]),
        "tie_order": _shared([str(rule["tie_order"]) for rule in rules]),
        "exclude_seen": _shared([bool(rule["exclude_seen"]) for rule in rules]),
        "users": len(found[0].frame),
        "metric": metric,
        "comparable": not differences,
        "differences": differences,
        "rows": compared,
        "test": describe_test(row["p_over"] for row in compared),
        "groups": _groups(rows, metric, k),
    }


def _shared(values: Sequence[_T]) -> _T | None:
    """The value that all have; None where they differ."""
    return values[0] if len(set(values)) == 1 else None


def _cut_off(metric: str) -> int:
    found = re.fullmatch(r"(?:ndcg|mrr|hit)@([1-9]\d*)", metric)
    if found is None:
        raise ConfigError("--metric", "must be ndcg@k, mrr@k or hit@k", metric)
    return int(found.group(1))


def _read(runs: Sequence[RunFolder], split: str) -> list[_Run]:
    """Each run once, named by its path where another one has its name."""
    unique = list({run.path.resolve(): run for run in runs}.values())
    names = Counter(run.name for run in unique)
    return [_read_one(run, run.name if names[run.name] == 1 else str(run.path), split) for run in unique]


def _read_one(run: RunFolder, name: str, split: str) -> _Run:
    manifest = run.manifest()
    if manifest.get("status") != FINISHED:
        raise CheckpointError(
            f"run {name}", "must be finished", manifest.get("status"), f"Continue it with: athwe train --resume {name}"
        )
    frame = run.ranks(split).sort("user_id")
    held_out = hashlib.sha256(repr(frame.select("user_id", "target_item_id").rows()).encode()).hexdigest()
    return _Run(name, run, run.config(), manifest, frame, f"{len(frame)} users, {held_out[:12]}")


def _differences(runs: Sequence[_Run]) -> list[Difference]:
    rules = {run.name: run.rules() for run in runs}
    values = {what: {name: of[what] for name, of in rules.items()} for what in COMPARABLE}
    return [{"what": what, "values": by_run} for what, by_run in values.items() if len(set(by_run.values())) > 1]


def _described(differences: Sequence[Difference]) -> str:
    """`tie_order is 'file' in a, b and 'item' in c; ...`."""

    def one(difference: Difference) -> str:
        by_value: dict[Rule, list[str]] = {}
        for name, value in difference["values"].items():
            by_value.setdefault(value, []).append(name)
        parts = [f"{value!r} in {', '.join(names)}" for value, names in by_value.items()]
        return f"{difference['what']} is {' and '.join(parts)}"

    return "; ".join(map(one, differences))


def _rows(runs: Sequence[_Run]) -> list[_Row]:
    """Rows in the order of their first runs, under labels of their own."""
    members: dict[tuple[str, str, int], list[_Run]] = {}
    for run in runs:
        identity = run_identity(with_seed(run.config, 0), run.manifest["data"]["content_hash"])
        seed, again = run.config.training.seed, 0
        while any(seed == other.config.training.seed for other in members.get((identity, run.held_out, again), [])):
            again += 1
        members.setdefault((identity, run.held_out, again), []).append(run)
    rows = list(members.values())
    return [_Row(label, row) for label, row in zip(_labels([row[0] for row in rows]), rows, strict=True)]


def _labels(firsts: Sequence[_Run]) -> list[str]:
    """The preset; with the name of the row's first run where several rows have the preset."""
    presets = [str(run.manifest["preset"]) for run in firsts]
    longer = [f"{preset} {run.folder.path.name}" for preset, run in zip(presets, firsts, strict=True)]
    labels = [short if presets.count(short) == 1 else long for short, long in zip(presets, longer, strict=True)]
    return [label if labels.count(label) == 1 else run.name for label, run in zip(labels, firsts, strict=True)]


def _facts(row: _Row, ks: Sequence[int]) -> ComparisonRow:
    """A row that is not compared yet."""
    each = [mean_metrics(run.frame["rank"].to_numpy(), ks) for run in row.runs]
    results = [run.manifest["results"] for run in row.runs]
    return {
        "label": row.label,
        "runs": [run.name for run in row.runs],
        "seeds": [run.config.training.seed for run in row.runs],
        "preset": row.runs[0].manifest["preset"],
        "metrics": {name: spread([metrics[name] for metrics in each]) for name in each[0]},
        "seconds_per_epoch": median(result["seconds_per_epoch"] for result in results),
        "epochs": [result["epochs"] for result in results],
        "devices": sorted({run.manifest.get("device", "unknown") for run in row.runs}),
        "parameters": _parameters(row.runs[0].folder),
        "change_percent": None,
        "p_value": None,
        "p_holm": None,
        "p_over": None,
    }


def _parameters(run: RunFolder) -> int | None:
    """None where the weights are gone, which a comparison can do without."""
    path = run.best / WEIGHTS
    try:
        return num_parameters(run) if path.exists() else None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(str(path), f"must be a readable safetensors file ({error})") from None


def _with_tests(facts: list[ComparisonRow], rows: Sequence[_Row], metric: str, k: int) -> list[ComparisonRow]:
    """Set change and p-values against the first row."""
    base, first = facts[0]["metrics"][metric]["mean"], rows[0]
    tested, p_values = [], []
    for fact, row in zip(facts[1:], rows[1:], strict=True):
        fact["change_percent"] = change_percent(fact["metrics"][metric]["mean"], base)
        if row.runs[0].held_out == first.runs[0].held_out:
            p, fact["p_over"] = paired_p_value(row.per_user(metric, k), first.per_user(metric, k))
            fact["p_value"] = p
            tested.append(fact)
            p_values.append(p)
    for fact, adjusted in zip(tested, holm(p_values), strict=True):
        fact["p_holm"] = adjusted
    return facts


def _groups(rows: Sequence[_Row], metric: str, k: int) -> dict[str, dict[str, GroupEntry]]:
    """Grouping -> label of the group -> users (of the first row that has any) and the metric under each row's label."""
    of_rows = {row.label: [group_metrics(run.frame, (k,)) for run in row.runs] for row in rows}
    result: dict[str, dict[str, GroupEntry]] = {grouping: {} for grouping in GROUPINGS}
    for grouping, buckets in GROUPINGS.items():
        for bucket in buckets:
            entry: GroupEntry = {}
            for label, of_runs in of_rows.items():
                if bucket in of_runs[0][grouping]:
                    entry.setdefault("users", of_runs[0][grouping][bucket]["users"])
                    entry[label] = mean(of_run[grouping][bucket][metric] for of_run in of_runs)
            if entry:
                result[grouping][bucket] = entry
    return result
