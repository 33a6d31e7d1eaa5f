"""Tables that users have: CSV, TSV, parquet and JSON lines; columns and time unit named, or guessed and said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.delimited import Rows
from athwe_core.data.readers.lines import Reading
from athwe_core.data.readers.records import ItemTable, Records, RecordsBuilder, are_ids
from athwe_core.data.readers.table_file import BAR, Table
from athwe_core.data.readers.text_cleaning import clean_text, join_names
from athwe_core.data.readers.times import whole_seconds
from athwe_core.errors import DataError
from athwe_core.messages import brief, clipped, listed

ITEM_NAMES = (
    *("itemid", "item", "iid", "productid", "product", "parentasin", "asin", "movieid", "sku", "articleid", "trackid"),
    *("songid", "bookid", "isbn", "gameid", "appid", "businessid", "newsid", "videoid", "goodsid"),
)
GUESSES = {
    "user": (
        *("userid", "user", "uid", "customerid", "customer", "visitorid", "reviewerid", "accountid", "memberid"),
        *("clientid", "profileid", "sessionid"),
    ),
    "item": ITEM_NAMES,
    "item id": (*ITEM_NAMES, "id"),  # of a table of items; elsewhere `id` is a row's
    "time": (
        *("timestamp", "time", "ts", "unixtime", "unixreviewtime", "unixtimestamp", "datetime", "date", "eventtime"),
        *("createdat", "createdtime", "tdat", "reviewtime"),
    ),
}
"""Column names, small letters and digits only, by how likely they are meant."""
_LIST_SHARE = 0.2  # of the cells that are not empty
_AS_THEY_ARE = re.compile(r"url|image|path|file|link", re.IGNORECASE)  # columns whose text is no prose


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what; `unit` of `whole_seconds`."""

    user: str
    item: str
    time: str
    unit: str


def read_tables(paths: Sequence[Path], item_file: Path | None, options: PrepareOptions, reading: Reading) -> Records:
    """Read one interaction table in one or more files of the same columns.

    Args:
        paths: Of any format each; compressed text by its first bytes.
        item_file: A table of items; its id column is named like the one of the interactions, or guessed.
        options: Names of columns and the time unit; None and `auto` are guessed.
        reading: Told how far it is and of rows left out: unreadable ones, and those without user, item or time.
    Returns:
        The records; their notes say what was guessed.
    Raises:
        DataError: A named column does not exist, none can be guessed, or a time is negative (its row is named).
    """
    builder, guesses = RecordsBuilder(), []
    for path in paths:
        table = Table(path, reading)
        chosen, guess = _choose(table, options)
        guesses += [guess] if guess else []
        for rows in table.rows((chosen.user, chosen.item, chosen.time)):
            _add(builder, path, rows, chosen, reading)
        reading.finish(path)
    items = None
    if item_file is not None:
        items, guess = read_item_table(Table(item_file, reading), options.item_column or chosen.item)
        guesses += [guess] if guess else []
        reading.finish(item_file)
    records = builder.build(items, [*guesses, *reading.notes])
    if not len(records):
        raise DataError(str(paths[0]), "has no rows", remedy="Is the file complete?")
    return records


def _add(builder: RecordsBuilder, path: Path, rows: Rows, chosen: Columns, reading: Reading) -> None:
    seconds, is_time = whole_seconds(rows.frame[chosen.time], chosen.unit)
    is_whole = pl.Series(is_time)
    for column in (chosen.user, chosen.item):
        is_whole &= are_ids(rows.frame[column])
    for row in (~is_whole).arg_true().to_list():
        found = dict(zip(rows.frame.columns, rows.frame.row(row), strict=True))
        reading.bad_line(
            path, int(rows.lines[row]), f"must have a user, an item and a time ({chosen.unit})", str(found)
        )
    kept, mask = rows.keep(is_whole), is_whole.to_numpy()
    negative = np.flatnonzero(seconds[mask] < 0)
    if len(negative):
        row = int(negative[0])
        found = kept.frame[chosen.time][row]
        where, remedy = f"{path} line {kept.lines[row]}: {brief(chosen.time)}", "Mend or remove that line"
        raise DataError(where, "must not be before 1970", clipped(found), remedy)
    builder.add(kept.frame[chosen.user], kept.frame[chosen.item], seconds[mask])


