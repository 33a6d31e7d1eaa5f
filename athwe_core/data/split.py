"""Order in time, and the evaluation targets: each user's last items, those after one moment, or those of a given split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Int8, Int64
from numpy.typing import NDArray

from athwe_core.data.long_arrays import bound, count_numbers, lex_order, row_blocks, rows_by_user
from athwe_core.data.options import LEAST_INTERACTIONS, TieOrder
from athwe_core.errors import ConfigError, DataError


def order_by_time(
    users: Int64[np.ndarray, "I"],
    item_tokens: list[str],
    items: Int64[np.ndarray, "I"],
    timestamps: Int64[np.ndarray, "I"],
    *,
    tie_order: TieOrder,
    seed: int = 0,
    parts: Int8[np.ndarray, "I"] | None = None,
) -> Int64[np.ndarray, "I"]:
    """Return the row order: by user, then part of a given split, then time, then the tie order.

    Args:
        users: (I,) user numbers; items: (I,) item numbers, 0-based into `item_tokens`; timestamps: (I,) seconds.
        item_tokens: Raw item ids by number.
        tie_order: Equal times of one user stay in `file` order, go by raw `item` id compared as a string,
            or in a `random` order drawn from `seed`.
        seed: Of the random order.
        parts: (I,) part of a given split; None without one.
    Returns:
        (I,) int64 rows in their new order.
    Raises:
        ConfigError: An unknown tie order.
    """
    keys = [timestamps, users] if parts is None else [timestamps, parts, users]
    if tie_order == "item":
        rank = np.empty(len(item_tokens), dtype=np.int64)
        rank[sorted(range(len(item_tokens)), key=item_tokens.__getitem__)] = np.arange(len(item_tokens))
    elif tie_order == "random":
        keys.insert(0, np.random.default_rng(seed).permutation(len(users)))
    elif tie_order != "file":
        raise ConfigError("--tie-order", f"must be one of {', '.join(get_args(TieOrder))}", tie_order)
    order = np.empty(len(users), dtype=np.int64)
    begun = 0
    for rows in rows_by_user(users, count_numbers(users, bound(users))):
        ties = [rank[items[rows]]] if tie_order == "item" else []
        order[begun : begun + len(rows)] = rows[lex_order(*ties, *(key[rows] for key in keys))]  # stable
        begun += len(rows)
    return order


def user_offsets(users: Int64[np.ndarray, "I"], num_users: int) -> Int64[np.ndarray, "U_plus_1"]:
    """CSR offsets: the rows of user u are `offsets[u]:offsets[u + 1]` once ordered by user."""
    return np.concatenate([[0], np.cumsum(count_numbers(users, num_users))])


_AS_ONE_LOG = "Split the files anew: --split leave-one-out"
LEAVE_ONE_OUT, GLOBAL_TIME, GIVEN = "leave-one-out", "global-time", "given"
ALL_DATA = "all-data"
"""Of a training on all interactions: none is held out."""
REFIT = "refit"
"""Of a training on training and validation: only the test items are held out."""


@dataclass(frozen=True)
class Split:
    """What the rows of each of U users are for. A held-out row is a target; all of the user's rows before it are its input.

    Attributes:
        start, training_end: Training is `start[u]:training_end[u]`.
        validation, test: The held-out row, -1 = the user has none.
    """

    start: Int64[np.ndarray, "U"]
    training_end: Int64[np.ndarray, "U"]
    validation: Int64[np.ndarray, "U"]
    test: Int64[np.ndarray, "U"]

    def held_out(self, split: str) -> Int64[np.ndarray, "U"]:
        """Rows held out for `validation` or `test`, -1 = none. Raises ConfigError for another name."""
        rows = {"validation": self.validation, "test": self.test}
        if split not in rows:
            raise ConfigError("--split", f"must be one of {', '.join(rows)}", split)
        return rows[split]

    def users(self, split: str) -> Int64[np.ndarray, "E"]:
        """Users with a held-out row in `split`, ascending: the order of every array of ranks."""
        return np.flatnonzero(self.held_out(split) >= 0)

    def is_training(self, num_rows: int) -> NDArray[np.bool_]:
        """(I,) whether a row is a training row. Takes a byte a row; `training_blocks` takes none."""
        found = np.empty(num_rows, np.bool_)
        for block, is_training in self.training_blocks(num_rows):
            found[block] = is_training
        return found

    def training_blocks(self, num_rows: int, at_least: int = 0) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Blocks of rows in order, and which of their rows are training rows.

        Args:
            num_rows: I, of all users.
            at_least: rows of a block, where there are as many.
        """
        for block in row_blocks(num_rows, at_least):
            users = slice(*np.searchsorted(self.start, [block.start + 1, block.stop]).tolist())
            users = slice(max(users.start - 1, 0), users.stop)
            size = block.stop - block.start
            bounds = np.zeros(size + 1, np.int32)
            np.add.at(bounds, np.clip(self.start[users] - block.start, 0, size), 1)
            np.add.at(bounds, np.clip(self.training_end[users] - block.start, 0, size), -1)
            yield block, np.cumsum(bounds[:-1], dtype=np.int32) > 0


