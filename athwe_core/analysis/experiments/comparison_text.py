"""A comparison of runs as text for a paper or another program: LaTeX, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from typing import Literal

from athwe_core.analysis.experiments.comparison import Comparison, ComparisonRow
from athwe_core.analysis.experiments.result import mean_and_sd, p_text
from athwe_core.evaluation.metrics import metric_name

Form = Literal["latex", "markdown", "csv"]
LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def comparison_text(result: Comparison, form: Form) -> str:
    """One line for each row of the comparison: metrics at every cut-off, change, p-value, cost.

    Args:
        result: of `compare_runs`.
        form: `latex` and `markdown` have mean ± standard deviation in one cell; `csv` has plain numbers in columns of their
            own, at full precision.
    Returns: the text, with a line end.
    """
    if form == "csv":
        return _csv(result)
    metrics = list(result["rows"][0]["metrics"])
    heading = ["", *map(metric_name, metrics), "change in %", "p (Holm)", "s per epoch", "parameters"]
    rows = [
        [row["label"], *(mean_and_sd(row["metrics"][name]) for name in metrics), *_rest(row)] for row in result["rows"]
    ]
    return _markdown(heading, rows) if form == "markdown" else _latex(heading, rows)


def _rest(row: ComparisonRow) -> list[str]:
    return [
        "" if row["change_percent"] is None else f"{row['change_percent']:+.1f}",
        p_text(row["p_holm"]),
        "" if row["seconds_per_epoch"] is None else f"{row['seconds_per_epoch']:.1f}",
        "" if row["parameters"] is None else f"{row['parameters']:,}",
    ]


def _markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _latex(heading: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        escaped = ("".join(LATEX_SPECIAL.get(character, character) for character in cell) for cell in cells)
        return " & ".join(escaped).replace("±", r"$\pm$").replace("<", "$<$") + r" \\"

    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}",
            r"\hline",
            line(heading),
            r"\hline",
            *map(line, rows),
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _csv(result: Comparison) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = list(result["rows"][0]["metrics"])
    spreads = [column for name in metrics for column in (name, f"{name}_sd")]
    rest = ["change_percent", "p_value", "p_holm", "p_over", "seconds_per_epoch", "parameters"]
    writer.writerow(["label", "preset", "seeds", *spreads, *rest])
    for row in result["rows"]:
        values = [value for name in metrics for value in (row["metrics"][name]["mean"], row["metrics"][name]["sd"])]
        own, num_seeds = dict(row), len(row["metrics"][metrics[0]]["values"])
        writer.writerow([row["label"], row["preset"], num_seeds, *values, *(own[name] for name in rest)])
    return text.getvalue()
