"""Tables of pages: sorted by a click on a column, and saved as CSV, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from athwe_core.analysis.experiments.table_text import csv_table, latex_table, markdown_table
from athwe_core.analysis.pages.download import Download, download

NOTHING = "–"
"""Shown where there is no number."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    is_text: bool = False
    """Aligned left; columns of numbers are aligned right."""
    is_extra: bool = False
    """Shown on request only; the files always have it."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number behind it."""

    text: str
    value: float | None = None
    """What a column is sorted by, and what CSV holds in full; None = the text."""
    sd: float | None = None
    """Standard deviation over seeds, beside the number."""
    is_best: bool = False
    """Best beyond chance."""

    @property
    def sd_text(self) -> str:
        """` ± 0.0011`; empty where there is none."""
        return "" if self.sd is None else f" ± {self.sd:.4f}"


@dataclass(frozen=True)
class Row:
    """A row; the first cell names it."""

    cells: list[Cell]
    is_quiet: bool = False
    """Stands beside the others for orientation, such as a baseline."""


@dataclass(frozen=True)
class PageTable:
    """A table of a page."""

    name: str
    """Of its element, unique within the page, and last part of its files' names."""
    title: str
    """For screen readers."""
    columns: list[Column]
    rows: list[Row]
    stem: str
    """First part of its files' names."""
    extra: str = ""
    """What asks for the extra columns, e.g. `@20 and @50`."""

    @property
    def downloads(self) -> list[Download]:
        """The table as CSV, Markdown and LaTeX."""
        heading = [column.name for column in self.columns]
        texts = [[cell.text + cell.sd_text for cell in row.cells] for row in self.rows]
        bold = frozenset(
            (at, number) for at, row in enumerate(self.rows) for number, cell in enumerate(row.cells) if cell.is_best
        )
        stem = f"{self.stem}-{self.name}"
        return [
            download("CSV", stem, "csv", self._csv()),
            download("Markdown", stem, "md", markdown_table(heading, texts, bold=bold)),
            download("LaTeX", stem, "tex", latex_table(heading, texts, bold=bold)),
        ]

    def _csv(self) -> str:
        """Numbers in full; a column whose cells have deviations is followed by a column of these."""
        has_sd = [any(row.cells[at].sd is not None for row in self.rows) for at in range(len(self.columns))]
        heading = [
            name
            for column, spread in zip(self.columns, has_sd, strict=True)
            for name in ([column.name, f"{column.name} sd"] if spread else [column.name])
        ]
        rows: list[list[object]] = []
        for row in self.rows:
            line: list[object] = []
            for cell, spread in zip(row.cells, has_sd, strict=True):
                text = "" if cell.text == NOTHING else cell.text
                line += [text if cell.value is None else cell.value, *([cell.sd] if spread else [])]
            rows.append(line)
        return csv_table(heading, rows)


def words(text: object) -> Cell:
    """A cell of text."""
    return Cell(str(text))


def listed(values: Sequence[object]) -> Cell:
    """A cell of several values."""
    return Cell(", ".join(map(str, values)))


def number(value: float | None, digits: int = 4, *, sd: float | None = None, is_best: bool = False) -> Cell:
    """A cell of a number with fixed digits and a real minus sign; a dash where there is none."""
    text = NOTHING if value is None else f"{value:.{digits}f}".replace("-", "−")
    return Cell(text, value, sd, is_best)


def count(value: int | None) -> Cell:
    """A cell of a whole number with commas between thousands; a dash where there is none."""
    return Cell(NOTHING if value is None else f"{value:,}", value)


def percent(value: float | None) -> Cell:
    """A cell of a change in percent with its sign; a dash where there is none."""
    return Cell(NOTHING if value is None else f"{value:+.1f}%".replace("-", "−"), value)


def share(value: float) -> Cell:
    """A cell of a share from 0 to 1 as percent."""
    return Cell(f"{100 * value:.1f}%", value)


def p_value(value: float | None) -> Cell:
    """A cell of a p-value; a dash where nothing was tested."""
    return Cell(NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}", value)
