"""Records to filtered, numbered and ordered interactions, in numbers throughout: no text is held but the distinct ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int8, Int32, Int64

from athwe_core.data.filtering import first_occurrences, k_core, refuse_too_few
from athwe_core.data.long_arrays import bound, count_numbers, lex_order, rows_by_user
from athwe_core.data.notes import Filtering, TimesKept, kept_in_catalogue, plausible_times, refuse_disorder
from athwe_core.data.options import PrepareOptions, SplitRule
from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.records import ItemTable, Records
from athwe_core.data.split import (
    GIVEN,
    GLOBAL_TIME,
    LEAVE_ONE_OUT,
    Split,
    given_split,
    global_time,
    leave_one_out,
    moment_ranks,
    order_by_time,
    user_offsets,
)
from athwe_core.errors import ConfigError


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


def filter_records(records: Records, name: str, options: PrepareOptions) -> Records:
    """Leave out repeated rows, then users and items with too few; a given split keeps them: it stays what its makers made.

    Args:
        records: What a reader found. The result shares no array with them, so that they can be freed before the sort.
        name: Of the data set, for messages.
        options: Filter and split.
    Returns:
        What is left, numbered by first appearance in it; its notes and counts tell what became of each row.
    Raises:
        DataError: Too few users or items are left.
    """
    users, items = records.user_tokens, records.item_tokens
    is_first = first_occurrences(users.numbers, items.numbers, records.timestamps)
    minimum = 1 if _has_parts(records, options) else options.min_interactions
    kept = records.keep(k_core(users.numbers, items.numbers, minimum=minimum, among=is_first))
    num_users, num_items = len(kept.user_tokens.names), len(kept.item_tokens.names)
    refuse_too_few(num_users, num_items, name=name, minimum=minimum)
    filtering = Filtering(
        minimum=minimum,
        num_read=len(records),
        num_distinct=int(np.count_nonzero(is_first)),
        num_kept=len(kept),
        users=(len(users.names), num_users),
        items=(len(items.names), num_items),
        num_late=_count_late(kept.user_tokens.numbers, kept.timestamps),
    )
    counts = None if records.counts is None else filtering.without(records.counts)
    return replace(kept, notes=(*records.notes, *filtering.notes()), counts=counts)


def number_and_order(records: Records, options: PrepareOptions) -> Interactions:
    """Order filtered records by user and time, and split them.

    Args:
        records: From `filter_records`.
        options: Tie order and split.
    Returns:
        The interactions. Users and items have the numbers of the records; item 0 is the padding.
    Raises:
        DataError: A given split is not in the order of time.
        ConfigError: The split leaves no evaluation target, or items are to be kept and no table has them.
    """
    users, items, times = records.user_tokens, records.item_tokens, records.timestamps
    notes = [*records.notes, *_times_kept(times).notes()]
    parts = records.parts if _has_parts(records, options) else None
    item_names = items.names.to_list()
    order = order_by_time(
        users.numbers, item_names, items.numbers, times, tie_order=options.tie_order, seed=options.seed, parts=parts
    )
    others = further_items(records.items, item_names) if options.keep_items else []
    if others:
        notes.append(kept_in_catalogue(len(others), records.items.source))  # type: ignore[union-attr]
    offsets, timestamps = user_offsets(users.numbers, len(users.names)), times[order]
    split, rule = _split(offsets, timestamps, parts[order] if parts is not None else None, options)
    item_ids = items.numbers[order]
    item_ids += np.int32(1)
    return Interactions(
        offsets=offsets,
        item_ids=item_ids,
        timestamps=timestamps,
        user_tokens=users.names,
        item_tokens=["", *item_names, *others],
        file_rows=order,
        split=split,
        split_rule=rule,
        notes=tuple(notes),
        counts=records.counts,
    )


def _has_parts(records: Records, options: PrepareOptions) -> bool:
    """Whether the files are a given split, and it is used."""
    return records.parts is not None and options.split in ("auto", GIVEN)


def further_items(items: ItemTable | None, item_names: list[str]) -> list[str]:
    """Items of the table that are not among `item_names`, in the order of the table. Raises ConfigError without a table."""
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
    at = [int(by_time[rank]) for rank in moment_ranks(len(by_time), options.held_out_share)]
    return global_time(offsets, timestamps, validation_from=at[0], test_from=at[1]), "global-time"


def _refuse_disorder(offsets: Int64[np.ndarray, "U_plus_1"], timestamps: Int64[np.ndarray, "I"]) -> None:
    """Refuse a given split where a part holds rows from before the part that comes before it."""
    is_back = np.diff(timestamps) < 0
    is_back[offsets[1:-1] - 1] = False
    count = int(np.count_nonzero(np.add.reduceat(np.append(is_back, False), offsets[:-1])))
    refuse_disorder(count, len(offsets) - 1)


def _count_late(users: Int32[np.ndarray, "I"], timestamps: Int64[np.ndarray, "I"]) -> int:
    """Rows earlier than the row before of the same user, in file order."""
    count = 0
    for rows in rows_by_user(users, count_numbers(users, bound(users))):
        by_user = rows[lex_order(users[rows])]
        is_same_user = np.diff(users[by_user]) == 0
        count += int(np.count_nonzero(is_same_user & (np.diff(timestamps[by_user]) < 0)))
    return count


def _times_kept(timestamps: Int64[np.ndarray, "I"]) -> TimesKept:
    first, end = plausible_times()
    is_odd = (timestamps < first) | (timestamps >= end)
    return TimesKept(
        lowest=int(timestamps.min()),
        highest=int(timestamps.max()),
        median=float(np.median(timestamps)),
        num_rows=len(timestamps),
        num_odd=int(np.count_nonzero(is_odd)),
        first_odd=int(timestamps[is_odd.argmax()]) if is_odd.any() else None,
    )
