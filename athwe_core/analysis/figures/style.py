"""The style of figures: colours, font sizes, heading and axes.

Each colour has a CSS variable. A file has these colours; in a page a figure takes the page's, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

INK, MUTED, LINE = "#20252b", "#59616c", "#d9dde3"
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a8f00", "#7a5195")
"""The colour-blind safe palette of Okabe and Ito, and two more for figures of more than six lines."""
MARKERS = "osD^vPXh"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (5, 1.4, 1.4, 1.4)))
CSS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(SERIES, 1)
}
COLUMN_INCHES = 3.4
"""Width of a column of a two-column page."""
TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 8.5, 7.5, 6.8

RC: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT_POINTS,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "athwe",
}
"""Settings of matplotlib while a figure is written."""


def plain(text: object) -> str:
    """Text with escaped dollar signs, which matplotlib would read as mathematics."""
    return str(text).replace("$", r"\$")


def new_figure(
    title: str,
    subtitle: Sequence[str] = (),
    *,
    height: float,
    width: float = COLUMN_INCHES,
    legend: Sequence[tuple[Any, str]] = (),
    legend_columns: int = 2,
) -> Figure:
    """An empty figure under a heading: title, muted lines (each wrapped to the width), legend.

    Args:
        height, width: of the plot below the heading, and of the whole; inches.
        legend: (handle, label) pairs.
    """
    margin = 0.06
    lines = [(line, TITLE_POINTS, "bold", INK) for line in wrap(title, TITLE_POINTS * 1.1, width - 2 * margin)]
    for text in subtitle:
        lines += [(line, SMALL_POINTS, "normal", MUTED) for line in wrap(text, SMALL_POINTS, width - 2 * margin)]
    rows = -(-len(legend) // legend_columns)
    heading = margin + sum(1.4 * size / 72 for _, size, _, _ in lines) + (rows * 0.155 + 0.07 if rows else 0.05)
    whole = height + heading
    figure = Figure(figsize=(width, whole), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, height / whole), w_pad=0.05, h_pad=0.04, wspace=0.06, hspace=0.06)
    y = whole - margin
    for line, size, weight, colour in lines:
        y -= 1.1 * size / 72
        figure.text(
            margin / width, y / whole, plain(line), fontsize=size, fontweight=weight, color=colour, va="baseline"
        )
        y -= 0.3 * size / 72
    if legend:
        handles, labels = zip(*legend, strict=True)
        figure.legend(
            handles,
            [plain(shortened(label, SMALL_POINTS, width / legend_columns - 0.4)) for label in labels],
            loc="upper left",
            bbox_to_anchor=(margin / width, (y - 0.03) / whole),
            ncols=legend_columns,
            frameon=False,
            fontsize=SMALL_POINTS,
            labelcolor=INK,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.6,
            handletextpad=0.5,
            columnspacing=1.4,
            labelspacing=0.35,
        )
    return figure


def style_axes(axes: Axes, *, grid: str = "y") -> None:
    """Thin left and lower axis, and pale grid lines of one axis behind the marks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=MUTED, linewidth=0.6)
    axes.tick_params(which="both", color=MUTED, labelcolor=INK, labelsize=SMALL_POINTS, width=0.6, length=2.5, pad=2)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis=grid, color=LINE, linewidth=0.6)  # type: ignore[arg-type]


def wrap(text: str, points: float, inches: float) -> list[str]:
    """Lines of words, none wider than `inches` unless it is a single word."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, points) <= inches or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def text_width(text: str, points: float) -> float:
    """Width of a line of text in inches, at a font size in points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=points), ismath=False)
    return float(width) / 72


def shortened(text: str, points: float, inches: float) -> str:
    """Text that fits into a width, with its middle left out: names differ at their beginnings and ends."""
    kept = len(text)
    short = text
    while text_width(short, points) > inches and kept > 2:
        kept -= 1
        short = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return short
