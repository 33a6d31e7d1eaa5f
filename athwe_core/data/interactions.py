"""Records to filtered, numbered and ordered interactions, in numbers throughout: no text is held but the distinct ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64

from athwe_core.data.filtering import first_occurrences, k_core, refuse_too_few
from athwe_core.data.options import PrepareOptions, SplitRule
from athwe_core.data.readers.records import Records
from athwe_core.data.split import GLOBAL_TIME, Split, global_time, leave_one_out, order_by_time, user_offsets


@dataclass(frozen=True)
class Interactions:
    """Filtered interactions in user and time order, I rows of U users.

    Attributes:
        offsets: (U + 1,) rows of user u are `offsets[u]:offsets[u + 1]`.
        item_ids: (I,) internal ids, 1 = first item that appears in what is left of the source; 0 is the padding.
        timestamps: (I,) seconds.
        user_tokens: (U,) raw ids, in order of first appearance.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding's empty string.
        file_rows: (I,) place of each row in what is left of the source, in its own order.
        split, split_rule: What the rows are for, and by which rule.
        notes: What the user should know, one sentence each.
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

    def arrays(self) -> dict[str, Any]:
        """The arrays of a prepared data set, by name."""
        found = {
            "offsets": self.offsets,
            "item_ids": self.item_ids,
            "timestamps": self.timestamps,
            "file_rows": self.file_rows,
        }
        if self.split_rule != GLOBAL_TIME:
            return found
        split = {"training_ends": self.split.training_end, "validation_rows": self.split.validation}
        return {**found, **split, "test_rows": self.split.test}


def number_and_order(records: Records, name: str, options: PrepareOptions) -> Interactions:
    """Filter, number users and items by first appearance in what is left, order by user and time.

    Args:
        name: Of the data set, for messages.
    Raises:
        DataError: Too few users or items are left.
        ConfigError: The split leaves nobody to ask.
    """
    users, items, timestamps = records.user_tokens.numbers, records.item_tokens.numbers, records.timestamps
    is_first = first_occurrences(users, items, timestamps)
    rows = np.flatnonzero(is_first)
    rows = rows[k_core(users[rows], items[rows], minimum=options.min_interactions)]
    kept_users, kept_items, times = records.user_tokens.take(rows), records.item_tokens.take(rows), timestamps[rows]
    num_users, item_names = len(kept_users.names), kept_items.names.to_list()
    refuse_too_few(num_users, len(item_names), name=name, minimum=options.min_interactions)
    order = order_by_time(
        kept_users.numbers, item_names, kept_items.numbers, times, tie_order=options.tie_order, seed=options.seed
    )
    num_first = int(np.count_nonzero(is_first))
    few = f"rows of users or items with fewer than {options.min_interactions} interactions were removed"
    late = "rows came after a later one of the same user in the file: sorted by time"
    counts = {
        "repeated rows (same user, item and time) were removed": len(records) - num_first,
        few: num_first - len(rows),
        late: _count_late(kept_users.numbers, times),
    }
    offsets, timestamps = user_offsets(kept_users.numbers, num_users), times[order]
    return Interactions(
        offsets=offsets,
        item_ids=kept_items.numbers[order] + np.int32(1),
        timestamps=timestamps,
        user_tokens=kept_users.names,
        item_tokens=["", *item_names],
        file_rows=order,
        split=_split(offsets, timestamps, options),
        split_rule=options.split,
        notes=(*records.notes, *(f"{count} {what}" for what, count in counts.items() if count)),
    )


def _split(
    offsets: Int64[np.ndarray, "U_plus_1"], timestamps: Int64[np.ndarray, "I"], options: PrepareOptions
) -> Split:
    if options.split != GLOBAL_TIME:
        return leave_one_out(offsets)
    by_time = np.sort(timestamps)
    at = [by_time[int(len(by_time) * (1 - periods * options.held_out_share))] for periods in (2, 1)]
    return global_time(offsets, timestamps, validation_from=int(at[0]), test_from=int(at[1]))


def _count_late(users: Int32[np.ndarray, "I"], timestamps: Int64[np.ndarray, "I"]) -> int:
    """Rows earlier than the row before of the same user, in file order."""
    by_user = np.argsort(users, kind="stable")
    is_same_user = np.diff(users[by_user]) == 0
    return int(np.count_nonzero(is_same_user & (np.diff(timestamps[by_user]) < 0)))
