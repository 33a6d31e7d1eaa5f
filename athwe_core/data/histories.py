"""Histories to recommend for: those of a prepared data set, or of a table with rows of interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64

from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError
from athwe_core.messages import listed, reason

COLUMNS = ("user_id", "item_id", "timestamp")
LATEST = 253_402_300_799
"""Unix seconds of the end of the year 9999. A larger number is in another unit, such as milliseconds."""


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


def histories_of_rows(data: PreparedDataset, rows: object) -> Histories:
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
    number = users.to_frame().with_row_index("user")
    items = pl.DataFrame({"item_id": data.item_tokens}).with_row_index("item").slice(1)
    found = frame.join(number, on="user_id", how="left", maintain_order="left")
    found = found.join(items, on="item_id", how="left", maintain_order="left")
    unknown = found.filter(pl.col("item").is_null())["item_id"]
    if len(unknown):
        rule = f"must hold items of data set {data.name}, {len(unknown)} of {len(found)} rows do not"
        raise DataError("histories: item_id", rule, unknown[0], "Remove these rows, or prepare data with these items")
    user, times = found["user"].to_numpy().astype(np.int64), found["timestamp"].to_numpy()
    order = np.lexsort((times, user))  # stable
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    return Histories(users.to_list(), offsets, found["item"].to_numpy().astype(np.int32)[order], times[order])


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