def leave_one_out(offsets: Int64[np.ndarray, "U_plus_1"]) -> Split:
    """Split CSR `offsets` over time-ordered rows: the last row is test, the one before validation, the rest training.

    Raises:
        ConfigError: A user has fewer than 3 interactions.
    """
    lengths = np.diff(offsets)
    if len(lengths) and lengths.min() < LEAST_INTERACTIONS:
        rule = f"must be >= {LEAST_INTERACTIONS}, so that each user has a training, a validation and a test item"
        raise ConfigError("--min-interactions", rule, int(lengths.min()), "Prepare the data set again")
    validation = offsets[1:] - 2  # where training ends too: one array for both
    return Split(start=offsets[:-1], training_end=validation, validation=validation, test=offsets[1:] - 1)


def global_time(
    offsets: Int64[np.ndarray, "U_plus_1"],
    timestamps: Int64[np.ndarray, "I"],
    *,
    validation_from: int,
    test_from: int,
) -> Split:
    """Split at two moments, the same for all users: no evaluation target precedes the end of training.

    Training is every row before `validation_from`. The target of a user is the first row at or after `validation_from` and
    before `test_from` (validation), and at or after `test_from` (test), where an earlier row is there as input.

    Args:
        timestamps: (I,) seconds, increasing for each user.
        validation_from, test_from: seconds, `validation_from < test_from`.
    Raises:
        ConfigError: The moments are in the wrong order, or leave nothing to train on or no target.
    """
    refuse_moments(validation_from, test_from)

    def first_row_from(moment: int) -> Int64[np.ndarray, "U"]:
        return offsets[:-1] + _rows_of_users(timestamps < moment, offsets)

    return split_at(offsets, first_row_from(validation_from), first_row_from(test_from))


def moment_ranks(num_rows: int, held_out_share: float) -> tuple[int, int]:
    """Of all times in ascending order, the places of the moments `validation_from` and `test_from` of `global_time`."""
    first, last = (int(num_rows * (1 - periods * held_out_share)) for periods in (2, 1))
    return first, last


def refuse_moments(validation_from: int, test_from: int) -> None:
    """Raise ConfigError where the moments of `global_time` are in the wrong order."""
    if not validation_from < test_from:
        rule, remedy = f"must be before test_from={test_from}", "Do all rows have one time? Use --split leave-one-out"
        raise ConfigError("validation_from", rule, validation_from, remedy)


def split_at(
    offsets: Int64[np.ndarray, "U_plus_1"], training_end: Int64[np.ndarray, "U"], late: Int64[np.ndarray, "U"]
) -> Split:
    """The split at two moments, see `global_time`, by the first row of each user from either moment on.

    Raises:
        ConfigError: Nothing to train on, or no target.
    """
    start, end = offsets[:-1], offsets[1:]
    found = Split(
        start=start,
        training_end=training_end,
        validation=np.where((training_end < late) & (training_end > start), training_end, -1),
        test=np.where((late < end) & (late > start), late, -1),
    )
    remedy = "Choose another --held-out-share, or --split leave-one-out"
    for split in ("validation", "test"):
        if not len(found.users(split)):
            raise ConfigError("--split", f"global-time must leave a user with a target for {split}", "none", remedy)
    if not (training_end - start > 1).any():
        raise ConfigError("--split", "global-time must leave a user with two training interactions", "none", remedy)
    return found


def given_split(offsets: Int64[np.ndarray, "U_plus_1"], parts: Int8[np.ndarray, "I"]) -> Split:
    """The split of a benchmark, whose files say which row is for training (0), validation (1) and test (2).

    The target of a user is the first row of the validation and of the test part, where an earlier row is there as input.

    Args:
        offsets: (U + 1,) CSR offsets over the rows.
        parts: (I,) part of each row, not decreasing for each user.
    Returns:
        The split.
    Raises:
        DataError: Nothing to train on, or no target.
    """
    return split_parts(offsets, [_rows_of_users(parts == part, offsets) for part in range(3)])


def split_parts(offsets: Int64[np.ndarray, "U_plus_1"], counts: Sequence[Int64[np.ndarray, "U"]]) -> Split:
    """The given split, see `given_split`, by the number of rows of each user in each part. Raises DataError likewise."""
    start, training_end = offsets[:-1], offsets[:-1] + counts[0]
    late = training_end + counts[1]
    found = Split(
        start=start,
        training_end=training_end,
        validation=np.where((counts[1] > 0) & (training_end > start), training_end, -1),
        test=np.where((counts[2] > 0) & (late > start), late, -1),
    )
    for split in ("validation", "test"):
        if not len(found.users(split)):
            raise DataError("given split", f"must leave a user with a target for {split}", remedy=_AS_ONE_LOG)
    if not (counts[0] > 1).any():
        raise DataError("given split", "must leave a user with two training interactions", remedy=_AS_ONE_LOG)
    return found


def _rows_of_users(is_counted: NDArray[np.bool_], offsets: Int64[np.ndarray, "U_plus_1"]) -> Int64[np.ndarray, "U"]:
    """How many of each user's rows are marked; every user has rows."""
    return np.add.reduceat(is_counted, offsets[:-1], dtype=np.int64)


def tied_test_share(split: Split, timestamps: Int64[np.ndarray, "I"]) -> float:
    """Share of the test users, 0..1, whose test item has the time of the item before: there the tie order decides."""
    test = split.test[split.users("test")]
    return float(np.mean(timestamps[test] == timestamps[test - 1]))
