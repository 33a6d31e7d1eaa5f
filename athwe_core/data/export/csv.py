"""Plain CSV: the interactions with their part of the split, the items, and features beside the order of their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.features.row_order import ORDER_FILE
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.table_file import Table
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError

COLUMNS = ("user_id", "item_id", "timestamp", "split")
_ROWS_AT_ONCE = 1_000_000


def write_csv(prepared: PreparedDataset, folder: Path) -> tuple[Int64[np.ndarray, "V"], list[str]]:
    """Write `NAME.csv`, `NAME.items.csv` and the order of the feature rows, and read the interactions back.

    The rows are in the order of the source, so that preparing them with the same options gives the same arrays; a version
    from before that order was kept is written by user and time. `split` is train, valid, test, or nothing for a row that
    is none of them.

    Returns:
        (V,) internal ids in the order of the feature rows, 0 first; and what the user should know.
    Raises:
        DataError: A file differs from what was written, as with an id that holds a carriage return.
    """
    users, items = pl.Series(prepared.user_tokens), pl.Series(prepared.item_tokens)
    rows = _source_order(prepared)
    user_of_row = np.repeat(np.arange(prepared.num_users), np.diff(prepared.offsets))
    parts = _parts(prepared)
    path = folder / f"{prepared.name}.csv"
    with path.open("wb") as file:
        file.write((",".join(COLUMNS) + "\n").encode())
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            chosen = rows[begin : begin + _ROWS_AT_ONCE]
            values = (users.gather(user_of_row[chosen]), items.gather(prepared.item_ids[chosen]))
            columns = (*values, prepared.timestamps[chosen], parts.gather(chosen))
            pl.DataFrame(dict(zip(COLUMNS, columns, strict=True))).write_csv(file, include_header=False)
    _check(prepared, path, rows, user_of_row, parts)
    prepared.item_table()[1:].write_csv(folder / f"{prepared.name}.items.csv")
    (folder / ORDER_FILE).write_text("\n".join(prepared.item_tokens[1:]) + "\n", encoding="utf-8")
    notes = []
    if prepared.file_rows is None:
        notes.append("this version does not know the order of its source: rows are by user and time; prepare it again")
    return np.arange(prepared.num_item_rows), notes


def _source_order(prepared: PreparedDataset) -> Int64[np.ndarray, "I"]:
    if prepared.file_rows is None:
        return np.arange(len(prepared.item_ids))
    return np.argsort(prepared.file_rows)


def _parts(prepared: PreparedDataset) -> pl.Series:
    """Part of the split of each row."""
    split = prepared.split
    number = np.zeros(len(prepared.item_ids), dtype=np.uint32)
    number[split.is_training(len(number))] = 1
    for value, name in enumerate(("validation", "test"), start=2):
        number[split.held_out(name)[split.users(name)]] = value
    return pl.Series(["", "train", "valid", "test"]).gather(number)


def _check(
    prepared: PreparedDataset,
    path: Path,
    order: Int64[np.ndarray, "I"],
    user_of_row: Int64[np.ndarray, "I"],
    parts: pl.Series,
) -> None:
    users, items = pl.Series(prepared.user_tokens), pl.Series(prepared.item_tokens)
    done = 0
    for rows in Table(path, Reading([path])).rows(COLUMNS):
        chosen = order[done : done + len(rows.frame)]
        done += len(rows.frame)
        expected = (users.gather(user_of_row[chosen]), items.gather(prepared.item_ids[chosen]))
        same = all((rows.frame[name] == wanted).all() for name, wanted in zip(COLUMNS, expected, strict=False))
        same = same and (rows.frame["split"] == parts.gather(chosen)).all()
        if not same or not np.array_equal(rows.frame["timestamp"].cast(pl.Int64), prepared.timestamps[chosen]):
            where, rule = f"{path.name} line {rows.lines[0]} and on", "does not hold what was written to it"
            raise DataError(where, rule, remedy="Is the disk full?")
    if done != len(order):
        raise DataError(path.name, f"must have {len(order)} rows", done, "Is the disk full?")
