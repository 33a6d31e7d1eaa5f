"""RecBole atomic files, `NAME.inter` and `NAME.item`: tab separated with a `name:type` header, plain or compressed.

Quotes are ordinary characters. A byte-order mark, CRLF line ends and a missing last newline are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl

from athwe_core.data.readers.delimited import RowBlock, open_blocks, split_rows
from athwe_core.data.readers.header import Dialect, split_header
from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.lines import first_lines
from athwe_core.data.readers.lists import find_lists, quoted_names
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import ItemTable, Records, RecordsBuilder
from athwe_core.data.readers.text_cleaning import join_names
from athwe_core.data.readers.times import YEAR_5138, whole_seconds
from athwe_core.errors import DataError
from athwe_core.messages import clipped, listed

COLUMN_TYPES = ("token", "token_seq", "float", "float_seq")
ID_COLUMNS = ("user_id", "item_id")
LIST_COLUMN = "item_id_list"
DIALECT = Dialect("\t", has_quotes=False)
_REPAIR = "Repair or remove that line"


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


def read_atomic(
    inters: Sequence[Path],
    item: Path | None,
    reading: Reading,
    *,
    has_parts: bool = False,
    max_missing_ids: float = 1.0,
) -> Records:
    """Read interactions and, where there is one, the item table.

    Args:
        inters: Atomic files of interactions, in the order of reading.
        item: Atomic file of items.
        reading: Gets progress and counts.
        has_parts: The files are the training, validation and test part of a given split, in this order.
        max_missing_ids: Largest share of rows, in [0, 1], whose user or item may be a placeholder (nan, null, -1 ...).
    Returns:
        The interactions in file order. Times are floored to whole seconds, exactly (they never pass through a float).
    Raises:
        DataError: A file is unreadable or empty; a column is missing; a row has another number of fields than the
            header, an empty id, or a time that is not a number >= 0; a file holds histories (`item_id_list`) in place of
            interactions; or see `RecordsBuilder.build`.
    """
    builder, notes = RecordsBuilder(), []
    for part, inter in enumerate(inters):
        _refuse_sequences(inter)
        latest = -1
        for rows, _ in read_parts(inter, (*ID_COLUMNS, "timestamp"), reading):
            _refuse_empty(inter, rows, ID_COLUMNS)
            seconds = _seconds(inter, rows)
            builder.add(rows.frame["user_id"], rows.frame["item_id"], seconds, part=part)
            latest = max(latest, int(seconds.max()))
        if latest < 0 and len(inters) == 1:
            raise _no_rows(inter)
        reading.finish(inter)
        if latest > YEAR_5138:
            remedy = f"read it as a table: --raw {inter} --source table"
            notes.append(f"{inter.name}: times reach {latest}: milliseconds? Seconds are expected; else {remedy}")
    items, item_notes, is_rewritten = _read_items(item, inters[0], reading)
    records = builder.build(
        reading.counts(inters),
        place=str(inters[0]),
        items=items,
        notes=(*notes, *item_notes),
        max_missing_ids=max_missing_ids,
        has_parts=has_parts,
    )
    return replace(records, is_rewritten=records.is_rewritten or is_rewritten)


def _read_items(path: Path | None, inter: Path, reading: Reading) -> tuple[ItemTable | None, list[str], bool]:
    """The item table, what the user should know, and whether a cell was not read as older versions read it."""
    if path is None:
        name = inter.name.removesuffix(".gz").removesuffix(".inter")
        return None, [f"no {name}.item or {name}.item.gz: no item text, no categories"], False
    table = read_table(path, required=("item_id",), reading=reading)
    clean = clean_ids(table.frame["item_id"], "item", str(path))
    is_kept = ~clean.is_placeholder & clean.texts.is_first_distinct()
    frame = table.frame.with_columns(clean.texts.alias("item_id")).filter(is_kept)
    num_missing = int(clean.is_placeholder.sum())
    repeated = len(table.frame) - num_missing - len(frame)
    notes = [f"{path.name}: {repeated} rows repeat an item; the first row of each item counts"] if repeated else []
    notes += [f"{path.name}: {num_missing} rows have no item id and were dropped"] if num_missing else []
    types = dict(table.types)
    for name, kind in table.types.items():
        if kind == "token_seq" and (lists := find_lists(frame[name], "")) and lists.split is quoted_names:
            names = [join_names(quoted_names(text)) for text in frame[name]]  # RecBole's converters write them so
            frame, types[name] = frame.with_columns(pl.Series(name, names, dtype=pl.String)), "name_seq"
            notes.append(f"{path.name}: column {name} holds {lists.form}")
    columns = ["item_id", *(column for column in frame.columns if column != "item_id")]
    is_rewritten = num_missing > 0 or clean.is_rewritten.any() or types != table.types
    return ItemTable(frame.select(columns), types, path.name), notes, is_rewritten


def read_table(path: Path, *, required: tuple[str, ...], reading: Reading | None = None) -> AtomicTable:
    """Read one atomic file whole.

    Args:
        path: The file, plain or compressed by its first bytes, whatever its name.
        required: Columns that must be there; ids among them must not be empty.
        reading: Gets progress and counts.
    Raises:
        DataError: See `read_atomic`; messages carry the file and the line, counted from 1 with the header.
    """
    parts = list(read_parts(path, required, reading or Reading([path])))
    if not parts:
        raise _no_rows(path)
    for rows, _ in parts:
        _refuse_empty(path, rows, tuple(column for column in required if column in ID_COLUMNS))
    return AtomicTable(path, pl.concat([rows.frame for rows, _ in parts]), parts[0][1])


def read_parts(path: Path, required: tuple[str, ...], reading: Reading) -> Iterator[tuple[RowBlock, dict[str, str]]]:
    """Yield the rows of an atomic file in blocks, each with the types of the columns. Raises DataError, see `read_table`."""

    def refuse(line: int, rule: str, value: object, *, num_lines: int = 1) -> NoReturn:
        raise DataError(f"{path} line {line}", rule, value, _REPAIR)

    header, found = open_blocks(path, reading)
    types = _parse_header(path, header, required)
    for rows in split_rows(found, list(types), DIALECT, path=path, reading=reading, on_bad=refuse):
        yield rows, types


def is_typed(path: Path) -> bool:
    """Whether the first line of a file names a column as `name:type`. Raises DataError, see `first_lines`."""
    lines = first_lines(path)
    return bool(lines) and re.search(r":(token|float)(_seq)?(\t|$)", lines[0].decode("utf-8", "replace")) is not None


def _parse_header(path: Path, header: str, required: tuple[str, ...]) -> dict[str, str]:
    types: dict[str, str] = {}
    for column in split_header(path, header, DIALECT):
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


def _refuse_sequences(path: Path) -> None:
    """Refuse a file whose rows are histories with a target: RecBole's augmented form, often without times."""
    lines = first_lines(path)
    if lines and LIST_COLUMN.encode() in re.split(rb"[:\t]", lines[0]):
        rule = f"must hold one interaction a row, and its rows are histories ({LIST_COLUMN})"
        remedy = "Name the file of interactions that they were made from: --raw FILE"
        raise DataError(f"{path} line 1", rule, remedy=remedy)


def _no_rows(path: Path) -> DataError:
    return DataError(str(path), "has a header but no rows", remedy="Is the file complete?")


def _refuse_empty(path: Path, rows: RowBlock, columns: tuple[str, ...]) -> None:
    for column in columns:
        empty = (rows.frame[column] == "").arg_true()
        if len(empty):
            raise DataError(f"{path} line {rows.lines[empty[0]]}: {column}", "must not be empty", "", _REPAIR)


def _seconds(path: Path, rows: RowBlock) -> Any:
    texts = rows.frame["timestamp"]
    seconds, is_time = whole_seconds(texts, "s")
    bad = np.flatnonzero(~is_time | (seconds < 0))
    if len(bad):
        rule = "must be a number of seconds >= 0"
        raise DataError(f"{path} line {rows.lines[bad[0]]}: timestamp", rule, clipped(texts[int(bad[0])]), _REPAIR)
    return seconds
