"""RecBole atomic files, `NAME.inter` and `NAME.item`: tab separated with a `name:type` header, plain or compressed.

Quotes are ordinary characters. A byte-order mark, CRLF line ends and a missing last newline are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl

from athwe_core.data.readers.delimited import Rows, open_blocks, rows_of, split_header
from athwe_core.data.readers.lines import Reading
from athwe_core.data.readers.records import ItemTable, Records, RecordsBuilder
from athwe_core.data.readers.times import YEAR_5138, whole_seconds
from athwe_core.errors import DataError
from athwe_core.messages import clipped, listed

COLUMN_TYPES = ("token", "token_seq", "float", "float_seq")
ID_COLUMNS = ("user_id", "item_id")
_MEND = "Mend or remove that line"


@dataclass(frozen=True)
class AtomicTable:
    """One atomic file: `frame` holds every column as strings, `types` the declared type of each, in file order."""

    path: Path
    frame: pl.DataFrame
    types: dict[str, str]


def atomic_paths(folder: Path, name: str, kind: str) -> tuple[Path, Path]:
    """Where an atomic file of `kind` (`inter` or `item`) may be."""
    return folder / f"{name}.{kind}", folder / f"{name}.{kind}.gz"


def find_atomic(folder: Path, name: str, kind: str) -> Path | None:
    """Return `folder/NAME.kind` or `folder/NAME.kind.gz`, None when neither exists.

    Raises:
        DataError: Both exist: which one counts would be a guess.
    """
    found = [path for path in atomic_paths(folder, name, kind) if path.is_file()]
    if len(found) > 1:
        raise DataError(str(folder), f"holds both {found[0].name} and {found[1].name}", remedy="Keep one of them")
    return found[0] if found else None


def read_atomic(inter: Path, item: Path | None, reading: Reading) -> Records:
    """Read interactions and, where there is one, the item table.

    Args:
        inter, item: Atomic files.
        reading: Told how far it is.
    Returns:
        The interactions in file order. Times are floored to whole seconds, exactly (they never pass through a float).
    Raises:
        DataError: A file is unreadable or empty; a column is missing; a row has another number of fields than the
            header, an empty id, or a time that is not a number >= 0.
    """
    builder, latest = RecordsBuilder(), -1
    for rows, _ in read_parts(inter, (*ID_COLUMNS, "timestamp"), reading):
        _refuse_empty(inter, rows, ID_COLUMNS)
        seconds = _seconds(inter, rows)
        builder.add(rows.frame["user_id"], rows.frame["item_id"], seconds)
        latest = max(latest, int(seconds.max()))
    if latest < 0:
        raise _no_rows(inter)
    notes = []
    if latest > YEAR_5138:
        notes.append(f"{inter.name}: times reach {latest}: milliseconds? Seconds are expected")
    items, item_notes = _read_items(item, inter, reading)
    return builder.build(items, (*notes, *item_notes))


def _read_items(path: Path | None, inter: Path, reading: Reading) -> tuple[ItemTable | None, list[str]]:
    if path is None:
        name = inter.name.removesuffix(".gz").removesuffix(".inter")
        return None, [f"no {name}.item or {name}.item.gz: no item text, no categories"]
    table = read_table(path, required=("item_id",), reading=reading)
    frame = table.frame.unique("item_id", keep="first", maintain_order=True)
    repeated = len(table.frame) - len(frame)
    notes = [f"{path.name}: {repeated} rows repeat an item; the first row of each item counts"] if repeated else []
    columns = ["item_id", *(column for column in frame.columns if column != "item_id")]
    return ItemTable(frame.select(columns), table.types, path.name), notes


def read_table(path: Path, *, required: tuple[str, ...], reading: Reading | None = None) -> AtomicTable:
    """Read one atomic file whole.

    Args:
        path: The file, plain or compressed by its first bytes, whatever its name.
        required: Columns that must be there; ids among them must not be empty.
        reading: Told how far it is.
    Raises:
        DataError: See `read_atomic`; messages carry the file and the line, counted from 1 with the header.
    """
    parts = list(read_parts(path, required, reading or Reading([path])))
    if not parts:
        raise _no_rows(path)
    for rows, _ in parts:
        _refuse_empty(path, rows, tuple(column for column in required if column in ID_COLUMNS))
    return AtomicTable(path, pl.concat([rows.frame for rows, _ in parts]), parts[0][1])


def read_parts(path: Path, required: tuple[str, ...], reading: Reading) -> Iterator[tuple[Rows, dict[str, str]]]:
    """Yield the rows of an atomic file in blocks, each with the types of the columns. Raises DataError, see `read_table`."""

    def refuse(line: int, rule: str, value: object) -> NoReturn:
        raise DataError(f"{path} line {line}", rule, value, _MEND)

    header, found = open_blocks(path, reading)
    types = _parse_header(path, header, required)
    for rows in rows_of(found, list(types), path=path, separator="\t", has_quotes=False, on_bad=refuse):
        yield rows, types


def _parse_header(path: Path, header: str, required: tuple[str, ...]) -> dict[str, str]:
    types: dict[str, str] = {}
    for column in split_header(path, header, "\t", has_quotes=False):
        name, _, kind = column.rpartition(":")
        if not name or kind not in COLUMN_TYPES:
            rule = f"must name each column as name:type with a type of {', '.join(COLUMN_TYPES)}"
            remedy = "Write the header as user_id:token, item_id:token, timestamp:float with tabs between"
            raise DataError(f"{path} line 1", rule, clipped(column), remedy)
        if name in types:
            raise DataError(
                f"{path} line 1", "must name each column once", clipped(name), "Rename or remove the second"
            )
        types[name] = kind
    missing = [name for name in required if name not in types]
    if missing:
        rule = f"has no column {', '.join(missing)}; its columns are {listed(list(types))}"
        raise DataError(f"{path} line 1", rule, remedy="Add or rename it")
    return types


def _no_rows(path: Path) -> DataError:
    return DataError(str(path), "has a header but no rows", remedy="Is the file complete?")


def _refuse_empty(path: Path, rows: Rows, columns: tuple[str, ...]) -> None:
    for column in columns:
        empty = (rows.frame[column] == "").arg_true()
        if len(empty):
            raise DataError(f"{path} line {rows.lines[empty[0]]}: {column}", "must not be empty", "", _MEND)


def _seconds(path: Path, rows: Rows) -> Any:
    texts = rows.frame["timestamp"]
    seconds, is_time = whole_seconds(texts, "s")
    bad = np.flatnonzero(~is_time | (seconds < 0))
    if len(bad):
        rule = "must be a number of seconds >= 0"
        raise DataError(f"{path} line {rows.lines[bad[0]]}: timestamp", rule, clipped(texts[int(bad[0])]), _MEND)
    return seconds
