"""The figure of `athwe bench --growth`."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from athwe_core.analysis.benchmark.records import GrowthPoint
from athwe_core.analysis.benchmark.scaling import QUANTITIES, SIZE
from athwe_core.analysis.figures.style import COLUMN_INCHES, INK, MARKERS, SERIES, SMALL_POINTS, new_figure, style_axes

_ROWS = (("step", "s a step"), ("memory", "peak memory, GB"))
_NAMES = {"catalogue": "items", "users": "users", "targets": "targets a step", "processes": "processes"}


def growth_figure(points: Sequence[GrowthPoint], *, preset: str, device: str) -> Figure:
    """Step time and memory against what grows, a column each, both axes logarithmic.

    Args:
        points: of `measure_growth`.
        device: named in the heading.
    """
    axes_names = list(dict.fromkeys(point["axis"] for point in points))
    losses = list(dict.fromkeys(point["loss"] for point in points))
    styles = dict(zip(losses, zip(SERIES, MARKERS, strict=False), strict=False))
    legend = [
        (Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1.2), f"{loss} catalogue loss")
        for loss, (colour, marker) in styles.items()
    ]
    figure = new_figure(
        f"Growth of {preset}, {device}",
        ["Generated data; the other sizes stay at 10,000 items, 20,000 users or more, 1,024 targets and one process"],
        height=2.7,
        width=2 * COLUMN_INCHES,
        legend=legend,
    )
    grid = figure.subplots(2, len(axes_names), squeeze=False, sharex="col", sharey="row")
    for row, (value, label) in enumerate(_ROWS):
        for column, axis in enumerate(axes_names):
            panel = grid[row, column]
            panel.set(xscale="log", yscale="log")
            style_axes(panel)
            own = [point for point in points if point["axis"] == axis]
            for loss in losses:
                line = [point for point in own if point["loss"] == loss]
                factor = 1e-9 if value == "memory" else 1.0
                heights = [factor * QUANTITIES[value](point) for point in line]
                colour, marker = styles[loss]
                sizes = [point[SIZE[axis]] for point in line]
                panel.plot(sizes, heights, color=colour, marker=marker, markersize=3.5, linewidth=1.2)
            panel.set_xticks(sorted({point[SIZE[axis]] for point in own}))
            panel.xaxis.set_major_formatter(FuncFormatter(_short))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.yaxis.set_major_formatter(FuncFormatter(_short))
            panel.yaxis.set_minor_formatter(NullFormatter())
            if row == 1:
                panel.set_xlabel(_NAMES[axis], fontsize=SMALL_POINTS, color=INK)
        grid[row, 0].set_ylabel(label, fontsize=SMALL_POINTS, color=INK)
    return figure


def _short(value: float, _: int) -> str:
    for limit, unit in ((1_000_000, " M"), (10_000, " k")):
        if value >= limit:
            return f"{value / (1_000_000 if unit == ' M' else 1000):g}{unit}"
    return f"{value:g}"
