"""Training and evaluation rows of a data set, and the batches of an epoch.

A row is three numbers: its first token in the flat CSR arrays, the end of its tokens, and how many of its last tokens are
supervised. No history is copied before its batch is packed (`athwe_core.data.packing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from athwe_core.data.split import Split

IntArray = NDArray[np.int64]
_USERS_AT_ONCE = 2**18
"""Users whose windows are computed at a time, so that only the rows themselves take memory for all users."""


class InteractionArrays(Protocol):
    """Interactions of all users in CSR form, each user's in time order: what packing reads of a prepared data set."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """User u has the interactions offsets[u]..offsets[u+1]-1."""
        ...

    @property
    def item_ids(self) -> NDArray[np.int32]:
        """Internal item ids, 1..V-1."""
        ...

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """Unix seconds, ascending for each user."""
        ...


class SplitInteractionArrays(InteractionArrays, Protocol):
    """Interactions with a split into training, validation and test."""

    @property
    def split(self) -> Split:
        """Which interactions are training, validation and test."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows as index ranges into CSR interactions: a row's tokens are start..stop-1, the last `num_supervised` of them are
    supervised with the item that follows each."""

    start: IntArray
    stop: IntArray
    num_supervised: IntArray
    user_index: IntArray
    training_end: IntArray | None = None
    """(U,) In packed batching, the end of the training interactions of each user; None in prefix batching."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_targets(self) -> int:
        """Supervised tokens of all rows."""
        return int(self.num_supervised.sum())


def packed_rows(split: Split, *, max_length: int) -> Rows:
    """Windows of each user's training items that supervise every training target exactly once.

    A history of at most L + 1 training items is one row. A longer one is cut into windows: the first supervises L tokens;
    each later one has L - L//2 tokens of context and supervises up to L//2 new ones.

    Args:
        split: which interactions are training.
        max_length: L, most tokens in a row, >= 2.
    Returns: rows in the order of users, the windows of a user in time order.
    """
    parts = [slice(first, first + _USERS_AT_ONCE) for first in range(0, len(split.start), _USERS_AT_ONCE)]
    sizes = [int(_windows(split, part, max_length)[1].sum()) for part in parts]
    columns = [np.empty(sum(sizes), np.int64) for _ in range(4)]
    end = 0
    for part, size in zip(parts, sizes, strict=True):
        end += size
        for column, values in zip(columns, _rows_of_windows(split, part, max_length), strict=True):
            column[end - size : end] = values
    begin, stop, num_supervised, user = columns
    return Rows(begin, stop, num_supervised, user, split.training_end)


def _windows(split: Split, users: slice, max_length: int) -> tuple[IntArray, IntArray]:
    """Of some users, the training items that are inputs, and the windows that they are cut into."""
    num_inputs = np.maximum(split.training_end[users] - split.start[users] - 1, 0)
    extra = np.maximum(num_inputs - max_length, 0)
    return num_inputs, np.where(num_inputs > 0, 1 + -(-extra // (max_length // 2)), 0)


def _rows_of_windows(split: Split, users: slice, max_length: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Start, stop, supervised tokens and user of the windows of some users."""
    begin, step = split.start[users], max_length // 2
    num_inputs, windows = _windows(split, users, max_length)
    user = np.repeat(np.arange(len(begin)), windows)
    rank = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)  # window number within its user
    first_new = np.where(rank == 0, 0, max_length + (rank - 1) * step)
    end = np.minimum(max_length + rank * step, num_inputs[user])
    start = np.where(rank == 0, 0, first_new - (max_length - step))
    return begin[user] + start, begin[user] + end, end - first_new, user + users.start


def prefix_rows(split: Split, *, max_length: int) -> Rows:
    """One row for each training target: the latest L items before it, of which the last is supervised.

    Args:
        split: which interactions are training.
        max_length: L, most tokens in a row, >= 1.
    Returns: rows in the order of users, those of a user in time order.
    """
    begin, num_targets = split.start, np.maximum(split.training_end - split.start - 1, 0)
    user = np.repeat(np.arange(len(begin)), num_targets)
    end = 1 + np.arange(len(user)) - np.repeat(np.cumsum(num_targets) - num_targets, num_targets)
    start = np.maximum(end - max_length, 0)
    return Rows(begin[user] + start, begin[user] + end, np.ones(len(user), np.int64), user)


