"""The figures of an analysis, from the numbers that `--json` prints.

    ablation_figure       what each part is worth (figure 3 of the HM4SR paper)
    sweep_figure          a metric against a setting (figures 4, 5 and 8)
    learning_curves       losses by term and the selection metric by epoch
    groups_figure         a metric by groups of users
    time_distribution     interactions over time (figure 7)

`save_figure` writes a figure to files, `inline_svg` makes it a part of a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Int64
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from athwe_core.analysis.figures.experiment import ablation_figure, sweep_figure
from athwe_core.analysis.figures.save import inline_svg, save_figure
from athwe_core.analysis.figures.style import (
    DASHES,
    INK,
    SERIES,
    SMALL_POINTS,
    TEXT_POINTS,
    new_figure,
    plain,
    style_axes,
)
from athwe_core.evaluation.metrics import metric_name
from athwe_core.runs.schema import selected

__all__ = [
    "ablation_figure",
    "groups_figure",
    "inline_svg",
    "learning_curves",
    "save_figure",
    "sweep_figure",
    "time_bins",
    "time_distribution",
]

NUM_TIME_BINS = 30
_GROUP_NAMES = {"history_length": "items in the history", "target_popularity": "training occurrences of the target"}
_GROUP_NAMES |= {"same_day": "day of the target"}


def learning_curves(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The validation metric that chooses the best epoch and each loss term, a panel each; dots at the best epochs.

    Args:
        records: label of a run -> its lines of `metrics.jsonl`.
    """
    terms = list(dict.fromkeys(name for lines in records.values() for line in lines for name in line["losses"]))
    terms.sort(key=lambda name: name != "total")
    metrics = {selected(line)[0] for lines in records.values() for line in lines}
    chosen_by = metric_name(*metrics) if len(metrics) == 1 else "selection metric"
    panels = [f"validation {chosen_by}", *(f"loss {name}" for name in terms)]
    rows = -(-len(panels) // 2)
    styles = list(zip(records, cycle(SERIES), cycle(DASHES)))
    legend = [(Line2D([], [], color=c, linestyle=d, linewidth=1.2), label) for label, c, d in styles]
    figure = new_figure(
        "Learning curves",
        ["Means over each epoch; dot: epoch of the best validation value, whose weights are kept"],
        height=1.15 * rows + 0.1,
        legend=legend,
        legend_columns=1 if max(map(len, records), default=0) > 26 else 2,
    )
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
    for number, (axes, name) in enumerate(zip(grid.flat, panels, strict=False)):
        style_axes(axes)
        axes.set_title(plain(name), fontsize=SMALL_POINTS, color=INK, loc="left", pad=3)
        for label, colour, dash in styles:
            lines = records[label]
            epochs = [line["epoch"] for line in lines if number == 0 or name[5:] in line["losses"]]
            selection = [selected(line)[1] for line in lines]
            values = selection if number == 0 else [x["losses"][name[5:]] for x in lines if name[5:] in x["losses"]]
            axes.plot(epochs, values, color=colour, linestyle=dash, linewidth=1.1)
            if epochs and len(values) == len(selection):
                best = int(np.argmax(selection))
                axes.plot(epochs[best], values[best], color=colour, marker="o", markersize=3, linestyle="")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.04, y=0.1)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
        grid[-2, 1].tick_params(labelbottom=True)
    figure.supxlabel("epoch", fontsize=TEXT_POINTS, color=INK)
    return figure


def groups_figure(groups: Mapping[str, Mapping[str, Any]], metric: str) -> Figure:
    """Bars from zero of a metric by history length, popularity of the target and same-day target, for each run.

    Args:
        groups: label of a run -> `group_metrics`.
    """
    kinds = list(dict.fromkeys(kind for found in groups.values() for kind in found))
    labels = {kind: list(dict.fromkeys(x for found in groups.values() for x in found.get(kind, ()))) for kind in kinds}
    colours = dict(zip(groups, cycle(SERIES), strict=False))
    legend = [(Patch(color=colour), label) for label, colour in colours.items()] if len(groups) > 1 else []
    each = 0.09 + 0.11 * len(groups)
    figure = new_figure(
        f"{metric_name(metric)} by group of users",
        ["In brackets: users in the group"],
        height=sum(len(found) for found in labels.values()) * each + 0.33 * len(kinds) + 0.3,
        legend=legend,
        legend_columns=1 if max(map(len, groups)) > 26 else 2,
    )
    heights = [len(labels[kind]) for kind in kinds]
    panels = figure.subplots(len(kinds), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, kind in zip(panels, kinds, strict=True):
        style_axes(axes, grid="x")
        axes.set_title(_GROUP_NAMES.get(kind, kind), fontsize=SMALL_POINTS, color=INK, loc="left", pad=3)
        bar = 0.8 / len(groups)
        for number, (label, found) in enumerate(groups.items()):
            y = np.arange(len(labels[kind])) + (number - (len(groups) - 1) / 2) * bar
            values = [found.get(kind, {}).get(group, {}).get(metric, 0.0) for group in labels[kind]]
            axes.barh(y, values, height=bar * 0.92, color=colours[label], linewidth=0)
        users = [
            max(found.get(kind, {}).get(group, {}).get("users", 0) for found in groups.values())
            for group in labels[kind]
        ]
        names = [f"{plain(group)} ({count:,})" for group, count in zip(labels[kind], users, strict=True)]
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(labelbottom=axes is panels[-1])
    panels[-1].set_xlim(0, 1.04 * max(patch.get_width() for axes in panels for patch in axes.patches) or 1)
    panels[-1].set_xlabel(metric_name(metric), fontsize=TEXT_POINTS, color=INK)
    return figure


def time_bins(timestamps: Int64[np.ndarray, "I"]) -> tuple[Int64[np.ndarray, "31"], Int64[np.ndarray, "30"]]:
    """Edges in seconds and counts of 30 bins of equal width from the first to the last interaction."""
    first, last = int(timestamps.min()), int(timestamps.max())
    counts, edges = np.histogram(timestamps, bins=NUM_TIME_BINS, range=(first, max(last, first + NUM_TIME_BINS)))
    return np.rint(edges).astype(np.int64), counts.astype(np.int64)


def time_distribution(timestamps: Int64[np.ndarray, "I"], *, dataset: str | None = None) -> Figure:
    """Interactions in 30 bins of equal width, dates (UTC) on the axis."""
    edges, counts = time_bins(timestamps)
    name = f"{dataset}: interactions over time" if dataset else "Interactions over time"
    days = edges / 86_400  # the drawing library counts dates in days since 1970
    width = (days[-1] - days[0]) / NUM_TIME_BINS
    each = f"{width:,.0f} days" if width >= 2 else f"{24 * width:,.1f} hours"
    figure = new_figure(name, [f"{counts.sum():,} interactions in {NUM_TIME_BINS} bins of {each}"], height=1.5)
    axes = figure.subplots()
    style_axes(axes)
    axes.bar(days[:-1], counts, width=np.diff(days), align="edge", color=SERIES[0], edgecolor="none")
    axes.xaxis_date(tz="UTC")
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(days[0], days[-1])
    return figure
