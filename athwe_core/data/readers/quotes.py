"""Quotes that are never closed: a row that takes up several lines, most of which look like rows of their own."""

from __future__ import annotations

import re

import polars as pl

from athwe_core.data.readers.lines import Block

_NUMBERS = r"^[\d.:/+TZ -]+$"
_NUMERIC_SHARE = 0.95  # of a column's cells in rows of one line
_LIKE_ROWS_SHARE = 0.5  # of the lines behind a row's first one


def unclosed_quote(frame: pl.DataFrame, spans: list[tuple[int, int]], block: Block, separator: str) -> tuple[int, int]:
    """Find a row of several lines whose lines look like rows of their own: a quote opened in it and was never closed.

    A line looks like a row where it has as many fields as the table has columns, quotes being ordinary characters, and
    numbers or dates in the columns that hold nothing else. The first line of a rightly quoted row does not: its last field
    is cut.

    Args:
        frame: (R, columns) the rows as split.
        spans: First line, and line behind the last, of the R rows and of rows that could not be split.
        block: Where they come from.
        separator: Between fields.
    Returns:
        The line that the row begins on and how many lines behind it look like rows; 0 and 0 where there is none.
    """
    long = [(start, end) for start, end in spans if end - start > 1]
    if not long or frame.width < 2:
        return 0, 0
    is_single = pl.Series([end - start == 1 for start, end in spans[: len(frame)]], dtype=pl.Boolean)
    single = frame.filter(is_single)
    numeric = [
        number
        for number, name in enumerate(frame.columns)
        if len(single) and single[name].str.contains(_NUMBERS).mean() > _NUMERIC_SHARE  # type: ignore[operator]
    ]
    whole_field = re.compile(rf'(?<![^{re.escape(separator)}])"(?:[^"]|"")*"(?=[{re.escape(separator)}]|$)')
    texts = block.content.decode("utf-8", "replace").split("\n")

    def is_like_a_row(line: int) -> bool:
        fields = whole_field.sub("", texts[line - block.first_line].removesuffix("\r")).split(separator)
        return len(fields) == frame.width and all(
            not fields[number] or re.match(_NUMBERS, fields[number]) for number in numeric
        )

    closes_rightly = re.compile(rf'[^"]*(?:""[^"]*)*"(?:[{re.escape(separator)}]|$)')
    for start, end in long:
        if not numeric and closes_rightly.match(texts[end - 1 - block.first_line].removesuffix("\r")):
            continue  # nothing tells its lines from rows
        count = sum(map(is_like_a_row, range(start + 1, end)))
        if count >= _LIKE_ROWS_SHARE * (end - start - 1) and count and is_like_a_row(start):
            return start, count
    return 0, 0
