"""The figures of an experiment, from its `result.json`: the effect of each part, and a metric against a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from athwe_core.analysis.figures.style import (
    COLUMN_INCHES,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    SMALL_POINTS,
    TEXT_POINTS,
    new_figure,
    plain,
    shortened,
    style_axes,
)
from athwe_core.data.split import LEAVE_ONE_OUT
from athwe_core.evaluation.metrics import metric_name

_DASHED = (0, (3, 2))


def ablation_figure(result: Mapping[str, Any], *, metrics: Sequence[str] | None = None) -> Figure:
    """Bars from zero per variant and metric; sd over seeds as error bars, a dashed line at the reference.

    Args:
        result: the `result.json` of an ablation or of a table of models.
        metrics: None = the result's metric, and the same one at another cut-off.
    """
    metrics = list(metrics or _metric_pair(result))
    variants = result["variants"]
    found = [[variant["metrics"][result["split"]][metric] for variant in variants] for metric in metrics]
    legend: list[tuple[Any, str]] = [
        (Patch(color=colour), metric_name(metric)) for metric, colour in zip(metrics, SERIES, strict=False)
    ]
    changes = [variant["change_percent"] for variant in variants]
    reference = changes.index(None)
    named = "full model" if result["kind"] == "ablation" else variants[reference]["label"]
    legend.append((Line2D([], [], color=MUTED, linewidth=0.8, linestyle=_DASHED), named))
    note = f"Above the bars: change of {metric_name(result['metric'])} in %"
    if any(variant["p_holm"] is not None for variant in variants):
        note += ", * = p < 0.05 after Holm"
    notes = [note] if any(change is not None for change in changes) else []
    width = COLUMN_INCHES if len(variants) <= 12 else COLUMN_INCHES * len(variants) / 12
    heading = [_circumstances(result), *notes]
    what = f"{result['preset']} without each part" if result["kind"] == "ablation" else "models side by side"
    title = f"{result['dataset']}: {what}"
    figure = new_figure(title, heading, height=2.0, width=width, legend=legend, legend_columns=3)
    axes = figure.subplots()
    style_axes(axes)
    bar = 0.8 / len(metrics)
    for number, (values, colour) in enumerate(zip(found, SERIES, strict=False)):
        x = np.arange(len(variants)) + (number - (len(metrics) - 1) / 2) * bar
        means = [value["mean"] for value in values]
        axes.axhline(means[reference], color=MUTED, linewidth=0.7, linestyle=_DASHED, zorder=0.9)
        axes.bar(x, means, width=bar * 0.92, color=colour, linewidth=0)
        _error_bars(axes, x, means, [value["sd"] for value in values])
    tops = [max(values[at]["mean"] + (values[at]["sd"] or 0) for values in found) for at in range(len(variants))]
    for at, variant in enumerate(variants):
        if variant["change_percent"] is not None:
            star = "*" if variant["p_holm"] is not None and variant["p_holm"] < 0.05 else ""
            text = f"{variant['change_percent']:+.1f}{star}".replace("-", "−")
            _note(axes, text, (at, max(tops)), offset=(0, 3), ha="center", va="bottom")
    axes.set_ylim(0, 1.1 * max(tops) or 1)
    axes.set_xlim(-0.6, len(variants) - 0.4)
    labels = [plain(shortened(variant["label"].replace("-", "−", 1), SMALL_POINTS, 1.0)) for variant in variants]
    slanted = len(variants) > 6 or max(map(len, labels)) > 10
    axes.set_xticks(range(len(variants)), labels, rotation=40 if slanted else 0, ha="right" if slanted else "center")
    for label in axes.get_xticklabels():
        label.set_rotation_mode("anchor")
    axes.get_xticklabels()[reference].set_fontweight("bold")
    axes.tick_params(axis="x", length=0)
    return figure


def sweep_figure(result: Mapping[str, Any], *, metric: str | None = None) -> Figure:
    """A metric against the varied setting: lines over numbers, one per combination of the other keys; bars otherwise.

    Numbers that span two decades or more stand on a logarithmic axis. The axis of the metric begins at zero under bars
    only, and the heading says so.

    Args:
        result: the `result.json` of a sweep.
        metric: None = the result's.
    """
    metric = metric or result["metric"]
    keys = result["varied"]
    numeric = [key for key in keys if all(_is_number(variant["values"][key]) for variant in result["variants"])]
    points = [(variant, variant["metrics"][result["split"]][metric]) for variant in result["variants"]]
    if not numeric:
        return _sweep_bars(result, metric)
    key, others = numeric[0], [other for other in keys if other != numeric[0]]
    lines: dict[str, list[tuple[float, Mapping[str, float | None]]]] = {}
    for variant, value in points:
        label = ", ".join(f"{_short(other)} = {_value(variant['values'][other])}" for other in others)
        lines.setdefault(label, []).append((variant["values"][key], value))
    marks = list(zip(cycle(SERIES), cycle(MARKERS), lines, strict=False))
    legend = [(Line2D([], [], color=c, marker=m, markersize=3.5, linewidth=1.2), label) for c, m, label in marks]
    columns = 1 if max(map(len, lines)) > 26 else 2
    own = _own_value(result)
    ring = "" if own is None else f"; ring: the value of {result['preset']}"
    figure = new_figure(
        f"{result['dataset']}: {metric_name(metric)} by {_short(key)}",
        [_circumstances(result), f"The vertical axis does not begin at zero{ring}"],
        height=1.8,
        legend=legend if others else (),
        legend_columns=columns,
    )
    axes = figure.subplots()
    style_axes(axes)
    for (colour, marker, _), line in zip(marks, lines.values(), strict=True):
        x, values = zip(*sorted(line, key=lambda point: point[0]), strict=True)
        means = [value["mean"] for value in values]
        axes.plot(x, means, color=colour, marker=marker, markersize=3.5, linewidth=1.2)
        _error_bars(axes, x, means, [value["sd"] for value in values], colour=colour)
    if own is not None:
        x, y = own["values"][key], own["metrics"][result["split"]][metric]["mean"]
        axes.plot(x, y, color=INK, marker="o", markersize=8, markerfacecolor="none", linestyle="")
    ticks = sorted({x for line in lines.values() for x, _ in line})
    if min(ticks) > 0 and max(ticks) / min(ticks) >= 100:
        axes.set_xscale("log")
    if len(ticks) <= 9:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(ticks, [_value(tick) for tick in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.05, y=0.12)
    axes.set_xlabel(plain(key), fontsize=TEXT_POINTS, color=INK)
    return figure


def _sweep_bars(result: Mapping[str, Any], metric: str) -> Figure:
    """Horizontal bars from zero, one per variant in the order given."""
    variants = result["variants"]
    values = [variant["metrics"][result["split"]][metric] for variant in variants]
    keys = ", ".join(_short(key) for key in result["varied"])
    title = f"{result['dataset']}: {metric_name(metric)} by {keys}"
    own = _own_value(result)
    heading = [_circumstances(result), *([] if own is None else [f"Bold: the value of {result['preset']}"])]
    figure = new_figure(title, heading, height=0.2 * len(variants) + 0.4)
    axes = figure.subplots()
    style_axes(axes, grid="x")
    y, means = np.arange(len(variants)), [value["mean"] for value in values]
    axes.barh(y, means, height=0.7, color=SERIES[0], linewidth=0)
    _error_bars(axes, means, y, [value["sd"] for value in values], along="x")
    for at, value in enumerate(values):
        end = (value["mean"] + (value["sd"] or 0), at)
        _note(axes, f"{value['mean']:.4f}", end, offset=(3, 0), ha="left", va="center")
    axes.set_yticks(y, [plain(shortened(variant["label"], SMALL_POINTS, 1.3)) for variant in variants])
    for variant, label in zip(variants, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if variant is own else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlim(0, 1.18 * max(value["mean"] + (value["sd"] or 0) for value in values) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(metric_name(metric), fontsize=TEXT_POINTS, color=INK)
    return figure


def _error_bars(axes: Axes, x: Any, y: Any, sd: Sequence[float | None], *, colour: str = INK, along: str = "y") -> None:
    """Whiskers of one sd where there is one."""
    if any(value is not None for value in sd):
        spread: Any = {f"{along}err": [value or 0.0 for value in sd]}
        axes.errorbar(
            x, y, **spread, fmt="none", color=colour, ecolor=colour, elinewidth=0.8, capsize=1.8, capthick=0.8
        )


def _note(axes: Axes, text: str, at: tuple[float, float], *, offset: tuple[float, float], ha: str, va: str) -> None:
    place: Any = {"textcoords": "offset points", "xytext": offset, "ha": ha, "va": va}
    axes.annotate(plain(text), at, fontsize=SMALL_POINTS - 0.8, color=INK, annotation_clip=False, **place)


def _circumstances(result: Mapping[str, Any]) -> str:
    """Split, seeds, tie order, and whether epochs were limited."""
    seeds = len(result["seeds"])
    spread = f"mean and sd of {seeds} seeds" if seeds > 1 else "one seed"
    unequal = {len(variant["metrics"][result["split"]][result["metric"]]["values"]) for variant in result["variants"]}
    if len(unequal) > 1:
        spread = f"mean of {min(unequal)} to {max(unequal)} seeds, sd where several"
    rule = "" if result["split_rule"] == LEAVE_ONE_OUT else f"{result['split_rule']} split, "
    text = f"{result['split']}, {spread}, {rule}ties in {result['tie_order']} order"
    quick = result["quick_epochs"]
    return text if quick is None else f"{text} · quick look: at most {quick} epoch{'s' if quick > 1 else ''}"


def _own_value(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The variant that the others are compared with: the preset as it is."""
    bases = [variant for variant in result["variants"] if variant["change_percent"] is None]
    return bases[0] if len(bases) == 1 and len(result["variants"]) > 1 else None


def _metric_pair(result: Mapping[str, Any]) -> list[str]:
    """The result's metric, and the same at the nearest smaller cut-off, else the nearest larger one."""
    chosen = result["metric"]
    name, _, k = chosen.partition("@")
    known = result["variants"][0]["metrics"][result["split"]]
    cuts = sorted(int(key.split("@")[1]) for key in known if key.startswith(f"{name}@") and key != chosen)
    others = [cut for cut in reversed(cuts) if cut < int(k)] + [cut for cut in cuts if cut > int(k)]
    return [chosen, *(f"{name}@{cut}" for cut in others[:1])]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(key: str) -> str:
    """The last two parts of a configuration key."""
    return ".".join(key.split(".")[-2:])


def _value(value: object) -> str:
    return f"{value:g}" if _is_number(value) else str(value)
