"""How a batch of rows becomes a `PackedBatch`. All is vectorised but the assignment of rows to bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from athwe_core.batch import PackedBatch
from athwe_core.data.rows import FlatInteractions, IntArray, InteractionArrays, Rows, rows_of_histories

Numbers = Sequence[int] | NDArray[np.integer[Any]]

MIN_BIN_SLOTS = 32
"""Least number of slots of an attention bin, so that many short rows share one product."""
SLOT_MULTIPLE = 16
"""The number of slots of a bin is a multiple of this."""


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
    count = np.minimum(source + max_length, rows.training_end[rows.user_index[row]] - 1) - source
    return np.where(is_supervised, count, 0).astype(np.float32)


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
    offsets = np.cumsum([0, *(len(items) for items, _ in histories)])
    items, times = (np.concatenate([np.asarray(each[part]) for each in histories]) for part in (0, 1))
    data = FlatInteractions(offsets, items.astype(np.int32), times.astype(np.int64))
    longest = int(np.diff(offsets).max())
    following = None if next_items is None else np.asarray(next_items, np.int64)
    longer, rows = rows_of_histories(data, max_length=longest, next_items=following)
    return pack(longer, rows, np.arange(len(histories)), max_length=longest)
