"""A comparison of runs as text for a paper or another program: LaTeX, Markdown or CSV."""

from __future__ import annotations

from athwe_core.analysis.experiments.comparison import Comparison, ComparisonRow
from athwe_core.analysis.experiments.result import mean_and_sd, p_text
from athwe_core.analysis.experiments.table_text import Form, csv_table, latex_table, markdown_table
from athwe_core.evaluation.metrics import metric_name


def comparison_text(result: Comparison, form: Form) -> str:
    """One line for each row of the comparison: metrics at every cut-off, change, p-value, cost.

    Args:
        result: of `compare_runs`.
        form: `latex` and `markdown` have mean ± standard deviation in one cell, and what is best beyond chance in bold; `csv`
            has plain numbers in columns of their own, at full precision.
    Returns: the text, with a line end.
    """
    if form == "csv":
        return _csv(result)
    metrics = list(result["rows"][0]["metrics"])
    heading = ["", *map(metric_name, metrics), "change in %", "p (Holm)", "s per epoch", "parameters"]
    rows = [
        [row["label"], *(mean_and_sd(row["metrics"][name]) for name in metrics), *_rest(row)] for row in result["rows"]
    ]
    bold = frozenset(
        (at, column)
        for at, row in enumerate(result["rows"])
        for column, name in enumerate(metrics, 1)
        if result["best"][name] == row["label"]
    )
    return (markdown_table if form == "markdown" else latex_table)(heading, rows, bold=bold)


def _rest(row: ComparisonRow) -> list[str]:
    return [
        "" if row["change_percent"] is None else f"{row['change_percent']:+.1f}",
        p_text(row["p_holm"]),
        "" if row["seconds_per_epoch"] is None else f"{row['seconds_per_epoch']:.1f}",
        "" if row["parameters"] is None else f"{row['parameters']:,}",
    ]


def _csv(result: Comparison) -> str:
    metrics = list(result["rows"][0]["metrics"])
    spreads = [column for name in metrics for column in (name, f"{name}_sd")]
    rest = ["change_percent", "p_value", "p_holm", "p_over", "seconds_per_epoch", "parameters"]
    rows = []
    for row in result["rows"]:
        values = [value for name in metrics for value in (row["metrics"][name]["mean"], row["metrics"][name]["sd"])]
        own, num_seeds = dict(row), len(row["metrics"][metrics[0]]["values"])
        rows.append([row["label"], row["preset"], num_seeds, *values, *(own[name] for name in rest)])
    return csv_table(["label", "preset", "seeds", *spreads, *rest], rows)
