"""Records to filtered, numbered and ordered interactions, in numbers throughout: no text is held but the distinct ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int8, Int32, Int64

from athwe_core.data.filtering import first_occurrences, k_core, refuse_too_few
from athwe_core.data.options import PrepareOptions, SplitRule
from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.records import ItemTable, Records
from athwe_core.data.readers.times import EARLIEST, is_plausible, latest
from athwe_core.data.split import (
    GIVEN,
    GLOBAL_TIME,
    LEAVE_ONE_OUT,
    Split,
    given_split,
    global_time,
    leave_one_out,
    order_by_time,
    user_offsets,
)
from athwe_core.errors import ConfigError, DataError


@dataclass(frozen=True)
class Interactions:
    """Filtered interactions in user and time order, I rows of U users.

    Attributes:
        offsets: (U + 1,) rows of user u are `offsets[u]:offsets[u + 1]`.
        item_ids: (I,) internal ids, 1 = first item that appears in what is left of the source; 0 is the padding.
        timestamps: (I,) seconds.
        user_tokens: (U,) raw ids, in order of first appearance.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding's empty string. Items that are only kept in the
            catalogue come last.
        file_rows: (I,) place of each row in what is left of the source, in its own order.
        split, split_rule: What the rows are for, and by which rule.
        notes: What the user should know, one sentence each.
        counts: What became of the rows of the files, reason by reason; None where there is no file.
    """

    offsets: Int64[np.ndarray, "U_plus_1"]
    item_ids: Int32[np.ndarray, "I"]
    timestamps: Int64[np.ndarray, "I"]
    user_tokens: pl.Series
    item_tokens: list[str]
    file_rows: Int64[np.ndarray, "I"]
    split: Split
    split_rule: SplitRule
    notes: tuple[str, ...]
    counts: RowCounts | None = None

    def arrays(self) -> dict[str, Any]:
        """The arrays of a prepared data set, by name."""
        found = {
            "offsets": self.offsets,
            "item_ids": self.item_ids,
            "timestamps": self.timestamps,
            "file_rows": self.file_rows,
        }
        if self.split_rule == LEAVE_ONE_OUT:
            return found
        split = {"training_ends": self.split.training_end, "validation_rows": self.split.validation}
        return {**found, **split, "test_rows": self.split.test}


def number_and_order(records: Records, name: str, options: PrepareOptions) -> Interactions:
    """Filter, number users and items by first appearance in what is left, order by user and time.

    A given split is not filtered: it stays what its makers made it.

    Args:
        records: What a reader found.
        name: Of the data set, for messages.
        options: Filter, tie order and split.
    Returns:
        The interactions; their notes and counts tell what became of each row.
    Raises:
        DataError: Too few users or items are left, or a given split is not in the order of time.
        ConfigError: The split leaves no evaluation target, or items are to be kept and no table has them.
    """
    users, items, timestamps = records.user_tokens.numbers, records.item_tokens.numbers, records.timestamps
    has_parts = records.parts is not None and options.split in ("auto", GIVEN)
    is_first = first_occurrences(users, items, timestamps)
    rows = np.flatnonzero(is_first)
    num_first = len(rows)
    minimum = 1 if has_parts else options.min_interactions
    rows = rows[k_core(users[rows], items[rows], minimum=minimum)]
    kept_users, kept_items, times = records.user_tokens.take(rows), records.item_tokens.take(rows), timestamps[rows]
    parts = records.parts[rows] if has_parts and records.parts is not None else None
    num_users, item_names = len(kept_users.names), kept_items.names.to_list()
    refuse_too_few(num_users, len(item_names), name=name, minimum=minimum)
    order = order_by_time(
        kept_users.numbers,
        item_names,
        kept_items.numbers,
        times,
        tie_order=options.tie_order,
        seed=options.seed,
        parts=parts,
    )
    notes = list(records.notes)
    if num_repeated := len(records) - num_first:
        notes.append(f"{num_repeated} repeated rows (same user, item and time) were removed")
    if num_few := num_first - len(rows):
        lost = [
            f"{before - after:,} of {before:,} {what} ({(before - after) / before:.1%})"
            for what, before, after in (
                ("users", len(records.user_tokens.names), num_users),
                ("items", len(records.item_tokens.names), len(item_names)),
                ("rows", num_first, len(rows)),
            )
        ]
        notes.append(f"users and items with fewer than {minimum} interactions were removed: {', '.join(lost)}")
    if num_late := _count_late(kept_users.numbers, times):
        notes.append(f"{num_late} rows came after a later one of the same user in the file: sorted by time")
    notes += _doubtful_times(times)
    counts = records.counts
    if counts is not None:
        counts = counts.without("were repeated", num_repeated)
        counts = counts.without(f"were of users or items with fewer than {minimum} interactions", num_few)
    others = _kept_items(records.items, item_names) if options.keep_items else []
    if others:
        notes.append(f"{len(others):,} further items of {records.items.source} stay in the catalogue")  # type: ignore[union-attr]
    offsets, timestamps = user_offsets(kept_users.numbers, num_users), times[order]
    split, rule = _split(offsets, timestamps, parts[order] if parts is not None else None, options)
    return Interactions(
        offsets=offsets,
        item_ids=kept_items.numbers[order] + np.int32(1),
        timestamps=timestamps,
        user_tokens=kept_users.names,
        item_tokens=["", *item_names, *others],
        file_rows=order,
        split=split,
        split_rule=rule,
        notes=tuple(notes),
        counts=counts,
    )


def _kept_items(items: ItemTable | None, item_names: list[str]) -> list[str]:
    """Items of the table that are not among `item_names`, in the order of the table."""
    if items is None:
        raise ConfigError("--keep-items", "needs a table of items", remedy="Name one with --item-file, or leave it out")
    known = set(item_names)
    return [item for item in items.frame["item_id"].to_list() if item not in known]


def _split(
    offsets: Int64[np.ndarray, "U_plus_1"],
    timestamps: Int64[np.ndarray, "I"],
    parts: Int8[np.ndarray, "I"] | None,
    options: PrepareOptions,
) -> tuple[Split, SplitRule]:
    if parts is not None:
        _refuse_disorder(offsets, timestamps)
        return given_split(offsets, parts), "given"
    if options.split != GLOBAL_TIME:
        return leave_one_out(offsets), "leave-one-out"
    by_time = np.sort(timestamps)
    at = [by_time[int(len(by_time) * (1 - periods * options.held_out_share))] for periods in (2, 1)]
    return global_time(offsets, timestamps, validation_from=int(at[0]), test_from=int(at[1])), "global-time"


def _refuse_disorder(offsets: Int64[np.ndarray, "U_plus_1"], timestamps: Int64[np.ndarray, "I"]) -> None:
    """Refuse a given split where a part holds rows from before the part that comes before it."""
    is_back = np.diff(timestamps) < 0
    is_back[offsets[1:-1] - 1] = False
    count = int(np.count_nonzero(np.add.reduceat(np.append(is_back, False), offsets[:-1])))
    if count:
        rule = "must be in the order of time: training, validation, test of each user"
        remedy = "Split the files anew: --split leave-one-out"
        raise DataError("given split", rule, f"{count} of {len(offsets) - 1} users are not", remedy)


def _count_late(users: Int32[np.ndarray, "I"], timestamps: Int64[np.ndarray, "I"]) -> int:
    """Rows earlier than the row before of the same user, in file order."""
    by_user = np.argsort(users, kind="stable")
    is_same_user = np.diff(users[by_user]) == 0
    return int(np.count_nonzero(is_same_user & (np.diff(timestamps[by_user]) < 0)))


def _doubtful_times(timestamps: Int64[np.ndarray, "I"]) -> list[str]:
    """Questions about times that are all equal, or far from the others: they decide what comes first and last."""
    if timestamps.min() == timestamps.max():
        day = np.datetime64(int(timestamps[0]), "s")
        return [f"all rows have one time, {day}: the order of a user's items is the order of ties"]
    is_odd = (timestamps < EARLIEST) | (timestamps >= latest())
    if not is_plausible(float(np.median(timestamps))) or not is_odd.any():
        return []
    example = np.datetime64(int(timestamps[is_odd][0]), "s")
    count = int(np.count_nonzero(is_odd))
    return [
        f"{count:,} of {len(timestamps):,} rows have times before 1995 or after next year, e.g. {example}: is that right?"
    ]