def _choose(table: Table, options: PrepareOptions) -> tuple[Columns, str]:
    """The columns and unit to read, and a sentence about what was guessed; empty where all was named."""
    given = {"user": options.user_column, "item": options.item_column, "time": options.time_column}
    found = {role: _column(table, name, role) for role, name in given.items()}
    unit = table.unit(found["time"], options.time_unit)
    if unit is None:
        sample = [cell and clipped(cell) for cell in table.sample(found["time"]).to_list()[:3]]
        rule = "must hold times: seconds, milliseconds or microseconds since 1970, or ISO dates"
        raise DataError(f"{table.path}: column {brief(found['time'])}", rule, sample, "Name another with time_column")
    chosen = Columns(found["user"], found["item"], found["time"], unit)
    if None not in given.values() and options.time_unit != "auto":
        return chosen, ""
    how = f"users {chosen.user}, items {chosen.item}, times {chosen.time} in {unit}"
    return chosen, f"{table.path.name}: {how} (guessed where not named)"


def _column(table: Table, given: str | None, role: str) -> str:
    if given is not None:
        if given not in table.columns:
            rule = f"has no column {given}; its columns are {listed(table.columns)}"
            raise DataError(table.header_place, rule, remedy=f"Name another with {role.split(maxsplit=1)[0]}_column")
        return given
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(table.columns)}
    found = next((plain[guess] for guess in GUESSES[role] if guess in plain), None)
    if found is None:
        rule = f"has no column that is surely the {role}; its columns are {listed(table.columns)}"
        raise DataError(table.header_place, rule, remedy=f"Name it with {role.split(maxsplit=1)[0]}_column")
    return found


def read_item_table(table: Table, item_column: str) -> tuple[ItemTable, str]:
    """Read a table of items whole; its texts are cleaned, and cells that list names become `name_seq`.

    Args:
        table: One row an item; of several rows of one item the first counts.
        item_column: Column with the raw id; guessed where the table lacks it.
    Returns:
        The table, and a sentence about a guess, empty without one.
    """
    named = item_column if item_column in table.columns else None
    column = _column(table, named, "item id")
    guess = "" if named else f"{table.path.name}: items {column} (guessed)"
    frames = [rows.frame for rows in table.rows(table.columns)]
    if not frames:
        raise DataError(str(table.path), "has no rows", remedy="Is the file complete? Without items, leave it out")
    frame = pl.concat(frames)
    frame = frame.filter(are_ids(frame[column])).unique(column, keep="first", maintain_order=True)
    values, types = {"item_id": frame[column]}, {"item_id": "token"}
    for name in table.columns:
        if name not in (column, "item_id"):
            values[name], types[name] = _item_values(frame[name].fill_null(""), name)
    return ItemTable(pl.DataFrame(values), types, table.path.name), guess


def _item_values(texts: pl.Series, name: str) -> tuple[pl.Series, str]:
    """One column as clean text, and its type: `name_seq` where its cells list names, as `[..]` of JSON or with bars."""
    if _AS_THEY_ARE.search(name):
        return texts, "token"
    split = _how_to_split(texts.filter(texts != ""))
    if split is None:
        return pl.Series([clean_text(text) for text in texts.to_list()], dtype=pl.String), "token"
    return pl.Series([join_names(split(text)) for text in texts.to_list()], dtype=pl.String), "name_seq"


def _how_to_split(cells: pl.Series) -> Callable[[str], list[str]] | None:
    """How the cells of a column list names; None where they do not."""
    for pattern, split in ((r"^\[.*\]$", _json_names), (r"\|", _bar_names)):
        if int(cells.str.contains(pattern).sum()) > _LIST_SHARE * len(cells):
            return split
    return None


def _json_names(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [str(name) for name in found if name is not None] if isinstance(found, list) else [text]


def _bar_names(text: str) -> list[str]:
    return text.split(BAR)