def evaluation_rows(split: Split, name: str, *, max_length: int) -> Rows:
    """One row for each user with a held-out item: the latest L items before it.

    Args:
        split: which interactions are held out.
        name: `validation` or `test`.
        max_length: L, most tokens in a row, >= 1.
    Returns: rows in the order of `split.users(name)`.
    Raises:
        ConfigError: `name` is neither.
    """
    users = split.users(name)
    stop = split.held_out(name)[users]
    start = np.maximum(stop - max_length, split.start[users])
    return Rows(start, stop, np.ones(len(stop), np.int64), users)


def items_before(data: InteractionArrays, users: IntArray, stop: IntArray) -> tuple[IntArray, IntArray]:
    """Items of each user's interactions before a given one.

    Args:
        data: CSR interactions.
        users: user indices.
        stop: for each of them a position in the CSR arrays; interactions from there on are left out.
    Returns: pairs as two arrays, index into `users` and item id, in time order for each user, with repeats.
    """
    begin = data.offsets[users]
    count = stop - begin
    row = np.repeat(np.arange(len(users)), count)
    source = begin[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row, np.asarray(data.item_ids[source], np.int64)


def training_rows(split: Split, *, batching: str, max_length: int) -> Rows:
    """The rows of an epoch.

    Args:
        split: which interactions are training.
        batching: `packed` or `prefix`.
        max_length: L, most tokens in a row.
    Returns: `packed_rows` or `prefix_rows`.
    """
    return {"packed": packed_rows, "prefix": prefix_rows}[batching](split, max_length=max_length)


def batch_boundaries(num_supervised: IntArray, *, batch_targets: int) -> list[tuple[int, int]]:
    """Cut a sequence of rows into batches of bounded size, in order.

    Args:
        num_supervised: targets of each row.
        batch_targets: most targets in a batch, >= 1. A row with more makes a batch of its own.
    Returns: (first, end) of each batch; the last one is kept however small.
    """
    total = np.zeros(len(num_supervised) + 1, np.int64)
    np.cumsum(num_supervised, out=total[1:])
    ranges, first = [], 0
    while first < len(num_supervised):
        last = int(np.searchsorted(total, total[first] + batch_targets, side="right")) - 1
        last = max(last, first + 1)
        ranges.append((first, last))
        first = last
    return ranges


def epoch_batches(rows: Rows, *, batch_targets: int, rng: np.random.Generator) -> list[IntArray]:
    """The rows of an epoch in random order, cut into batches.

    Args:
        rows: all rows of the epoch.
        batch_targets: most targets in a batch, see `batch_boundaries`.
        rng: draws the order.
    Returns: indices into `rows` for each batch.
    """
    order = rng.permutation(len(rows))
    boundaries = batch_boundaries(rows.num_supervised[order], batch_targets=batch_targets)
    return [order[first:last] for first, last in boundaries]


@dataclass(frozen=True)
class FlatInteractions:
    """`InteractionArrays` that belong to no data set."""

    offsets: IntArray
    item_ids: NDArray[np.int32]
    timestamps: IntArray


def rows_of_histories(
    data: InteractionArrays, *, max_length: int, next_items: IntArray | None = None
) -> tuple[InteractionArrays, Rows]:
    """One row for each whole history.

    Args:
        data: CSR interactions of U users, at least one for each.
        max_length: L, most tokens in a row: the latest ones.
        next_items: (U,) item that follows each history; 0 = not known. None = none is known.
    Returns: for `pack`: interactions in which the next item follows each history, at the time of its last item, and U rows
        supervised at their last token.
    """
    ends = np.asarray(data.offsets[1:])
    following = np.arange(len(ends))
    times = np.asarray(data.timestamps)
    longer = FlatInteractions(
        np.concatenate([[0], ends + following + 1]),
        np.insert(np.asarray(data.item_ids), ends, 0 if next_items is None else next_items),
        np.insert(times, ends, times[ends - 1]),
    )
    stop = ends + following
    start = np.maximum(longer.offsets[:-1], stop - max_length)
    return longer, Rows(start, stop, np.ones(len(stop), np.int64), following)
