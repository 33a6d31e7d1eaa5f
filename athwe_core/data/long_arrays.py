"""Counting, grouping and sorting of arrays with a row for each interaction, in blocks: what is needed besides stays small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer
from numpy.typing import DTypeLike, NDArray

BLOCK_ROWS = 4_000_000
_MOST_RANGES = 32  # each of them reads all users once
_KEY_BITS = 63


class GrowingArray:
    """An array that rows are appended to. It grows by an eighth, and large ones move no row when they grow (Linux).

    Args:
        dtype: Of the values.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._values: NDArray[Any] = np.empty(0, dtype)
        self._length = 0

    def append(self, values: NDArray[Any]) -> None:
        """Add values at the end; they are copied."""
        end = self._length + len(values)
        if end > len(self._values):
            self._values.resize(max(end, len(self._values) * 9 // 8), refcheck=False)  # no other reference exists
        self._values[self._length : end] = values
        self._length = end

    def taken(self) -> NDArray[Any]:
        """All values. The array is the caller's from now on, and this one is empty again."""
        found = self._values
        found.resize(self._length, refcheck=False)
        self._values, self._length = np.empty(0, found.dtype), 0
        return found


def row_blocks(num_rows: int, at_least: int = 0) -> Iterator[slice]:
    """Slices that cover `num_rows` rows in order, each of `BLOCK_ROWS` rows or `at_least` as many."""
    step = max(BLOCK_ROWS, at_least)
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def bound(numbers: Integer[np.ndarray, "I"]) -> int:
    """One more than the largest number, 0 where there is none."""
    return int(numbers.max()) + 1 if len(numbers) else 0


def count_numbers(
    numbers: Integer[np.ndarray, "I"], size: int, among: Bool[np.ndarray, "I"] | None = None
) -> Int64[np.ndarray, "size"]:
    """How many rows have each of the numbers `0..size-1`.

    Args:
        numbers: (I,) numbers in `0..size-1`.
        size: Of the result.
        among: (I,) rows that count; None counts all.
    """
    counts = np.zeros(size, np.int64)
    for block in row_blocks(len(numbers), size):
        chosen = numbers[block] if among is None else numbers[block][among[block]]
        counts += np.bincount(chosen, minlength=size)
    return counts


def lex_order(*keys: Integer[np.ndarray, "R"]) -> Int64[np.ndarray, "R"]:
    """Return `np.lexsort(keys)`: the stable order by the last key, then the one before it, and so on.

    Key and row are packed into one number, and numpy sorts plain numbers several times as fast as it sorts indirectly. Keys
    of too wide a range are sorted indirectly.
    """
    num_rows = len(keys[0])
    order = np.arange(num_rows)
    bits = max(num_rows - 1, 0).bit_length()
    for key in keys if num_rows else ():
        values = key[order].astype(np.int64)
        low = int(values.min())
        if (int(values.max()) - low).bit_length() + bits > _KEY_BITS:
            order = order[np.argsort(values, kind="stable")]
            continue
        values -= low
        values <<= bits
        values |= np.arange(num_rows)
        values.sort()
        values &= (1 << bits) - 1
        order = order[values]
    return order


def rows_by_user(users: Integer[np.ndarray, "I"], counts: Int64[np.ndarray, "U"]) -> Iterator[Int64[np.ndarray, "R"]]:
    """Rows of one range of users after the other, in file order within a range; every row is in exactly one.

    Args:
        users: (I,) user numbers.
        counts: (U,) rows of each user, see `count_numbers`.
    Returns:
        Ranges of about `BLOCK_ROWS` rows, more where one user has more or there are more than 32 such ranges.
    """
    ends = np.cumsum(counts)
    size = max(BLOCK_ROWS, -(-len(users) // _MOST_RANGES))
    first = begun = 0
    while begun < len(users):
        least, most = np.searchsorted(ends, [begun, begun + size], side="right").tolist()
        end = max(most, least + 1)
        found = [
            block.start + np.flatnonzero((users[block] >= first) & (users[block] < end))
            for block in row_blocks(len(users))
        ]
        yield np.concatenate(found)
        first, begun = end, int(ends[end - 1])
