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

from athwe_core.data.readers.lines import Block, Reading, blocks
from athwe_core.errors import DataError
from athwe_core.messages import clipped

BadRow = Callable[[int, str, object], None]
"""Told of a row that does not fit: the line it begins on, the rule, what was found; may raise."""
MAX_COLUMNS = 10_000
"""No table of interactions or items has more; each costs memory for every row."""
_QUOTE, _NUL = b'"', b"\0"
_END = "\0end\n"  # a line of its own behind the last row, unless that has a quote that is never closed
_ROWS_AT_ONCE = 50_000
_AS_TEXT = "Save it as UTF-8 text, e.g. with: iconv -f LATIN1 -t UTF-8 FILE"
_WITHOUT_NUL = "must be text without NUL bytes"
_NEVER_CLOSED = "Is a quote never closed?"


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
        DataError: The file is empty, its first line is not text, or see `blocks`.
    """
    found = blocks(path, reading)
    first = next(found, None)
    if first is None:
        raise is_empty(path)
    end = first.content.index(b"\n") + 1
    header = header_text(path, first.content[:end].rstrip(b"\r\n"))
    rest = [Block(2, first.content[end:])] if end < len(first.content) else []
    return header, chain(rest, found)


def is_empty(path: Path) -> DataError:
    """The error for a file without a line."""
    return DataError(str(path), "is empty", remedy="Expected a header line and rows below it")


def header_text(path: Path, line: bytes) -> str:
    """A header line as text. Raises DataError where it is no UTF-8, has NUL bytes, or ends its lines like an old Mac."""
    where = f"{path} line 1"
    if _NUL in line:
        raise DataError(where, _WITHOUT_NUL, line[:8], "Is it UTF-16? Convert it: iconv -f UTF-16 -t UTF-8 FILE")
    try:
        header = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(where, "must be UTF-8 text", line[error.start : error.end], _AS_TEXT) from None
    if "\r" in header:
        remedy = "Convert it: tr '\\r' '\\n' < FILE > NEW"
        raise DataError(where, "must end with LF or CRLF, and a carriage return stands in it", clipped(header), remedy)
    return header


def split_header(path: Path, header: str, separator: str, *, has_quotes: bool) -> list[str]:
    """Column names in a header line. Raises DataError where there are too many, or a quote is never closed."""
    count = header.count(separator) + 1
    if count > MAX_COLUMNS:
        remedy = "Is it a table with one row an interaction or item?"
        raise DataError(f"{path} line 1", f"must name at most {MAX_COLUMNS:,} columns", count, remedy)
    if not has_quotes:
        return header.split(separator)
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=separator, strict=True), [])]
    except csv.Error as error:
        raise DataError(f"{path} line 1", f"cannot be split into names ({error})", remedy=_NEVER_CLOSED) from None


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
        on_bad: Told of every line of a row with another number of fields, and of lines that are no UTF-8 or have NUL
            bytes; they are left out.
    Raises:
        DataError: A field in quotes is longer than 131,072 characters, or a quote is never closed.
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
        yield _END

    rows: list[list[str]] = []
    starts: list[int] = []
    try:
        for row in csv.reader(texts(), delimiter=separator):
            if not numbers:  # nothing but the end is left
                break
            if row and row[-1].endswith(_END):
                raise csv.Error("a quote is open to the end of the file")
            if len(row) == len(names):
                rows.append(row)
                starts.append(numbers[0])
            elif row:
                for line in numbers:
                    on_bad(line, _wrong_count(names, separator), len(row))
            numbers.clear()
            if len(rows) == _ROWS_AT_ONCE:
                yield _as_rows(rows, starts, names)
                rows, starts = [], []
    except csv.Error as error:
        where = f"{path} line {numbers[0] if numbers else 1}"
        raise DataError(where, f"cannot be split into fields ({error})", remedy=_NEVER_CLOSED) from None
    yield _as_rows(rows, starts, names)


def _as_rows(rows: list[list[str]], starts: list[int], names: list[str]) -> Rows:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    return Rows(np.array(starts, dtype=np.int64), frame)


def _decoded(block: Block, on_bad: BadRow) -> tuple[pl.Series, Int64[np.ndarray, "n"]]:
    """The lines as texts without their ends, and their numbers; lines that are no text are left out."""
    if (texts := _all_text(block)) is not None:
        lines = np.arange(block.first_line, block.first_line + len(texts), dtype=np.int64)
    else:
        texts, numbers = [], []
        for number, line in block.lines():
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                on_bad(number, "must be UTF-8 text", line[error.start : error.end])
                continue
            if "\0" in text:
                on_bad(number, _WITHOUT_NUL, clipped(text))
            else:
                texts.append(text)
                numbers.append(number)
        lines = np.array(numbers, dtype=np.int64)
    return pl.Series(texts, dtype=pl.String).str.strip_suffix("\r"), lines


def _all_text(block: Block) -> list[str] | None:
    """The lines as texts, None where one of them is none."""
    if _NUL in block.content:
        return None
    try:
        return block.content.decode().split("\n")[:-1]
    except UnicodeDecodeError:
        return None


def _wrong_count(names: list[str], separator: str) -> str:
    kind = {"\t": "tab-separated ", ",": "comma-separated "}.get(separator, "")
    return f"must have {len(names)} {kind}fields like the header"
