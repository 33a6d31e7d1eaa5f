"""A file of raw ids: one id a line, or one column of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from athwe_core.data.readers.columns import find_columns
from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.lines import blocks, first_lines
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.table_file import Table, binary_format
from athwe_core.errors import DataError

_SEPARATOR = re.compile(r"[,;|\t]")


@dataclass(frozen=True)
class IdList:
    """Distinct raw ids in one spelling, in the order of the file.

    Attributes:
        ids: The ids.
        note: One sentence on what was read.
    """

    ids: pl.Series
    note: str


def ids_of(values: Sequence[str], role: str) -> tuple[pl.Series, list[str]]:
    """Distinct raw ids from what a user typed.

    Args:
        values: each an id, or the path of a file that exists, see `read_id_list`.
        role: `user` or `item`.
    Returns: the ids in the given order, and one sentence for each file.
    """
    lists = [
        read_id_list(Path(value), role) if Path(value).is_file() else IdList(pl.Series([value]), "") for value in values
    ]
    ids = pl.concat([found.ids for found in lists]).unique(maintain_order=True)
    return ids, [found.note for found in lists if found.note]


def read_id_list(path: Path, role: str) -> IdList:
    """Read raw ids.

    Args:
        path: Text with one id a line; or a table (CSV and the like, JSON lines, parquet, Feather) with a column that is
            named as such ids are, see `prepare`. Repeated ids and placeholders (`nan`, empty) are left out.
        role: `user` or `item`.
    Raises:
        DataError: The file is missing, unreadable, or has no ids.
    """
    if not path.is_file():
        raise DataError(str(path), "must be a file that exists", remedy="Check the path")
    column = _column(path, role)
    found = clean_ids(_texts(path, column).fill_null("").unique(maintain_order=True), role, str(path))
    ids = found.texts.filter(~found.is_placeholder).unique(maintain_order=True)
    if not len(ids):
        raise DataError(str(path), f"must hold {role} ids, one a line")
    where = "one a line" if column is None else f"column {column}"
    return IdList(ids, f"{path.name}: {len(ids):,} {role} ids, {where}")


def _column(path: Path, role: str) -> str | None:
    """The column with the ids; None where the file has one id a line."""
    if binary_format(path) is None:
        lines = first_lines(path)
        if not lines:
            raise DataError(str(path), "is empty", remedy=f"Write one {role} id a line")
        header = lines[0].decode("utf-8", "replace")
        names = [field.strip(" \"'").partition(":")[0] for field in _SEPARATOR.split(header)]
        if not header.lstrip().startswith("{") and not find_columns(names, role):
            return None
    table = Table(path, Reading([path]))
    likely = find_columns(table.columns, role)
    if not likely:
        rule = f"has no column that is surely the {role}; its columns are {table.listed_columns}"
        raise DataError(str(path), rule, remedy=f"Call it {role}_id")
    return likely[0]


def _texts(path: Path, column: str | None) -> pl.Series:
    if column is not None:
        reading = Reading([path])
        table = Table(path, reading)
        found = [rows.frame[column] for rows in table.rows([column])]
        reading.finish(path)
        return pl.concat(found) if found else pl.Series([], dtype=pl.String)
    try:
        lines = [line.decode().strip() for block in blocks(path, Reading([path])) for _, line in block.lines()]
    except UnicodeDecodeError as error:
        raise DataError(str(path), "must be UTF-8 text", error.object[error.start : error.end]) from None
    return pl.Series(lines, dtype=pl.String)
