"""Histories to recommend for: those of a prepared data set, or of a table with rows of interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.reading import ByteProgress, Reading, ignore
from athwe_core.data.readers.records import Records
from athwe_core.data.readers.user_table import TableFiles, read_tables
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError
from athwe_core.messages import listed, reason

COLUMNS = ("user_id", "item_id", "timestamp")
LATEST = 253_402_300_799
"""Unix seconds of the end of the year 9999. A larger number is in another unit, such as milliseconds."""


class NumberedItems(Protocol):
    """A catalogue: its name, and the raw id of each item number; number 0 is the padding."""

    @property
    def name(self) -> str:
        """Of the data set."""
        ...

    @property
    def item_tokens(self) -> list[str]:
        """Raw ids by item number."""
        ...


@dataclass(frozen=True, eq=False)
class Histories:
    """Interactions of U users in CSR form, each user's in time order, at least one for each user.

    Attributes:
        user_ids: raw ids.
        offsets: (U + 1,) int64; user u has the interactions `offsets[u]:offsets[u + 1]`.
        item_ids: (I,) int32 internal ids, 1..num_items.
        timestamps: (I,) int64 unix seconds.
    """

    user_ids: list[str]
    offsets: Int64[np.ndarray, "U_plus_1"]
    item_ids: Int32[np.ndarray, "I"]
    timestamps: Int64[np.ndarray, "I"]

    def part(self, first: int, end: int) -> Histories:
        """The users `first..end-1`; their interactions are not copied."""
        span = slice(self.offsets[first], self.offsets[end])
        offsets = np.asarray(self.offsets[first : end + 1]) - self.offsets[first]
        return Histories(self.user_ids[first:end], offsets, self.item_ids[span], self.timestamps[span])


@dataclass(frozen=True)
class LeftOut:
    """Interactions whose items a catalogue does not have, and the users who have no others."""

    rows: int
    of_rows: int
    users: int
    of_users: int
    example: str
    """Raw id of an item that is not in the catalogue; empty where nothing is left out."""

    def sentence(self, name: str) -> str:
        """One line for the user."""
        rows = f"{self.rows:,} of {self.of_rows:,} rows ({self.rows / self.of_rows:.1%})"
        users = f"{self.users:,} of {self.of_users:,} users ({self.users / self.of_users:.1%}) have no other rows"
        return f"{rows} have items that are not in data set {name} and were left out, such as {self.example}; {users}"


def histories_of_users(data: PreparedDataset, users: Sequence[str] | None = None) -> Histories:
    """Whole histories of users of a data set, held-out items included.

    Args:
        data: the data set.
        users: raw ids; None = all users.
    Returns: the histories in the order of `users`.
    Raises: DataError for users that are not in the data set, with the first one and their number.
    """
    if users is None:
        return Histories(data.user_tokens, data.offsets, data.item_ids, data.timestamps)
    if isinstance(users, str):
        raise DataError("users", "must be a list of user ids, not one text", users, f"Write users=[{users!r}]")
    wanted = [str(user) for user in users]
    number = {token: index for index, token in enumerate(data.user_tokens)}
    unknown = [user for user in wanted if user not in number]
    if unknown:
        rule = f"must be in data set {data.name}, {len(unknown)} of {len(wanted)} are not"
        raise DataError("users", rule, unknown[0], "Pass the interactions of new users as histories")
    chosen = np.array([number[user] for user in wanted], np.int64)
    begin, count = data.offsets[chosen], np.diff(data.offsets)[chosen]
    offsets = np.concatenate([[0], np.cumsum(count)])
    source = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], count)
    return Histories(wanted, offsets, data.item_ids[source], data.timestamps[source])


def histories_of_rows(data: NumberedItems, rows: object) -> Histories:
    """Histories of any users over the items of a data set, such as users who came after it was prepared.

    Args:
        data: the data set whose items occur.
        rows: a polars frame, or what `polars.DataFrame` reads (rows or columns as dictionaries, a pandas frame), with the
            columns `user_id` and `item_id` (raw ids) and `timestamp` (unix seconds >= 0; fractions are cut off), one row for
            each interaction, in any order. Other columns are not read. Rows of a user with equal times keep their order.
    Returns: the histories, users by first row.
    Raises: DataError for a missing column, a missing or malformed value, or an unknown item.
    """
    frame = _frame(rows)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        rule = f"must have the columns {', '.join(COLUMNS)}"
        raise DataError("histories", rule, listed(frame.columns), f"Add {' and '.join(missing)}")
    frame = pl.DataFrame([_ids(frame["user_id"]), _ids(frame["item_id"]), _seconds(frame["timestamp"])])
    users = frame["user_id"].unique(maintain_order=True)
    numbers = item_numbers(data, frame["item_id"])
    unknown = frame["item_id"].filter(numbers.is_null())
    if len(unknown):
        rule = f"must hold items of data set {data.name}, {len(unknown)} of {len(frame)} rows do not"
        raise DataError("histories: item_id", rule, unknown[0], "Remove these rows, or prepare data with these items")
    position = frame.join(users.to_frame().with_row_index("user"), on="user_id", how="left", maintain_order="left")
    return _in_order(users, position["user"].to_numpy(), numbers.to_numpy(), frame["timestamp"].to_numpy())


def histories_of_records(data: NumberedItems, records: Records) -> tuple[Histories, LeftOut]:
    """Histories of the users of a table over the items of a data set; rows with other items are left out.

    Args:
        data: the data set whose items count.
        records: what a reader found. Rows of a user with equal times keep their order.
    Returns: the histories, users by first row with a known item, and what was left out.
    """
    numbers = item_numbers(data, records.item_tokens.names)
    is_known = numbers.is_not_null().to_numpy()[records.item_tokens.numbers]
    rows = np.flatnonzero(is_known)
    kept = records.user_tokens.take(rows)
    example = "" if len(rows) == len(records) else str(records.item_tokens.names.filter(numbers.is_null())[0])
    num_users = len(records.user_tokens.names)
    left_out = LeftOut(len(records) - len(rows), len(records), num_users - len(kept.names), num_users, example)
    items = numbers.fill_null(0).to_numpy()[records.item_tokens.numbers[rows]]
    return _in_order(kept.names, kept.numbers, items, records.timestamps[rows]), left_out


def read_histories(
    data: NumberedItems, path: Path, options: PrepareOptions, *, progress: ByteProgress = ignore
) -> tuple[Histories, list[str]]:
    """Histories in a file over the items of a data set; rows with other items are left out.

    Args:
        data: the data set whose items count.
        path: a table with a user, an item and a time in each row, in any format that `prepare` reads.
        options: names of columns and the time unit; what is not named is detected. Split and filter do not count.
        progress: called with the bytes read so far and in all.
    Returns: the histories, and one sentence for each thing the user should know.
    Raises: DataError where the file cannot be read, or has no item of the data set.
    """
    if not path.is_file():
        raise DataError(str(path), "must be a file that exists", remedy="Check the path")
    records = read_tables(TableFiles([path]), options, Reading([path], options.max_bad_lines, progress))
    histories, left_out = histories_of_records(data, records)
    if not histories.user_ids:
        rule = f"must have items of data set {data.name}, and none of its {len(records):,} rows has"
        raise DataError(str(path), rule, left_out.example)
    return histories, [*records.notes, *([left_out.sentence(data.name)] if left_out.rows else [])]


def item_numbers(data: NumberedItems, ids: pl.Series) -> pl.Series:
    """Item number of each raw id; null where the data set has no such item."""
    known = pl.DataFrame({"id": pl.Series(data.item_tokens, dtype=pl.String)}).with_row_index("number").slice(1)
    return ids.rename("id").to_frame().join(known, on="id", how="left", maintain_order="left")["number"]


def _in_order(
    users: pl.Series,
    user: Int64[np.ndarray, "I"] | Int32[np.ndarray, "I"],
    items: Int64[np.ndarray, "I"],
    times: Int64[np.ndarray, "I"],
) -> Histories:
    """Histories of rows in any order; `user` has the position of each row's user in `users`."""
    order = np.lexsort((times, user))  # stable
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    return Histories(users.to_list(), offsets, items.astype(np.int32)[order], times[order])


