"""A table as text for a paper or another program: LaTeX, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Literal

Form = Literal["latex", "markdown", "csv"]
LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]], *, bold: frozenset[tuple[int, int]]) -> str:
    """A table of Markdown, numbers on the right.

    Args:
        heading: of the columns; the first one is of labels.
        rows: cells.
        bold: (row, column) of the cells to emphasise, from 0.
    """
    marked = [
        [f"**{cell}**" if (at, column) in bold else cell for column, cell in enumerate(row)]
        for at, row in enumerate(rows)
    ]
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *marked]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def latex_table(heading: Sequence[str], rows: Iterable[Sequence[str]], *, bold: frozenset[tuple[int, int]]) -> str:
    """A `tabular` of LaTeX, numbers on the right; special characters are escaped.

    Args:
        heading: of the columns; the first one is of labels.
        rows: cells.
        bold: (row, column) of the cells to emphasise, from 0.
    """

    def escaped(cell: str) -> str:
        text = "".join(LATEX_SPECIAL.get(character, character) for character in cell)
        return text.replace("±", r"$\pm$").replace("<", "$<$").replace("−", "$-$")

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = (
        line(
            rf"\textbf{{{escaped(cell)}}}" if (at, column) in bold else escaped(cell) for column, cell in enumerate(row)
        )
        for at, row in enumerate(rows)
    )
    begin = rf"\begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}"
    return "\n".join([begin, r"\hline", line(map(escaped, heading)), r"\hline", *body, r"\hline", r"\end{tabular}", ""])


def csv_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lines of CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()
