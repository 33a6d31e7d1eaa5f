"""RecBole atomic files, `NAME.inter` and `NAME.item`: tab separated with a `name:type` header, plain or gzip.

Quotes are ordinary characters. A byte-order mark, CRLF line ends and a missing last newline are accepted.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.records import ItemTable, Records
from athwe_core.errors import DataError

COLUMN_TYPES = ("token", "token_seq", "float", "float_seq")
_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_TIME = 2**63 - 1
_YEAR_5138 = 100_000_000_000  # seconds; a later time is milliseconds taken for seconds


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


def read_records(folder: Path, name: str) -> Records:
    """Read `NAME.inter` and, where there is one, `NAME.item` from `folder`.

    Returns:
        The interactions in file order. Times are floored to whole seconds, exactly (they never pass through a float).
    Raises:
        DataError: A file is missing, unreadable or empty; a column is missing; a row has another number of fields than
            the header, an empty id, or a time that is not a number >= 0.
    """
    path = find_atomic(folder, name, "inter")
    if path is None:
        raise DataError(
            f"data set {name!r}",
            f"has no interactions: looked for {name}.inter and {name}.inter.gz in {folder}",
            remedy="Put a RecBole atomic file with user_id, item_id and timestamp there",
        )
    table = read_table(path, required=("user_id", "item_id", "timestamp"))
    for column in ("user_id", "item_id"):
        _refuse_empty(table, column)
    timestamps = _whole_seconds(table, "timestamp")
    notes = []
    if timestamps.max() > _YEAR_5138:
        notes.append(f"{path.name}: times reach {timestamps.max()}: milliseconds? Seconds are expected")
    items, item_notes = _read_items(folder, name)
    frame = table.frame
    return Records(frame["user_id"], frame["item_id"], timestamps, items, (*notes, *item_notes))


def _read_items(folder: Path, name: str) -> tuple[ItemTable | None, list[str]]:
    path = find_atomic(folder, name, "item")
    if path is None:
        return None, [f"no {name}.item or {name}.item.gz: no item text, no categories"]
    table = read_table(path, required=("item_id",))
    _refuse_empty(table, "item_id")
    frame = table.frame.unique("item_id", keep="first", maintain_order=True)
    repeated = len(table.frame) - len(frame)
    notes = [f"{path.name}: {repeated} rows repeat an item; the first row of each item counts"] if repeated else []
    columns = ["item_id", *(column for column in frame.columns if column != "item_id")]
    return ItemTable(frame.select(columns), table.types, path.name), notes


def read_table(path: Path, *, required: tuple[str, ...]) -> AtomicTable:
    """Read one atomic file whole.

    Args:
        path: The file, gzip or plain by its first two bytes, whatever its name.
        required: Columns that must be there.
    Raises:
        DataError: See `read_records`; messages carry the file and the line, counted from 1 with the header.
    """
    lines = _read_lines(path)
    types = _parse_header(path, lines[0], required)
    rows = lines.slice(1)
    if rows.is_empty():
        raise DataError(str(path), "has a header but no rows")
    fields = rows.str.count_matches("\t", literal=True) + 1
    bad = _first(fields != len(types))
    if bad is not None:
        rule = f"must have {len(types)} tab-separated fields like the header"
        raise DataError(f"{path} line {bad + 2}", rule, fields[bad])
    frame = rows.str.split_exact("\t", len(types) - 1).struct.unnest()
    frame.columns = list(types)
    return AtomicTable(path, frame, types)


def _read_lines(path: Path) -> pl.Series:
    content = path.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(str(path), f"is not a complete gzip file ({error})", remedy="Fetch it again") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path} line {line}", "must be UTF-8 text", content[error.start : error.end]) from None
    text = text.rstrip("\r\n")
    if not text:
        raise DataError(str(path), "is empty", remedy="Expected a header such as user_id:token and rows below it")
    return pl.Series(text.split("\n")).str.strip_suffix("\r")


def _parse_header(path: Path, header: str, required: tuple[str, ...]) -> dict[str, str]:
    types: dict[str, str] = {}
    for column in header.split("\t"):
        name, _, kind = column.rpartition(":")
        if not name or kind not in COLUMN_TYPES:
            rule = f"must name each column as name:type with a type of {', '.join(COLUMN_TYPES)}"
            raise DataError(f"{path} line 1", rule, column)
        if name in types:
            raise DataError(f"{path} line 1", "must name each column once", name)
        types[name] = kind
    missing = [name for name in required if name not in types]
    if missing:
        raise DataError(str(path), f"has no column {', '.join(missing)}; its columns are {', '.join(types)}")
    return types


def _refuse_empty(table: AtomicTable, column: str) -> None:
    bad = _first(table.frame[column] == "")
    if bad is not None:
        raise DataError(f"{table.path} line {bad + 2}: {column}", "must not be empty", "")


def _whole_seconds(table: AtomicTable, column: str) -> Int64[np.ndarray, "I"]:
    """Floor decimal texts to int64 without a float in between: float32 would round 1.4e9 to steps of 128 s."""
    texts = table.frame[column]
    whole = texts.str.extract(r"^([0-9]{1,18})(?:\.[0-9]*)?$")
    odd = whole.is_null().arg_true().to_list()
    seconds = whole.cast(pl.Int64).fill_null(0).to_numpy().copy()
    for row in odd:  # signs, exponents, blanks: rare, so one at a time
        seconds[row] = _floor_one(table, column, row, texts[row])
    return seconds


def _floor_one(table: AtomicTable, column: str, row: int, text: str) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value <= _LARGEST_TIME:
        rule = "must be a number of seconds >= 0"
        raise DataError(f"{table.path} line {row + 2}: {column}", rule, text)
    return int(value)


def _first(is_bad: Any) -> int | None:
    rows = is_bad.arg_true()
    return int(rows[0]) if len(rows) else None
