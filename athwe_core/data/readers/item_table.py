"""A table of items of any format as clean text: ids in one spelling, lists in cells found, columns known by their names."""

from __future__ import annotations

import re
from collections.abc import Collection

import polars as pl

from athwe_core.data.readers.columns import ITEM_ROLES, find_columns
from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.lists import doubtful_lists, find_lists
from athwe_core.data.readers.records import ItemTable, are_ids
from athwe_core.data.readers.table_file import Table
from athwe_core.data.readers.text_cleaning import clean_text, join_names
from athwe_core.errors import DataError

_AS_THEY_ARE = re.compile(r"url|image|path|file|link|poster|picture|thumbnail", re.IGNORECASE)  # whose text is no prose


def read_item_table(table: Table, item_column: str, named: Collection[str] = ()) -> tuple[ItemTable, list[str]]:
    """Read a table of items whole; its texts are cleaned, and cells that list names become `name_seq`.

    Args:
        table: One row an item; of several rows of one item the first counts.
        item_column: Column with the raw id.
        named: Columns that options name: they keep their names. Others that are known by their names are called `title`,
            `categories`, `brand`, `description` and `image_url`.
    Returns:
        The table, and one sentence for each thing the user should know.
    Raises:
        DataError: It has no rows, or see `Table`.
    """
    frames = [rows.frame for rows in table.rows(table.columns)]
    if not frames or not sum(map(len, frames)):
        raise DataError(str(table.path), "has no rows", remedy="Is the file complete? Without items, leave it out")
    frame = pl.concat(frames)
    frame = frame.filter(are_ids(frame[item_column]))
    clean = clean_ids(frame[item_column].fill_null(""), "item", str(table.path))
    is_kept = ~clean.is_placeholder & clean.texts.is_first_distinct()
    frame, ids = frame.filter(is_kept), clean.texts.filter(is_kept)
    num_missing, notes = int(clean.is_placeholder.sum()), []
    num_repeated = len(clean.texts) - num_missing - len(ids)
    if num_missing:
        notes.append(f"{table.path.name}: {num_missing} rows have no item id and were dropped")
    if num_repeated:
        notes.append(f"{table.path.name}: {num_repeated} rows repeat an item; the first row of each item counts")
    roles = _roles(table.columns, {item_column, "item_id", *named})
    values, types, used = {"item_id": ids}, {"item_id": "token"}, []
    for name in table.columns:
        if name in (item_column, "item_id"):
            continue
        called = roles.get(name, name)
        values[called], types[called], note = _cleaned(frame[name].fill_null(""), called, name)
        used += [f"{called} {name}" if called != name else name] if called in ITEM_ROLES or name in named else []
        notes += [f"{table.path.name}: {note}"] if note else []
    ignored = [name for name in table.columns if name not in (item_column, "item_id", *roles, *named)]
    found = f"{table.path.name}: items {item_column}{''.join(f', {name}' for name in used)}"
    notes.insert(0, found + (f"; ignored: {', '.join(ignored[:20])}" if ignored else ""))
    return ItemTable(pl.DataFrame(values), types, table.path.name), notes


def _roles(columns: list[str], taken: set[str]) -> dict[str, str]:
    """Column -> the role it is called after."""
    found = {}
    for role in ITEM_ROLES:
        likely = [name for name in find_columns(columns, role) if name not in taken]
        if likely and (role == likely[0] or role not in columns):
            found[likely[0]] = role
    return found


def _cleaned(texts: pl.Series, called: str, name: str) -> tuple[pl.Series, str, str]:
    """One column as clean text, its type, and a sentence about lists in its cells; empty without any."""
    if _AS_THEY_ARE.search(called):
        return texts.alias(called), "token", ""
    lists = find_lists(texts, name if called != "categories" else called)
    if lists is None:
        cleaned = pl.Series([clean_text(text) for text in texts.to_list()], dtype=pl.String)
        return cleaned, "token", doubtful_lists(cleaned, name if called != "categories" else called)
    names = pl.Series([join_names(lists.split(text)) for text in texts.to_list()], dtype=pl.String)
    distinct = {part for cell in names.unique() for part in cell.split(" | ") if part}
    return names, "name_seq", f"column {name} holds {lists.form}: {len(distinct):,} names"
