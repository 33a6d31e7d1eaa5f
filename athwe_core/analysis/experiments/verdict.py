"""The result of a comparison in sentences: who is ahead, by how much, and whether that is beyond chance."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.analysis.experiments.comparison import Comparison, ComparisonRow
from athwe_core.analysis.experiments.result import CHANCE, mean_and_sd, p_text
from athwe_core.evaluation.metrics import metric_name

UNTESTED = "not tested"


def verdict(result: Comparison) -> str:
    """The result in one sentence, or two for more than two rows.

    Args:
        result: of `compare_runs`.
    Returns: e.g. `athwe and hm4sr are level in NDCG@10: 0.0592 and 0.0588, p = 0.430.`
    """
    rows, metric = result["rows"], result["metric"]
    name = metric_name(metric)
    if not result["comparable"]:
        return "These runs were not measured under the same rules, so no order among them means anything."
    if len(rows) == 1:
        return f"{rows[0]['label']} reaches {name} {_value(rows[0], metric)}{_over_seeds(rows[0])}."
    if len(rows) == 2:
        return _of_two(rows[0], rows[1], metric)
    return f"{_leader(result)} {_against_first(result)}"


def baseline_sentence(result: Comparison, baselines: Mapping[str, Mapping[str, float]]) -> str:
    """How the rows stand to the best of the baselines that count instead of being trained.

    Args:
        result: of `compare_runs`.
        baselines: metrics by name of the baseline, at least one.
    Returns: a sentence; it compares the rows' means and tests nothing.
    """
    metric = result["metric"]
    best = max(baselines, key=lambda name: baselines[name][metric])
    level = baselines[best][metric]
    behind = [row["label"] for row in result["rows"] if row["metrics"][metric]["mean"] <= level]
    known = f"the best baseline without training, {best}, with {level:.4f}"
    if not behind:
        above = {1: "It is", 2: "Both are"}.get(len(result["rows"]), "All are")
        return f"{above} above {known}."
    return f"{_enumerated(behind)} {'is' if len(behind) == 1 else 'are'} not above {known}."


def _of_two(first: ComparisonRow, second: ComparisonRow, metric: str) -> str:
    values = {row["label"]: _value(row, metric) for row in (first, second)}
    p, name = second["p_holm"], metric_name(metric)
    behind, ahead = sorted((first, second), key=lambda row: row["metrics"][metric]["mean"])
    if p is None or p >= CHANCE:
        labels = f"{second['label']} and {first['label']}"
        how = "are level" if p is not None else "were not tested against each other"
        return f"{labels} {how} in {name}: {values[second['label']]} and {values[first['label']]}{_p(p)}."
    low, high = behind["metrics"][metric]["mean"], ahead["metrics"][metric]["mean"]
    by = (
        ""
        if low == 0
        else f" by {100 * (high / low - 1):.1f}%"
        if high < 2 * low
        else f" by a factor of {high / low:.1f}"
    )
    both = f"{values[ahead['label']]} against {values[behind['label']]}"
    return f"{ahead['label']} is ahead of {behind['label']} in {name}{by}: {both}{_p(p)}."


def _leader(result: Comparison) -> str:
    rows, metric = result["rows"], result["metric"]
    highest = max(rows, key=lambda row: row["metrics"][metric]["mean"])
    reached = f"{metric_name(metric)} {_value(highest, metric)}"
    if result["best"][metric] is not None:
        others = "both others" if len(rows) == 3 else f"all {len(rows) - 1} others"
        return f"{highest['label']} is ahead of {others} beyond chance, with {reached}."
    return f"No model is ahead of all others beyond chance; {highest['label']} has the highest {reached}."


def _against_first(result: Comparison) -> str:
    """The other rows in groups: ahead of the first row, level with it, behind it."""
    (first, *others), metric = result["rows"], result["metric"]
    groups: dict[str, list[str]] = {"ahead": [], "level": [], "behind": [], UNTESTED: []}
    for row in others:
        p, change = row["p_holm"], row["change_percent"]
        is_higher = row["metrics"][metric]["mean"] > first["metrics"][metric]["mean"]
        group = UNTESTED if p is None else "level" if p >= CHANCE else "ahead" if is_higher else "behind"
        shown = "" if change is None else f"{change:+.1f}%".replace("-", "−")
        details = ", ".join(part for part in (shown, _p(p).removeprefix(", ")) if part)
        groups[group].append(f"{row['label']} ({details})")
    listed = "; ".join(f"{group} {', '.join(found)}" for group, found in groups.items() if found)
    return f"Against {first['label']} with {_value(first, metric)}: {listed}."


def _enumerated(labels: list[str]) -> str:
    """`a, b and c`."""
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _value(row: ComparisonRow, metric: str) -> str:
    return mean_and_sd(row["metrics"][metric])


def _over_seeds(row: ComparisonRow) -> str:
    number = len(row["seeds"])
    return f", the mean of {number} seeds" if number > 1 else " with one seed; how much the seed matters is not known"


def _p(p: float | None) -> str:
    return "" if p is None else f", p {p_text(p)}" if p < 0.001 else f", p = {p_text(p)}"
