"""Delimited text in blocks: rows of strings with the number of the line each begins on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.lines import Block, Reading, blocks
from athwe_core.errors import DataError

BadRow = Callable[[int, str, object], None]
"""Told of a row that does not fit: the line it begins on, the rule, what was found; may raise."""
_QUOTE = b'"'
_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Rows:
    """R rows as read: `frame` holds every column as strings, `lines` the line (in parquet: row) each begins on."""

    lines: Int64[np.ndarray, "R"]
    frame: pl.DataFrame

    def keep(self, is_kept: pl.Series) -> Rows:
        """The rows marked True."""
        return Rows(self.lines[is_kept.to_numpy()], self.frame.filter(is_kept))


def open_blocks(path: Path, reading: Reading) -> tuple[str, Iterator[Block]]:
    """The first line of a text file, and the rest of it.

    Raises:
        DataError: The file is empty, its first line is not UTF-8 text, or see `blocks`.
    """
    found = blocks(path, reading)
    first = next(found, None)
    if first is None:
        raise DataError(str(path), "is empty", remedy="Expected a header line and rows below it")
    end = first.content.index(b"\n") + 1
    line = first.content[:end].rstrip(b"\r\n")
    try:
        header = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} line 1", "must be UTF-8 text", line[error.start : error.end]) from None
    rest = [Block(2, first.content[end:])] if end < len(first.content) else []
    return header, chain(rest, found)


def split_header(header: str, separator: str, *, has_quotes: bool) -> list[str]:
    """Column names in a header line."""
    if not has_quotes:
        return header.split(separator)
    return [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]


def rows_of(
    found: Iterator[Block], names: list[str], *, path: Path, separator: str, has_quotes: bool, on_bad: BadRow
) -> Iterator[Rows]:
    """Split lines into the columns `names`.

    Args:
        found: The lines below the header.
        path: For messages.
        separator: One character.
        has_quotes: A field in double quotes may hold separators and line ends, and blank lines mean nothing; else quotes
            are ordinary characters and a blank line is a row.
        on_bad: Told of rows with another number of fields and of lines that are not UTF-8; both are left out.
    Raises:
        DataError: A field in quotes is longer than 131,072 characters, as where a quote is never closed.
    """
    for block in found:
        if has_quotes and _QUOTE in block.content:  # a quoted field may go on in the next block, so no way back
            yield from _quoted_rows(chain([block], found), names, path=path, separator=separator, on_bad=on_bad)
            return
        yield _plain_rows(block, names, separator, skip_blank=has_quotes, on_bad=on_bad)


def _plain_rows(block: Block, names: list[str], separator: str, *, skip_blank: bool, on_bad: BadRow) -> Rows:
    texts, lines = _decoded(block, on_bad)
    if skip_blank and (is_blank := texts.str.strip_chars() == "").any():
        texts, lines = texts.filter(~is_blank), lines[~is_blank.to_numpy()]
    fields = texts.str.count_matches(separator, literal=True) + 1
    fits = fields == len(names)
    for row in (~fits).arg_true().to_list():
        on_bad(int(lines[row]), _wrong_count(names, separator), fields[row])
    if not fits.all():
        texts, lines = texts.filter(fits), lines[fits.to_numpy()]
    frame = texts.str.split_exact(separator, len(names) - 1).struct.unnest()
    frame.columns = names
    return Rows(lines, frame)


def _quoted_rows(
    found: Iterator[Block], names: list[str], *, path: Path, separator: str, on_bad: BadRow
) -> Iterator[Rows]:
    numbers: list[int] = []  # of the lines that the reader has been given, from the row it is in

    def texts() -> Iterator[str]:
        for block in found:
            decoded, lines = _decoded(block, on_bad)
            for line, text in zip(lines.tolist(), decoded.to_list(), strict=True):
                numbers.append(line)
                yield text + "\n"

    rows: list[list[str]] = []
    starts: list[int] = []
    try:
        for row in csv.reader(texts(), delimiter=separator):
            begin = numbers[0]
            numbers.clear()
            if len(row) == len(names):
                rows.append(row)
                starts.append(begin)
            elif row:
                on_bad(begin, _wrong_count(names, separator), len(row))
            if len(rows) == _ROWS_AT_ONCE:
                yield _as_rows(rows, starts, names)
                rows, starts = [], []
    except csv.Error as error:
        where = f"{path} line {numbers[0] if numbers else 1}"
        raise DataError(where, f"cannot be split into fields ({error})", remedy="Is a quote never closed?") from None
    yield _as_rows(rows, starts, names)


def _as_rows(rows: list[list[str]], starts: list[int], names: list[str]) -> Rows:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Rows(np.array(starts, dtype=np.int64), frame)


def _decoded(block: Block, on_bad: BadRow) -> tuple[pl.Series, Int64[np.ndarray, "n"]]:
    """The lines as texts without their ends, and their numbers; lines that are no UTF-8 are left out."""
    try:
        texts = block.content.decode().split("\n")[:-1]
        lines = np.arange(block.first_line, block.first_line + len(texts), dtype=np.int64)
    except UnicodeDecodeError:
        texts, numbers = [], []
        for number, line in block.lines():
            try:
                texts.append(line.decode())
                numbers.append(number)
            except UnicodeDecodeError as error:
                on_bad(number, "must be UTF-8 text", line[error.start : error.end])
        lines = np.array(numbers, dtype=np.int64)
    return pl.Series(texts, dtype=pl.String).str.strip_suffix("\r"), lines


def _wrong_count(names: list[str], separator: str) -> str:
    kind = {"\t": "tab-separated ", ",": "comma-separated "}.get(separator, "")
    return f"must have {len(names)} {kind}fields like the header"
