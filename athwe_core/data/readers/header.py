"""The first line of a delimited file: the names of its columns, and how its lines are split."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from athwe_core.errors import DataError
from athwe_core.messages import clipped

MAX_COLUMNS = 10_000
"""Most columns of a table; each costs memory for every row."""
WITHOUT_NUL = "must be text without NUL bytes"
NEVER_CLOSED = "Is a quote never closed? Where quotes are ordinary characters: --quotes none"
_AS_TEXT = "Save it as UTF-8 text, e.g. with: iconv -f LATIN1 -t UTF-8 FILE"
_FEWEST_COLUMNS = 3  # user, item, time


@dataclass
class Dialect:
    """How lines are split into fields.

    Attributes:
        separator: One character, or `::`.
        has_quotes: A field in double quotes may hold separators and line ends, and blank lines mean nothing; else quotes
            are ordinary characters and a blank line is a row.
        is_sure: The user named the quotes. Else a file whose quotes do not pair is noticed.
    """

    separator: str
    has_quotes: bool
    is_sure: bool = True


def is_empty(path: Path) -> DataError:
    """The error for a file without a line."""
    return DataError(str(path), "is empty", remedy="Expected a header line and rows below it")


def header_text(path: Path, line: bytes) -> str:
    """A header line as text. Raises DataError where it is no UTF-8, has NUL bytes, or ends its lines like an old Mac."""
    where = f"{path} line 1"
    if b"\0" in line:
        raise DataError(where, WITHOUT_NUL, line[:8], "Is it UTF-16? Convert it: iconv -f UTF-16 -t UTF-8 FILE")
    try:
        header = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(where, "must be UTF-8 text", line[error.start : error.end], _AS_TEXT) from None
    if "\r" in header:
        remedy = "Convert it: tr '\\r' '\\n' < FILE > NEW"
        raise DataError(where, "must end with LF or CRLF, and a carriage return stands in it", clipped(header), remedy)
    return header


def refuse_note(path: Path, header: str) -> None:
    """Raise DataError where a first line is a comment, or tells spreadsheets the separator."""
    if re.fullmatch(r"\s*sep=.\s*", header, re.IGNORECASE):
        rule, remedy = "tells spreadsheets the separator and names no columns", f"Remove it: sed 1d {path.name}"
        raise DataError(f"{path} line 1", rule, clipped(header), remedy)
    if header.lstrip().startswith("#") and len(re.split(r"[,;\t|]", header)) < _FEWEST_COLUMNS:
        rule, remedy = "is a comment and names no columns", f"Remove such lines: sed '/^#/d' {path.name}"
        raise DataError(f"{path} line 1", rule, clipped(header), remedy)


def split_header(path: Path, header: str, dialect: Dialect) -> list[str]:
    """Column names in a header line. Raises DataError where there are too many, or a quote is never closed."""
    count = header.count(dialect.separator) + 1
    if count > MAX_COLUMNS:
        remedy = "Is it a table with one row an interaction or item?"
        raise DataError(f"{path} line 1", f"must name at most {MAX_COLUMNS:,} columns", count, remedy)
    if not dialect.has_quotes:
        return header.split(dialect.separator)
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=dialect.separator, strict=True), [])]
    except csv.Error as error:
        raise DataError(f"{path} line 1", f"cannot be split into names ({error})", remedy=NEVER_CLOSED) from None
