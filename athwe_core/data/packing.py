"""Rows of a prepared data set, and rows to `PackedBatch`: vectorised, no per-row Python loop but the bins' next-fit.

A row is three numbers into the flat CSR arrays - first token, end of tokens, how many of its last tokens are supervised -
so an epoch of 100 M interactions costs its index, never a copied prefix.
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

MIN_BIN_SLOTS = 32
"""Attention bins hold at least this many slots, so that many short rows share one product."""
SLOT_MULTIPLE = 16
"""Slots of a bin are a multiple of this."""


class InteractionArrays(Protocol):
    """CSR interactions of all users in time order: what packing needs of a prepared data set."""

    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def item_ids(self) -> NDArray[np.int32]: ...
    @property
    def timestamps(self) -> NDArray[np.int64]: ...


class SplitInteractionArrays(InteractionArrays, Protocol):
    """InteractionArrays of which some are held out."""

    @property
    def split(self) -> Split: ...


@dataclass(frozen=True)
class Padding:
    """Multiples that the axes of a batch are filled up to, so that few shapes occur.

    Libraries compile or choose a kernel for each new shape; compiled steps and captured CUDA graphs are for one alone.
    Tokens and bins of large batches go to a larger multiple, `multiple_for`.
    """

    targets: int = 1
    """Tokens too; they have this very multiple where every one of them is asked."""
    rows: int = 1
    bins: int = 1
    is_fixed: bool = False
    """Nothing else of the batch decides a shape: bins are as wide as the longest row that may come, and targets are always
    picked from the tokens."""


NO_PADDING = Padding()
SOME_PADDING = Padding(targets=64, rows=64, bins=4)
"""A few dozen shapes an epoch, at little cost."""
FIXED_PADDING = Padding(targets=128, rows=256, bins=16, is_fixed=True)
"""Two or three shapes, for compiled steps."""


def multiple_for(count: int, multiple: int) -> int:
    """The multiple, doubled while it stays within a sixteenth of the count: few shapes and little padding at every size."""
    if multiple > 1:
        while 32 * multiple <= count:
            multiple *= 2
    return multiple


@dataclass(frozen=True)
class Rows:
    """Rows as index ranges: tokens start..stop-1 are input, the last `num_supervised` of them are asked for their next."""

    start: IntArray
    stop: IntArray
    num_supervised: IntArray
    user_index: IntArray
    training_end: IntArray | None = None
    """Packed windows, which stand for many prefixes: end of the training rows of the window's user. None: prefix rows."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_targets(self) -> int:
        return int(self.num_supervised.sum())


