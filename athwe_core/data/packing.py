"""Training and evaluation rows of a data set, and how a batch of rows becomes a `PackedBatch`.

A row is three numbers: its first token in the flat CSR arrays, the end of its tokens, and how many of its last tokens are
supervised. No history is copied before its batch is packed. All is vectorised but the assignment of rows to bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from athwe_core.batch import PackedBatch
from athwe_core.data.split import Split

IntArray = NDArray[np.int64]
Numbers = Sequence[int] | NDArray[np.integer[Any]]

MIN_BIN_SLOTS = 32
"""Least number of slots of an attention bin, so that many short rows share one product."""
SLOT_MULTIPLE = 16
"""The number of slots of a bin is a multiple of this."""


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
class Padding:
    """Multiples to which the axes of a batch are padded, so that few shapes occur.

    Libraries compile or choose a kernel for each new shape; compiled steps and CUDA graphs are made for one shape each.
    Tokens and bins of large batches are padded to a larger multiple, see `multiple_for`.
    """

    targets: int = 1
    """Multiple of targets and of tokens. Where every token is supervised, both are padded to exactly this multiple."""
    rows: int = 1
    """Multiple of rows."""
    bins: int = 1
    """Multiple of attention bins."""
    is_fixed: bool = False
    """Whether the shapes depend on nothing else in the batch: bins are then wide enough for a row of `max_length`, and
    targets are always gathered from the tokens."""


NO_PADDING = Padding()
SOME_PADDING = Padding(targets=64, rows=64, bins=4)
"""A few dozen shapes in an epoch, with little padding."""
FIXED_PADDING = Padding(targets=128, rows=256, bins=16, is_fixed=True)
"""Two or three shapes, for compiled steps."""


def multiple_for(count: int, multiple: int) -> int:
    """The multiple for an axis of a given size: few shapes and little padding at every size.

    Args:
        count: size of the axis without padding, >= 0.
        multiple: the smallest multiple, >= 1; 1 = no padding.
    Returns: `multiple`, doubled as long as the result is at most a sixteenth of the count.
    """
    if multiple > 1:
        while 32 * multiple <= count:
            multiple *= 2
    return multiple


@dataclass(frozen=True)
class Rows:
    """Rows as index ranges into CSR interactions: a row's tokens are start..stop-1, the last `num_supervised` of them are
    supervised with the item that follows each."""

    start: IntArray
    stop: IntArray
    num_supervised: IntArray
    user_index: IntArray
    training_end: IntArray | None = None
    """In packed batching, the end of the training interactions of each row's user; None in prefix batching."""

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
    begin, num_inputs = split.start, np.maximum(split.training_end - split.start - 1, 0)
    step = max_length // 2
    extra = np.maximum(num_inputs - max_length, 0)
    windows = np.where(num_inputs > 0, 1 + -(-extra // step), 0)
    user = np.repeat(np.arange(len(begin)), windows)
    rank = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)  # window number within its user
    first_new = np.where(rank == 0, 0, max_length + (rank - 1) * step)
    end = np.minimum(max_length + rank * step, num_inputs[user])
    start = np.where(rank == 0, 0, first_new - (max_length - step))
    return Rows(begin[user] + start, begin[user] + end, end - first_new, user, split.training_end[user])


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
    total = np.concatenate([[0], np.cumsum(num_supervised)])
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


def _assign_bins(lengths: IntArray, bin_slots: int) -> tuple[IntArray, IntArray, int]:
    """Bin of each row, first slot in it, and the number of bins: next-fit over rows sorted by length."""
    bins, begins = np.empty_like(lengths), np.empty_like(lengths)
    bin_, used = 0, 0
    for row, length in enumerate(lengths.tolist()):
        if used + length > bin_slots:
            bin_, used = bin_ + 1, 0
        bins[row], begins[row] = bin_, used
        used += length
    return bins, begins, bin_ + 1


def pack_shard(
    data: InteractionArrays,
    rows: Rows,
    chosen: IntArray,
    *,
    max_length: int,
    is_own: NDArray[np.bool_],
    padding: Padding = NO_PADDING,
) -> PackedBatch:
    """Pack this process's rows of a batch that is divided among several processes.

    A process without rows gets one token that is not supervised and has weight 0, so that it takes part in the step.

    Args:
        data, rows, chosen, max_length, padding: as in `pack`, for the whole batch.
        is_own: for each of `chosen`, whether it is this process's.
    Returns: the batch of this process, on the CPU.
    """
    if is_own.any():
        return pack(data, rows, chosen[is_own], max_length=max_length, padding=padding)
    start = rows.start[chosen[:1]]
    nothing = Rows(start, start + 1, np.zeros(1, np.int64), rows.user_index[chosen[:1]])
    batch = pack(data, nothing, np.zeros(1, np.int64), max_length=max_length, padding=padding)
    return replace(batch, prefix_weight=torch.zeros_like(batch.prefix_weight))


def pack(
    data: InteractionArrays, rows: Rows, chosen: IntArray, *, max_length: int, padding: Padding = NO_PADDING
) -> PackedBatch:
    """Pack rows end to end into one batch, sorted by length.

    Args:
        data: CSR interactions.
        rows: all rows of the epoch or split.
        chosen: indices into `rows`, at least one.
        max_length: L, most tokens in a row; decides the prefix weights.
        padding: multiples to which the axes are padded.
    Returns: the batch, on the CPU.
    """
    chosen = chosen[np.argsort(rows.stop[chosen] - rows.start[chosen], kind="stable")]
    start, stop, user = rows.start[chosen], rows.stop[chosen], rows.user_index[chosen]
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    row = np.repeat(np.arange(len(chosen)), lengths)
    position = np.arange(offsets[-1]) - offsets[row]
    source = start[row] + position
    timestamps = np.asarray(data.timestamps[source], np.int64)
    intervals = np.diff(timestamps, prepend=timestamps[:1])
    intervals[offsets[:-1]] = 0
    supervised = position >= (lengths - rows.num_supervised[chosen])[row]
    target_index = np.flatnonzero(supervised)
    longest = max_length if padding.is_fixed else int(lengths.max())
    bin_slots = max(MIN_BIN_SLOTS, longest + -longest % SLOT_MULTIPLE)
    bins, begins, num_bins = _assign_bins(lengths, bin_slots)
    if padding != NO_PADDING and offsets[-1] == num_bins * bin_slots:
        num_bins += 1  # padding tokens point to an empty slot
    num_bins += -num_bins % multiple_for(num_bins, padding.bins)
    token_slots = (bins * bin_slots + begins)[row] + position
    grid = np.full(num_bins * bin_slots, -1, np.int64)
    grid[token_slots] = np.arange(offsets[-1])

    T, N = len(position), len(target_index)
    all_supervised = N == T and not padding.is_fixed
    add_tokens = -T % (padding.targets if all_supervised else multiple_for(T, padding.targets))
    add_targets = -N % padding.targets
    add_rows = (
        1 + -(len(chosen) + 1) % padding.rows if padding != NO_PADDING else 0
    )  # one at least, for the padding tokens
    # where all tokens are supervised, padding targets are the padding tokens, so that target_index stays arange(T)
    more_targets = T + np.arange(add_targets) if all_supervised else np.zeros(add_targets, np.int64)

    def padded(values: NDArray[Any], count: int, value: int) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([values, np.full(count, value, values.dtype)]) if count else values)

    return PackedBatch(
        item_ids=padded(np.asarray(data.item_ids[source], np.int64), add_tokens, 0),
        timestamps=padded(timestamps, add_tokens, timestamps[-1]),
        intervals=padded(intervals, add_tokens, 0),
        positions=padded(position, add_tokens, 0),
        offsets=padded(offsets, add_rows, T + add_tokens),
        rows=padded(row, add_tokens, len(chosen)),
        user_index=padded(user, add_rows, -1),
        target_index=torch.from_numpy(np.concatenate([target_index, more_targets])),
        target_ids=padded(np.asarray(data.item_ids[source[target_index] + 1], np.int64), add_targets, -1),
        prefix_weight=padded(_prefix_weight(rows, chosen[row], source, supervised, max_length), add_tokens, 0),
        grid_tokens=torch.from_numpy(grid.reshape(num_bins, bin_slots)),
        token_slots=padded(token_slots, add_tokens, int(grid.argmin())),
        all_supervised=all_supervised,
        num_targets=N,
        longest_row=longest,
    )


