"""Finished runs side by side, as in table 1 of HM4SR: metrics, change, paired tests, speed, size, groups of users."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import TypedDict, TypeVar

from safetensors import SafetensorError

from athwe_core.analysis.experiments.compared_rows import (
    ComparedRow,
    ComparedRun,
    Rule,
    read_runs,
    rows_of_files,
    rows_of_runs,
)
from athwe_core.analysis.experiments.result import (
    CHANCE,
    Spread,
    TestedOver,
    change_percent,
    describe_test,
    num_parameters,
    paired_p_value,
    spread,
)
from athwe_core.errors import CheckpointError, ConfigError, require
from athwe_core.evaluation.external_ranks import ExternalRanks
from athwe_core.evaluation.groups import GROUPINGS, group_metrics
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.evaluation.significance import holm
from athwe_core.runs.checkpoint import WEIGHTS
from athwe_core.runs.find import RunFolder

_T = TypeVar("_T")


class Difference(TypedDict):
    """A rule that the runs do not share, see `ComparedRun.rules`."""

    what: str
    values: dict[str, Rule]
    """By the name of the run."""


class ComparisonRow(TypedDict):
    """Runs that differ only in seed and device, or files of ranks that another program made."""

    label: str
    runs: list[str]
    """Empty for files, as are seeds, epochs and devices."""
    files: list[str]
    """Empty for runs."""
    seeds: list[int]
    preset: str | None
    """None for files."""
    metrics: dict[str, Spread]
    seconds_per_epoch: float | None
    """None for files."""
    epochs: list[int]
    devices: list[str]
    parameters: int | None
    """None for files, and where the weights are gone."""
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
    best: dict[str, str | None]
    """By metric, the label of the row that is ahead of each other row beyond chance; None where no row is."""
    test: str | None
    """What the p-values are of, a sentence; None where nothing was tested."""
    groups: dict[str, dict[str, GroupEntry]]
    """By grouping and group."""
    notes: list[str]
    """What the reader should know of files of ranks, one sentence each."""


def compare_runs(
    runs: Sequence[RunFolder],
    *,
    split: str = "test",
    metric: str = "ndcg@10",
    force: bool = False,
    files: Mapping[str, Sequence[ExternalRanks]] | None = None,
) -> Comparison:
    """Rows of runs and of files of ranks, each compared with the first row.

    Runs whose configurations differ only in seed and device form a row. A second run of the same seed begins another row. The
    metric is tested pair by pair of users. Where both rows have several seeds, the test treats the seeds as a random sample
    too; `p_over` of each row says so. p-values are corrected by Holm's rule for the number of rows tested.

    Args:
        runs: finished ones; a run given twice counts once.
        split: `validation` or `test`. The ranks in each run's `per_user.parquet` are read; nothing is ranked anew.
        metric: `ndcg@k`, `mrr@k` or `hit@k`: the metric of change, tests and groups.
        force: compare rows of different data, split, tie order or seen-item rule too, marked by `comparable: false`; without
            p-values where users or held-out items differ.
        files: label to ranks that another program made, of the same split: a row each. Several files of a label stand for
            several seeds. Where a file knows the first ranks only, cut-offs beyond them are left out of all rows.
    Raises: ConfigError for an unknown metric or split, a metric beyond the known ranks of a file, no runs, a label that
        another row has, or runs that are not comparable without `force`;
        CheckpointError for a run that is not finished or has no ranks of the split.
    """
    k = _cut_off(metric)
    require(split in ("validation", "test"), "--split", "must be validation or test", split)
    require(len(runs) > 0, "RUN", "must name at least one run", 0)
    found = read_runs(runs, split)
    differences = _differences(found)
    if differences and not force:
        raise ConfigError(
            "RUN",
            f"must share data, split, tie order and seen-item rule. They do not: {_described(differences)}",
            remedy="Leave some out, or add --force to see them side by side, marked as not comparable",
        )
    files = files or {}
    ks, notes = _known_cut_offs(k, sorted({k, *(k for run in found for k in run.config.evaluation.ks)}), files)
    rows = rows_of_runs(found)
    rows += rows_of_files(files, taken=[row.label for row in rows])
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
        "best": _best(compared, rows, is_comparable=not differences),
        "test": describe_test(row["p_over"] for row in compared),
        "groups": _groups(rows, metric, k),
        "notes": [
            *dict.fromkeys(note for of_label in files.values() for one in of_label for note in one.notes),
            *notes,
        ],
    }


def _shared(values: Sequence[_T]) -> _T | None:
    """The value that all have; None where they differ."""
    return values[0] if len(set(values)) == 1 else None


def _cut_off(metric: str) -> int:
    found = re.fullmatch(r"(?:ndcg|mrr|hit)@([1-9]\d*)", metric)
    if found is None:
        raise ConfigError("--metric", "must be ndcg@k, mrr@k or hit@k", metric)
    return int(found.group(1))


def _known_cut_offs(
    chosen: int, ks: Sequence[int], files: Mapping[str, Sequence[ExternalRanks]]
) -> tuple[list[int], list[str]]:
    """The cut-offs up to which every file knows its ranks, and a sentence on the others.

    Args:
        chosen: that of the metric.
        ks: of the metric and the runs, ascending.
        files: as in `compare_runs`.
    """
    known = {one.path: one.known_to for of_label in files.values() for one in of_label if one.known_to is not None}
    if not known or max(ks) <= min(known.values()):
        return list(ks), []
    path, most = min(known.items(), key=lambda pair: pair[1])
    rule = f"must have a cut-off of at most {most}, the ranks that {path} knows"
    require(chosen <= most, "--metric", rule, chosen, "Choose a smaller cut-off, or write longer lists")
    left_out = ", ".join(f"@{k}" for k in ks if k > most)
    return [k for k in ks if k <= most], [f"metrics {left_out} are left out: {path.name} knows ranks to {most:,} only"]


def _differences(runs: Sequence[ComparedRun]) -> list[Difference]:
    rules = {run.name: run.rules() for run in runs}
    values = {what: {name: of[what] for name, of in rules.items()} for what in runs[0].rules()}
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


def _facts(row: ComparedRow, ks: Sequence[int]) -> ComparisonRow:
    """A row that is not compared yet."""
    each = [mean_metrics(frame["rank"].to_numpy(), ks) for frame in row.frames]
    results = [run.manifest["results"] for run in row.runs]
    return {
        "label": row.label,
        "runs": [run.name for run in row.runs],
        "files": row.files,
        "seeds": [run.config.training.seed for run in row.runs],
        "preset": row.runs[0].manifest["preset"] if row.runs else None,
        "metrics": {name: spread([metrics[name] for metrics in each]) for name in each[0]},
        "seconds_per_epoch": median(result["seconds_per_epoch"] for result in results) if results else None,
        "epochs": [result["epochs"] for result in results],
        "devices": sorted({run.manifest.get("device", "unknown") for run in row.runs}),
        "parameters": _parameters(row.runs[0].folder) if row.runs else None,
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


def _with_tests(facts: list[ComparisonRow], rows: Sequence[ComparedRow], metric: str, k: int) -> list[ComparisonRow]:
    """Set change and p-values against the first row."""
    base, first = facts[0]["metrics"][metric]["mean"], rows[0]
    tested, p_values = [], []
    for fact, row in zip(facts[1:], rows[1:], strict=True):
        fact["change_percent"] = change_percent(fact["metrics"][metric]["mean"], base)
        if row.held_out == first.held_out:
            p, fact["p_over"] = paired_p_value(row.per_user(metric, k), first.per_user(metric, k))
            fact["p_value"] = p
            tested.append(fact)
            p_values.append(p)
    for fact, adjusted in zip(tested, holm(p_values), strict=True):
        fact["p_holm"] = adjusted
    return facts


def _best(facts: Sequence[ComparisonRow], rows: Sequence[ComparedRow], *, is_comparable: bool) -> dict[str, str | None]:
    """By metric, the row that is ahead of each other row after Holm's correction of its tests against all of them."""
    found: dict[str, str | None] = dict.fromkeys(facts[0]["metrics"])
    if len(rows) == 1 or not is_comparable or len({row.held_out for row in rows}) > 1:
        return found
    for name in found:
        k, means = _cut_off(name), [fact["metrics"][name]["mean"] for fact in facts]
        at = means.index(max(means))
        values = rows[at].per_user(name, k)
        p_values = [paired_p_value(values, row.per_user(name, k))[0] for row in rows if row is not rows[at]]
        found[name] = facts[at]["label"] if max(holm(p_values)) < CHANCE else None
    return found


def _groups(rows: Sequence[ComparedRow], metric: str, k: int) -> dict[str, dict[str, GroupEntry]]:
    """Grouping -> label of the group -> users (of the first row that has any) and the metric under each row's label."""
    of_rows = {row.label: [group_metrics(frame, (k,)) for frame in row.frames] for row in rows}
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
