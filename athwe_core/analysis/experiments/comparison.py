"""Finished runs side by side, as in table 1 of the paper: metrics, change, paired tests, speed, size, groups of users."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError

from athwe_core.analysis.experiments.plan import run_identity, with_seed
from athwe_core.analysis.experiments.result import change_percent, num_parameters, spread
from athwe_core.config import Config
from athwe_core.errors import CheckpointError, ConfigError, require
from athwe_core.evaluation.groups import GROUPINGS, group_metrics
from athwe_core.evaluation.metrics import mean_metrics, per_user_metrics
from athwe_core.evaluation.significance import holm, paired_test
from athwe_core.runs.checkpoint import WEIGHTS
from athwe_core.runs.find import FINISHED, RunFolder

COMPARABLE = ("dataset", "content_hash", "split_rule", "tie_order", "exclude_seen", "held_out")
"""What runs must share to be ranked together; `held_out` stands for the users and their held-out items."""


@dataclass(frozen=True)
class _Run:
    """A finished run with its ranks of the split."""

    name: str
    folder: RunFolder
    config: Config
    manifest: dict[str, Any]
    frame: pl.DataFrame
    """Lines of `per_user.parquet`, in the order of `user_id`."""
    held_out: str
    """Equal for equal users with equal held-out items."""

    def rules(self) -> dict[str, Any]:
        """Value of each of `COMPARABLE`."""
        data = self.manifest["data"]
        return {
            "dataset": data["name"],
            "content_hash": data["content_hash"][:12],
            "split_rule": data.get("split_rule", "leave-one-out"),  # runs of older versions know only this one
            "tie_order": data["tie_order"],
            "exclude_seen": self.config.evaluation.exclude_seen,
            "held_out": self.held_out,
        }


@dataclass(frozen=True)
class _Row:
    """Runs that differ only in the seed."""

    label: str
    runs: list[_Run]

    def per_user(self, metric: str, k: int) -> NDArray[np.float64]:
        """(U,) the metric of each user, averaged over the runs."""
        return np.mean([per_user_metrics(run.frame["rank"].to_numpy(), (k,))[metric] for run in self.runs], axis=0)


def compare_runs(
    runs: Sequence[RunFolder], *, split: str = "test", metric: str = "ndcg@10", force: bool = False
) -> dict[str, Any]:
    """Rows of runs, each against the first row.

    Runs whose configuration differs only in seed and device form a row; a seed that comes twice begins another one. Each
    user's metric is averaged over the row's seeds, then paired by user with that of the first row; p-values are adjusted by
    Holm's rule over all rows tested.

    Args:
        runs: finished ones; a run given twice counts once.
        split: `validation` or `test`: the ranks in each run's `per_user.parquet` are read, nothing is ranked anew.
        metric: `ndcg@k`, `mrr@k` or `hit@k`: what change, tests and groups are about.
        force: rows of different data, split, tie order or seen-item rule are put side by side all the same, marked by
            `comparable: false`; without p-values where users or held-out items differ.
    Returns: dataset, split, split_rule, tie_order and exclude_seen (None where runs differ), users (of the first row),
        metric, comparable, differences, rows, groups.
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
            f"must share data, split, tie order and seen-item rule, and these do not: {_described(differences)}",
            remedy="Leave some out, or use --force to see them side by side, marked as not comparable",
        )
    rows = _rows(found)
    ks = sorted({k, *(k for run in found for k in run.config.evaluation.ks)})
    return {
        "dataset": ", ".join(dict.fromkeys(run.manifest["data"]["name"] for run in found)),
        "split": split,
        **{rule: _shared([run.rules()[rule] for run in found]) for rule in ("split_rule", "tie_order", "exclude_seen")},
        "users": len(found[0].frame),
        "metric": metric,
        "comparable": not differences,
        "differences": differences,
        "rows": _with_tests([_facts(row, ks) for row in rows], rows, metric, k),
        "groups": _groups(rows, metric, k),
    }


def _shared(values: Sequence[Any]) -> Any:
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
            f"run {name}", "must be finished", manifest.get("status"), f"Go on with: athwe train --resume {name}"
        )
    frame = run.ranks(split).sort("user_id")
    held_out = hashlib.sha256(repr(frame.select("user_id", "target_item_id").rows()).encode()).hexdigest()
    return _Run(name, run, run.config(), manifest, frame, f"{len(frame)} users, {held_out[:12]}")


def _differences(runs: Sequence[_Run]) -> list[dict[str, Any]]:
    rules = {run.name: run.rules() for run in runs}
    values = {what: {name: of[what] for name, of in rules.items()} for what in COMPARABLE}
    return [{"what": what, "values": by_run} for what, by_run in values.items() if len(set(by_run.values())) > 1]


def _described(differences: Sequence[dict[str, Any]]) -> str:
    """`tie_order is 'file' in a, b and 'item' in c; ...`."""

    def one(difference: dict[str, Any]) -> str:
        by_value: dict[Any, list[str]] = {}
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


def _facts(row: _Row, ks: Sequence[int]) -> dict[str, Any]:
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
    }


def _parameters(run: RunFolder) -> int | None:
    """None where the weights are gone, which a comparison can do without."""
    path = run.best / WEIGHTS
    try:
        return num_parameters(run) if path.exists() else None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(str(path), f"must be a readable safetensors file ({error})") from None


def _with_tests(facts: list[dict[str, Any]], rows: Sequence[_Row], metric: str, k: int) -> list[dict[str, Any]]:
    """Change and p-values against the first row."""
    base, first = facts[0]["metrics"][metric]["mean"], rows[0]
    tested = [i for i, row in enumerate(rows) if i > 0 and row.runs[0].held_out == first.runs[0].held_out]
    p_values = [paired_test(rows[i].per_user(metric, k), first.per_user(metric, k)) for i in tested]
    by_row = dict(zip(tested, zip(p_values, holm(p_values), strict=True), strict=True))
    for i, fact in enumerate(facts):
        fact["change_percent"] = change_percent(fact["metrics"][metric]["mean"], base) if i > 0 else None
        fact["p_value"], fact["p_holm"] = by_row.get(i, (None, None))
    return facts


def _groups(rows: Sequence[_Row], metric: str, k: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Grouping -> label of the group -> users (of the first row that has any) and the metric under each row's label."""
    of_rows = {row.label: [group_metrics(run.frame, (k,)) for run in row.runs] for row in rows}
    result: dict[str, dict[str, dict[str, Any]]] = {grouping: {} for grouping in GROUPINGS}
    for grouping, buckets in GROUPINGS.items():
        for bucket in buckets:
            entry: dict[str, Any] = {}
            for label, of_runs in of_rows.items():
                if bucket in of_runs[0][grouping]:
                    entry.setdefault("users", of_runs[0][grouping][bucket]["users"])
                    entry[label] = mean(of_run[grouping][bucket][metric] for of_run in of_runs)
            if entry:
                result[grouping][bucket] = entry
    return result
