"""Tables of an experiment's result; they fit into 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from athwe_core.analysis.experiments.result import ExperimentResult

WIDE_LABEL = 16
"""Longest label that leaves room for three metrics in 80 columns."""


def quick_look(epochs: int) -> str:
    """How outputs mark an experiment with `--epochs`."""
    return f"quick look: at most {epochs} epoch{'s' * (epochs > 1)}"


def result_table(result: ExperimentResult, *, rules: str) -> Table:
    """One row for each variant: metrics, change and p-value. It fits into 80 columns."""
    from athwe_core.analysis.experiments.result import mean_and_sd, p_text
    from athwe_core.evaluation.metrics import metric_name

    split, metric, seeds = result["split"], result["metric"], len(result["seeds"])
    shown = _shown_metrics(result)
    of = f"sweep of {', '.join(result['varied'])}\n" if result["varied"] else ""
    what = {"ablation": f"ablation of {result['preset']}", "models": "models"}.get(result["kind"], result["preset"])
    where = f"{what} on {result['dataset']}, {split}, {seeds} seed{'s' * (seeds > 1)}"
    quick = "" if result["quick_epochs"] is None else f"\n{quick_look(result['quick_epochs'])}"
    compared = any(variant["p_holm"] is not None for variant in result["variants"])
    base = next((v["label"] for v in result["variants"] if v["p_holm"] is None), "") if compared else ""
    caption = f"%: change of {metric_name(metric)} against {base}. {result['test']}"
    table = Table(
        title=escape(f"{of}{where}\n{rules}{quick}"),
        title_justify="left",
        caption=escape(caption) if compared else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for name in shown:
        table.add_column(metric_name(name), justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for variant in result["variants"]:
        cells = [compact(mean_and_sd(variant["metrics"][split][name])) for name in shown]
        change, p = variant["change_percent"], variant["p_holm"]
        cells += [
            "" if change is None else f"{change:+.1f}",
            compact(p_text(p)),
        ]
        table.add_row(escape(variant["label"]), *cells)
    for baseline in result.get("baselines", []):
        table.add_row(escape(baseline["label"]), *(f"{baseline['metrics'][name]:.4f}" for name in shown))
    return table


def cost_table(result: ExperimentResult) -> Table:
    """The metric with seen items taken out and in the paper, and what each model costs. It fits into 80 columns."""
    from athwe_core.analysis.experiments.result import mean_and_sd
    from athwe_core.evaluation.metrics import metric_name

    metric, variants = result["metric"], result["variants"]
    in_paper = any(metric in variant.get("published", {}) for variant in variants)
    title = f"{metric_name(metric)} with seen items taken out{', in the paper' * in_paper}, and cost"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("unseen", *["paper"] * in_paper, "epochs", "s per epoch", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant in variants:
        published = variant.get("published", {}).get(metric)
        table.add_row(
            escape(variant["label"]),
            compact(mean_and_sd(variant["without_seen"][metric])),
            *["" if published is None else f"{published:.4f}"] * in_paper,
            ", ".join(map(str, variant["epochs"])),
            f"{variant['seconds_per_epoch']:.1f}",
            f"{variant['parameters']:,}",
        )
    for baseline in result.get("baselines", []):
        table.add_row(escape(baseline["label"]), f"{baseline['without_seen'][metric]:.4f}")
    return table


def compact(number: str) -> str:
    """Without spaces, so that three metrics fit into 80 columns."""
    return number.replace(" ", "")


def _shown_metrics(result: ExperimentResult) -> list[str]:
    """The metrics of the paper's tables where they were measured, and always that of the experiment.

    Three, or two where labels are long.
    """
    there = result["variants"][0]["metrics"][result["split"]]
    wanted: list[str] = [name for name in ("ndcg@5", "ndcg@10", "mrr@10") if name in there]
    room = 2 if max(len(variant["label"]) for variant in result["variants"]) > WIDE_LABEL else 3
    return wanted[:room] if result["metric"] in wanted[:room] else [*wanted[: room - 1], result["metric"]]