def _prefix_weight(
    rows: Rows, row: IntArray, source: IntArray, is_supervised: NDArray[np.bool_], max_length: int
) -> NDArray[np.float32]:
    """Number of prefix rows that contain each token: token i (0-based) of n is in those that end at i+1 .. min(i+L, n-1).

    In packed batching 0 for tokens that are not supervised: an earlier window has counted them.
    """
    if rows.training_end is None:
        return np.ones(len(source), np.float32)
    count = np.minimum(source + max_length, rows.training_end[row] - 1) - source
    return np.where(is_supervised, count, 0).astype(np.float32)


@dataclass(frozen=True)
class _FlatInteractions:
    offsets: IntArray
    item_ids: NDArray[np.int32]
    timestamps: IntArray


def rows_of_histories(data: InteractionArrays, *, max_length: int) -> tuple[InteractionArrays, Rows]:
    """One row for each whole history, whose next item is not known.

    Args:
        data: CSR interactions of U users, at least one for each.
        max_length: L, most tokens in a row: the latest ones.
    Returns: for `pack`: interactions in which item 0 follows each history, at the time of its last item, and U rows
        supervised at their last token.
    """
    ends = np.asarray(data.offsets[1:])
    following = np.arange(len(ends))
    times = np.asarray(data.timestamps)
    longer = _FlatInteractions(
        np.concatenate([[0], ends + following + 1]),
        np.insert(np.asarray(data.item_ids), ends, 0),
        np.insert(times, ends, times[ends - 1]),
    )
    stop = ends + following
    start = np.maximum(longer.offsets[:-1], stop - max_length)
    return longer, Rows(start, stop, np.ones(len(stop), np.int64), following)


def pack_histories(
    histories: Sequence[tuple[Numbers, Numbers]], *, next_items: Sequence[int] | None = None
) -> PackedBatch:
    """Pack histories that need not be in a data set, one row each, supervised at the last token.

    Args:
        histories: for each row its internal item ids and unix seconds, in time order, at least one item; already cut to
            max_length.
        next_items: item that follows each history; 0 = not known. None = none is known.
    Returns: the batch; its rows are sorted by length, and `user_index` is the index of each row's history.
    """
    next_items = next_items if next_items is not None else [0] * len(histories)
    lengths = np.array([len(items) for items, _ in histories], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
    item_ids = np.concatenate(
        [np.append(items, after) for (items, _), after in zip(histories, next_items, strict=True)]
    )
    timestamps = np.concatenate([np.append(times, times[-1]) for _, times in histories])
    data = _FlatInteractions(offsets, item_ids.astype(np.int32), timestamps.astype(np.int64))
    rows = Rows(offsets[:-1], offsets[1:] - 1, np.ones(len(lengths), np.int64), np.arange(len(lengths)))
    return pack(data, rows, np.arange(len(lengths)), max_length=int(lengths.max()))
