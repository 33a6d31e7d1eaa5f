"""The tables of reports and comparisons, from the numbers that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.analysis.case_study.study import utc_date
from athwe_core.analysis.experiments.comparison import Comparison
from athwe_core.analysis.experiments.result import ExperimentResult, Spread
from athwe_core.analysis.pages.result import Report, ReportedRun, TimeBins
from athwe_core.analysis.pages.table import (
    Cell,
    Column,
    PageTable,
    Row,
    count,
    listed,
    number,
    p_value,
    percent,
    words,
)
from athwe_core.evaluation.metrics import metric_name

MOST_CUT_OFF = 10
"""Of the metrics that tables show at first, as in the paper; the others are shown on request."""
_EMPTY = words("")


def comparison_table(found: Comparison, baselines: Mapping[str, Mapping[str, float]], *, stem: str) -> PageTable:
    """A row for each model and each baseline: every metric, change, p-value and cost. Bold is best beyond chance.

    Args:
        found: of `compare_runs`.
        baselines: metrics by name of the baseline.
        stem: of the names of its files.
    """
    rows, metrics = found["rows"], list(found["rows"][0]["metrics"])
    has_tests = len(rows) > 1
    columns = [Column("model", is_text=True), Column("seeds"), *_metric_columns(metrics)]
    columns += [Column("change"), Column("p (Holm)")] * has_tests
    columns += [Column("epochs"), Column("s / epoch"), Column("parameters")]
    lines = []
    for row in rows:
        cells = [words(row["label"]), count(len(row["metrics"][metrics[0]]["values"]))]
        cells += [_spread(row["metrics"][name], is_best=found["best"][name] == row["label"]) for name in metrics]
        cells += [percent(row["change_percent"]), p_value(row["p_holm"])] * has_tests
        cells += [listed(row["epochs"]), number(row["seconds_per_epoch"], 1), count(row["parameters"])]
        lines.append(Row(cells))
    for name, values in baselines.items():
        cells = [words(name), _EMPTY, *(number(values.get(metric)) for metric in metrics)]
        lines.append(Row([*cells, *[_EMPTY] * (len(columns) - len(cells))], is_quiet=True))
    return PageTable("comparison", "Comparison", columns, lines, stem, extra=_extra(metrics))


def groups_table(found: Comparison, *, stem: str) -> PageTable:
    """The chosen metric of each model by group of users."""
    labels = [row["label"] for row in found["rows"]]
    columns = [Column("users grouped by", is_text=True), Column("group", is_text=True), Column("users")]
    rows = [
        Row(
            [words(kind.replace("_", " ")), words(group), count(round(entry["users"]))]
            + [number(entry.get(label)) for label in labels]
        )
        for kind, groups in found["groups"].items()
        for group, entry in groups.items()
    ]
    title = f"{metric_name(found['metric'])} by group of users"
    return PageTable("groups", title, columns + [Column(label) for label in labels], rows, stem)


def time_table(found: TimeBins, *, stem: str) -> PageTable:
    """Interactions by bin of time."""
    edges = [utc_date(edge) for edge in found["edges"]]
    rows = [
        Row([words(first), words(last), count(number_of)])
        for first, last, number_of in zip(edges, edges[1:], found["counts"], strict=False)
    ]
    columns = [Column("from", is_text=True), Column("to", is_text=True), Column("interactions")]
    return PageTable("over-time", "Interactions over time", columns, rows, stem)


def best_epochs_table(report: Report, *, stem: str) -> PageTable:
    """The epoch of each run whose weights were kept, and its metric."""
    columns = [Column("run", is_text=True), Column("best epoch"), Column("of"), Column("chosen by", is_text=True)]
    columns += [Column("validation"), Column("test")]
    rows = []
    for run in report["runs"]:
        metric = run["metric"]
        cells = [words(run["label"]), count(run["best_epoch"]), count(run["epochs"]), words(metric_name(metric))]
        rows.append(Row([*cells, number(run["best_value"]), number(run["test"].get(metric))]))
    return PageTable("best-epochs", "Best epochs", columns, rows, stem)


def epochs_table(run: ReportedRun, *, at: int, stem: str) -> PageTable:
    """What each epoch of a run reached.

    Args:
        run: of a report.
        at: which of its runs, from 1.
        stem: of the names of its files.
    """
    terms = list(run["records"][0]["losses"])
    columns = [
        Column("epoch", is_text=True),
        Column(metric_name(run["metric"])),
        *map(Column, terms),
        Column("seconds"),
    ]
    rows = []
    for record in run["records"]:
        losses = [number(record["losses"].get(term)) for term in terms]
        reached = number(record["validation"][run["metric"]])
        rows.append(Row([count(record["epoch"]), reached, *losses, number(record["seconds"], 1)]))
    return PageTable(f"epochs-{at}", f"Epochs of {run['label']}", columns, rows, stem)


def experiment_table(result: ExperimentResult, *, at: int, stem: str) -> PageTable:
    """A row for each variant of an experiment: its metric first, the others on request.

    Args:
        result: of the experiment.
        at: which experiment of the page, from 1.
        stem: of the names of its files.
    """
    split, metric, variants = result["split"], result["metric"], result["variants"]
    others = [name for name in variants[0]["metrics"][split] if name != metric]
    has_unseen = any("without_seen" in variant for variant in variants)
    has_paper = any(metric in variant.get("published", {}) for variant in variants)
    columns = [Column("variant", is_text=True), Column(f"{split} {metric_name(metric)}")]
    columns += [Column("seen items out")] * has_unseen + [Column("in the paper")] * has_paper
    columns += [Column("change"), Column("p (Holm)"), Column("seeds"), Column("epochs")]
    columns += [Column(metric_name(name), is_extra=True) for name in others]
    rows = []
    for variant in variants:
        cells = [words(variant["label"]), _spread(variant["metrics"][split][metric])]
        cells += [_spread(variant["without_seen"][metric]) if "without_seen" in variant else _EMPTY] * has_unseen
        cells += [number(variant.get("published", {}).get(metric))] * has_paper
        cells += [percent(variant["change_percent"]), p_value(variant["p_holm"])]
        cells += [count(len(variant["runs"])), listed(variant["epochs"])]
        rows.append(Row(cells + [_spread(variant["metrics"][split][name]) for name in others]))
    for baseline in result.get("baselines", []):
        cells = [words(baseline["label"]), number(baseline["metrics"][metric])]
        cells += [number(baseline["without_seen"][metric])] * has_unseen
        cells += [_EMPTY] * (len(columns) - len(others) - len(cells))
        rows.append(Row(cells + [number(baseline["metrics"].get(name)) for name in others], is_quiet=True))
    extra = "all metrics" if others else ""
    return PageTable(f"experiment-{at}", f"Numbers of experiment {at}", columns, rows, stem, extra=extra)


def _metric_columns(metrics: list[str]) -> list[Column]:
    return [Column(metric_name(name), is_extra=_is_extra(name)) for name in metrics]


def _is_extra(metric: str) -> bool:
    return int(metric.split("@")[1]) > MOST_CUT_OFF


def _extra(metrics: list[str]) -> str:
    """`@20 and @50`."""
    cut_offs = dict.fromkeys(f"@{name.split('@')[1]}" for name in metrics if _is_extra(name))
    return " and ".join(cut_offs)


def _spread(value: Spread, *, is_best: bool = False) -> Cell:
    return number(value["mean"], sd=value["sd"], is_best=is_best)
