from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data import long_arrays
from athwe_core.data.long_arrays import GrowingArray, bound, count_numbers, lex_order, row_blocks, rows_by_user

NUMBERS = st.lists(st.integers(0, 9), max_size=40)
WIDE = st.integers(-(2**63), 2**63 - 1)
KEYS = st.lists(st.tuples(st.integers(-3, 3), st.one_of(st.integers(0, 2), WIDE), st.integers(0, 2)), max_size=40)


@given(pieces=st.lists(NUMBERS, max_size=6))
def test_a_growing_array_holds_what_was_appended_and_gives_it_away(pieces: list[list[int]]) -> None:
    growing = GrowingArray(np.int64)
    for _ in range(2):
        for piece in pieces:
            growing.append(np.array(piece, dtype=np.int64))
        assert growing.taken().tolist() == [number for piece in pieces for number in piece]
    assert growing.taken().tolist() == []


def test_blocks_cover_the_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_arrays, "BLOCK_ROWS", 4)
    assert [*row_blocks(9)] == [slice(0, 4), slice(4, 8), slice(8, 9)]
    assert [*row_blocks(9, at_least=6)] == [slice(0, 6), slice(6, 9)]
    assert [*row_blocks(0)] == []


@given(numbers=NUMBERS, block_rows=st.integers(1, 9), data=st.data())
def test_counts_are_those_of_a_counter(numbers: list[int], block_rows: int, data: st.DataObject) -> None:
    among = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)))
    array = np.array(numbers, dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_arrays, "BLOCK_ROWS", block_rows)
        every = count_numbers(array, 11)
        some = count_numbers(array, 11, np.array(among, dtype=bool))
    assert every.tolist() == [Counter(numbers)[number] for number in range(11)]
    chosen = Counter(number for number, is_chosen in zip(numbers, among, strict=True) if is_chosen)
    assert some.tolist() == [chosen[number] for number in range(11)]
    assert bound(array) == max(numbers, default=-1) + 1


@given(rows=KEYS)
def test_the_order_is_that_of_a_stable_sort(rows: list[tuple[int, int, int]]) -> None:
    first, second, third = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    expected = sorted(range(len(rows)), key=lambda row: (rows[row][2], rows[row][1], rows[row][0]))
    assert lex_order(first, second, third).tolist() == expected


@given(users=NUMBERS, block_rows=st.integers(1, 50))
def test_every_row_is_in_one_range_of_users_in_file_order(users: list[int], block_rows: int) -> None:
    array = np.array(users, dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_arrays, "BLOCK_ROWS", block_rows)
        ranges = [rows.tolist() for rows in rows_by_user(array, count_numbers(array, bound(array)))]
    assert sorted(row for rows in ranges for row in rows) == [*range(len(users))]
    assert all(rows == sorted(rows) for rows in ranges)
    seen = [{users[row] for row in rows} for rows in ranges]
    assert all(max(before) < min(after) for before, after in pairwise(seen))
    assert all(len(rows) <= block_rows or len(found) == 1 for rows, found in zip(ranges, seen, strict=True))