def _frame(rows: object) -> pl.DataFrame:
    if isinstance(rows, pl.DataFrame):
        return rows
    try:
        return pl.DataFrame(rows, infer_schema_length=None)  # type: ignore[arg-type]  # checked there
    except Exception as error:  # polars raises many kinds
        rule = f"must be a polars frame, or what polars.DataFrame can read ({reason(error)})"
        raise DataError("histories", rule, type(rows).__name__) from None


def _ids(column: pl.Series) -> pl.Series:
    """Raw ids as text."""
    _refuse_missing(column)
    is_id = column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) or column.dtype.is_integer()
    if not is_id:
        raise DataError(f"histories: {column.name}", "must be text or whole numbers", str(column.dtype))
    return column.cast(pl.String)


def _seconds(column: pl.Series) -> pl.Series:
    """Unix seconds as int64."""
    _refuse_missing(column)
    name, remedy = f"histories: {column.name}", 'Polars dates become seconds with .dt.epoch("s")'
    if not (column.dtype.is_numeric() or column.dtype == pl.Null):
        raise DataError(name, "must be unix seconds", str(column.dtype), remedy)
    column = column.cast(pl.Int64) if column.dtype == pl.Null else column
    wrong = column.filter(~column.is_between(0, LATEST))
    if len(wrong):
        rule = f"must be unix seconds in 0..{LATEST}, {len(wrong)} of {len(column)} rows are not"
        raise DataError(name, rule, wrong[0], "Divide milliseconds by 1000")
    return column.cast(pl.Int64)


def _refuse_missing(column: pl.Series) -> None:
    if column.null_count():
        rule = f"must have no missing values, row {column.is_null().arg_max()} of {len(column)} has none"
        raise DataError(f"histories: {column.name}", rule, remedy="Remove the rows without a value")
