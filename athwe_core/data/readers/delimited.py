"""Delimited text in blocks: rows of strings with the number of the line each begins on.

polars splits a block of lines at once. Where a block is odd (polars fails, or the counts of its rows, lines and separators do
not agree), a slow second pass with the csv module reads the same lines, keeps what can be kept and names the line of each
error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.readers.header import NEVER_CLOSED, WITHOUT_NUL, Dialect, header_text, is_empty
from athwe_core.data.readers.lines import Block, blocks
from athwe_core.data.readers.quotes import unclosed_quote
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError
from athwe_core.messages import clipped

ONE_BYTE = "\x1f"
"""Stands for a separator of two characters while a block is split."""
_END = "\0end\n"  # a line of its own behind the last row, unless that has a quote that is never closed
_OPEN = "cannot be split into fields (a quote is open to the end of the file)"


@dataclass(frozen=True)
class RowBlock:
    """R rows of a file: `frame` holds every column as strings, `lines` the line (in parquet: row) each begins on."""

    lines: Int64[np.ndarray, "R"]
    frame: pl.DataFrame

    def keep(self, is_kept: pl.Series) -> RowBlock:
        """The rows marked True."""
        return RowBlock(self.lines[is_kept.to_numpy()], self.frame.filter(is_kept))


class BadLine(Protocol):
    """Called for a row that cannot be split; may raise."""

    def __call__(self, line: int, rule: str, value: object, *, num_lines: int = 1) -> None:
        """Take the line that the row begins on, the rule, what was found, and how many lines the row takes up."""


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
    reading.skip_lines(path)
    rest = [Block(2, first.content[end:])] if end < len(first.content) else []
    return header, chain(rest, found)


def split_rows(
    found: Iterator[Block], names: list[str], dialect: Dialect, *, path: Path, reading: Reading, on_bad: BadLine
) -> Iterator[RowBlock]:
    """Split lines into the columns `names`.

    Args:
        found: The lines below the header.
        names: Distinct column names.
        dialect: How the lines are split. Where it is not sure, quotes that do not pair become ordinary characters in a
            tab-separated file (with a note), and an error in others.
        path: For messages.
        reading: Gets the counts.
        on_bad: Called for every row with another number of fields, and for lines that are no UTF-8 or have NUL bytes;
            they are dropped.
    Raises:
        DataError: A field in quotes is longer than 131,072 characters, or a quote is never closed.
    """
    has_had_quotes = False
    for first in found:
        block, split = first, _split_fast(first, names, dialect)
        while split is None:
            split = _split_slowly(block, names, dialect)
            if not split.is_open or (more := next(found, None)) is None:
                break
            block = Block(block.first_line, block.content + more.content)  # a row goes on in the next block
            split = _split_fast(block, names, dialect)
        if dialect.has_quotes and b'"' in block.content:
            line, why = _unclosed(block, split, dialect)
            if line and (dialect.is_sure or dialect.separator != "\t" or has_had_quotes):
                raise DataError(f"{path} line {line}", why, remedy=NEVER_CLOSED)
            if line:
                dialect.has_quotes = False
                reading.notes.append(f"{path.name}: the quotes do not pair (line {line}): read as ordinary characters")
                split = _split_slowly(block, names, dialect)
            has_had_quotes = True
        for bad in split.bad:
            on_bad(bad.line, bad.rule, bad.value, num_lines=bad.num_lines)
        reading.skip_lines(path, split.num_blank)
        reading.add_rows(path, len(split.frame), int((split.ends - split.starts).sum()))
        yield RowBlock(split.starts, split.frame)


@dataclass(frozen=True)
class _Bad:
    """A row that cannot be split."""

    line: int
    rule: str
    value: object
    num_lines: int = 1


@dataclass(frozen=True)
class _Split:
    """A block after splitting: rows with the lines `starts` to `ends` (exclusive) of each, bad rows, blank lines."""

    frame: pl.DataFrame
    starts: Int64[np.ndarray, "R"]
    ends: Int64[np.ndarray, "R"]
    bad: Sequence[_Bad] = ()
    num_blank: int = 0
    is_open: bool = False
    """The last row has a quote that is open to the end."""
    too_long: int = 0
    """Line on which a field begins that is longer than the csv module reads; 0 = none."""


def _split_fast(block: Block, names: list[str], dialect: Dialect) -> _Split | None:
    """The rows by polars; None where it fails, or where the numbers of rows, lines and separators do not agree."""
    content, separator = block.content, dialect.separator.encode()
    if b"\0" in content:
        return None
    num_separators = content.count(separator)
    if len(separator) > 1:
        if ONE_BYTE.encode() in content:
            return None
        content, separator = content.replace(separator, ONE_BYTE.encode()), ONE_BYTE.encode()
    has_quotes = dialect.has_quotes and b'"' in content
    try:
        frame = pl.read_csv(
            io.BytesIO(content),
            has_header=False,
            schema=dict.fromkeys(names, pl.String),
            separator=separator.decode(),
            quote_char='"' if has_quotes else None,
        ).fill_null("")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    num_lines = np.ones(len(frame), dtype=np.int64)
    if has_quotes:
        inside = [
            frame[name].str.count_matches(mark, literal=True) for mark in ("\n", dialect.separator) for name in names
        ]
        num_lines += sum(counts.to_numpy().astype(np.int64) for counts in inside[: len(names)])
        num_separators -= sum(int(counts.sum()) for counts in inside[len(names) :])
        frame = frame.with_columns(pl.all().str.replace_all("\r\n", "\n", literal=True))
    if num_separators != len(frame) * (len(names) - 1) or num_lines.sum() != block.num_lines:
        return None
    if len(names) == 1 and dialect.has_quotes and (frame.to_series() == "").any():  # a blank line, or an empty cell
        return None
    ends = block.first_line + np.cumsum(num_lines)
    return _Split(frame, ends - num_lines, ends)


def _split_slowly(block: Block, names: list[str], dialect: Dialect) -> _Split:
    """The rows one at a time, with a reason for each that cannot be split."""
    bad: list[_Bad] = []
    numbers: list[int] = []  # of the lines that make up the row that is being read
    rows: list[list[str]] = []
    spans: list[tuple[int, int]] = []
    num_blank, is_open, too_long = 0, False, 0

    def texts() -> Iterator[str]:
        for number, text in _decoded(block, bad):
            numbers.append(number)
            yield text.replace("\r", "\x1e") + "\n"
        yield _END

    def plain() -> Iterator[list[str]]:
        for text in texts():
            yield text[:-1].split(dialect.separator)

    try:
        for row in csv.reader(texts(), delimiter=dialect.separator) if dialect.has_quotes else plain():
            if not numbers:  # nothing but the end is left
                break
            is_open = dialect.has_quotes and bool(row) and row[-1].endswith(_END)
            if is_open:
                bad.append(_Bad(numbers[0], _OPEN, len(row), len(numbers)))
            elif len(row) == len(names) and (row[0].strip() or len(row) > 1 or not dialect.has_quotes):
                rows.append([cell.replace("\x1e", "\r") for cell in row])
                spans.append((numbers[0], numbers[-1] + 1))
            elif dialect.has_quotes and len(row) <= 1 and not "".join(row).strip():
                num_blank += len(numbers)
            else:
                bad.append(_Bad(numbers[0], _wrong_count(names, dialect.separator), len(row), len(numbers)))
            numbers.clear()
    except csv.Error:  # the only one that is left: a field above the limit of the csv module
        too_long = numbers[0] if numbers else block.first_line
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    starts, ends = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return _Split(frame, starts, ends, bad, num_blank, is_open, too_long)


def _unclosed(block: Block, split: _Split, dialect: Dialect) -> tuple[int, str]:
    """The line of a quote that is never closed, 0 for none, and why it is thought so."""
    if split.is_open:
        return split.bad[-1].line, _OPEN
    if split.too_long:
        return split.too_long, "cannot be split into fields (one is longer than 131,072 characters)"
    if dialect.is_sure:
        return 0, ""
    spans = [*zip(split.starts.tolist(), split.ends.tolist(), strict=True)]
    spans += [(bad.line, bad.line + bad.num_lines) for bad in split.bad]
    line, count = unclosed_quote(split.frame, spans, block, dialect.separator)
    return line, f"opens a quote, and {count} lines up to where it closes look like rows of their own"


def _decoded(block: Block, bad: list[_Bad]) -> Iterator[tuple[int, str]]:
    """The lines as texts without their ends; those that are no text are bad."""
    for number, line in block.lines():
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            bad.append(_Bad(number, "must be UTF-8 text", line[error.start : error.end]))
            continue
        if "\0" in text:
            bad.append(_Bad(number, WITHOUT_NUL, clipped(text)))
        else:
            yield number, text


def _wrong_count(names: list[str], separator: str) -> str:
    kind = {"\t": "tab-separated ", ",": "comma-separated "}.get(separator, "")
    return f"must have {len(names)} {kind}fields like the header"