def packed_rows(split: Split, *, max_length: int) -> Rows:
    """Windows of every user's training items in which each target is supervised exactly once.

    Args:
        split: which rows are training.
        max_length: L, most tokens in a row.
    A history of at most L+1 training items is one row. A longer one is cut: its first window supervises L positions, each
    later one has L - L//2 positions of context and up to L//2 new ones.
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
    """One row per training target: the latest L items before it, supervised at the last."""
    begin, num_targets = split.start, np.maximum(split.training_end - split.start - 1, 0)
    user = np.repeat(np.arange(len(begin)), num_targets)
    end = 1 + np.arange(len(user)) - np.repeat(np.cumsum(num_targets) - num_targets, num_targets)
    start = np.maximum(end - max_length, 0)
    return Rows(begin[user] + start, begin[user] + end, np.ones(len(user), np.int64), user)


def evaluation_rows(split: Split, name: str, *, max_length: int) -> Rows:
    """One row for each user who is asked in `validation` or `test`: the latest L items before the held-out one."""
    users = split.users(name)
    stop = split.held_out(name)[users]
    start = np.maximum(stop - max_length, split.start[users])
    return Rows(start, stop, np.ones(len(stop), np.int64), users)


def items_before(data: InteractionArrays, users: IntArray, stop: IntArray) -> tuple[IntArray, IntArray]:
    """(index into `users`, item) of each user's interactions before `stop`, a position in the CSR arrays."""
    begin = data.offsets[users]
    count = stop - begin
    row = np.repeat(np.arange(len(users)), count)
    source = begin[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row, np.asarray(data.item_ids[source], np.int64)


def training_rows(split: Split, *, batching: str, max_length: int) -> Rows:
    """The rows of an epoch for `packed` or `prefix` batching."""
    return {"packed": packed_rows, "prefix": prefix_rows}[batching](split, max_length=max_length)


def batch_boundaries(num_supervised: IntArray, *, batch_targets: int) -> list[tuple[int, int]]:
    """Ranges of rows, in order, each as long as its targets stay within the budget; the last one is kept however short.

    A single row larger than the budget makes a batch of its own.
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
    """Row indices of each batch of an epoch, in the order `rng` draws."""
    order = rng.permutation(len(rows))
    boundaries = batch_boundaries(rows.num_supervised[order], batch_targets=batch_targets)
    return [order[first:last] for first, last in boundaries]


def _assign_bins(lengths: IntArray, bin_slots: int) -> tuple[IntArray, IntArray, int]:
    """Bin and first slot in it of each row, next-fit over rows sorted by length, and the number of bins."""
    bins, begins = np.empty_like(lengths), np.empty_like(lengths)
    bin_, used = 0, 0
    for row, length in enumerate(lengths.tolist()):
        if used + length > bin_slots:
            bin_, used = bin_ + 1, 0
        bins[row], begins[row] = bin_, used
        used += length
    return bins, begins, bin_ + 1


def pack_share(
    data: InteractionArrays,
    rows: Rows,
    chosen: IntArray,
    *,
    max_length: int,
    is_own: NDArray[np.bool_],
    padding: Padding = NO_PADDING,
) -> PackedBatch:
    """This process's rows of a batch that is spread over several.

    A process without rows gets one token that is not asked and weighs nothing, so that it can take the step with the others.
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
    """The chosen rows as one token stream, sorted by length.

    Args:
        data: CSR interactions.
        rows: all rows of the epoch or split.
        chosen: indices into `rows`, at least one.
        max_length: L, for the prefix weights.
        padding: how far the axes are filled up.
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
        num_bins += 1  # padding tokens need an empty slot
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
    # a target of padding is a token of padding where all tokens are asked, so that they stay in order
    more_targets = T + np.arange(add_targets) if all_supervised else np.zeros(add_targets, np.int64)

    def filled(values: NDArray[Any], count: int, value: int) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([values, np.full(count, value, values.dtype)]) if count else values)

    return PackedBatch(
        item_ids=filled(np.asarray(data.item_ids[source], np.int64), add_tokens, 0),
        timestamps=filled(timestamps, add_tokens, timestamps[-1]),
        intervals=filled(intervals, add_tokens, 0),
        positions=filled(position, add_tokens, 0),
        offsets=filled(offsets, add_rows, T + add_tokens),
        rows=filled(row, add_tokens, len(chosen)),
        user_index=filled(user, add_rows, -1),
        target_index=torch.from_numpy(np.concatenate([target_index, more_targets])),
        target_ids=filled(np.asarray(data.item_ids[source[target_index] + 1], np.int64), add_targets, -1),
        prefix_weight=filled(_prefix_weight(rows, chosen[row], source, supervised, max_length), add_tokens, 0),
        grid_tokens=torch.from_numpy(grid.reshape(num_bins, bin_slots)),
        token_slots=filled(token_slots, add_tokens, int(grid.argmin())),
        all_supervised=all_supervised,
        num_targets=N,
    )


def _prefix_weight(
    rows: Rows, row: IntArray, source: IntArray, is_supervised: NDArray[np.bool_], max_length: int
) -> NDArray[np.float32]:
    """Prefix rows each token stands for: token i (0-based) of n is in those that end at i+1 .. min(i+L, n-1).

    In a packed window only where it is supervised, so that the context of later windows does not count again.
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


def pack_histories(
    histories: Sequence[tuple[Sequence[int], Sequence[int]]], *, next_items: Sequence[int] | None = None
) -> PackedBatch:
    """Histories that need not be in any data set, one row each, asked for the item after the last.

    Args:
        histories: (internal item ids, unix seconds) in time order, at least one item each; already cut to max_length.
        next_items: the item that follows each history; 0 where it is not known.
    Rows are sorted by length: `user_index` says which history a row is.
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
