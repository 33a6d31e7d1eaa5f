"""Rows of a data set by hand, every training target exactly once, and batches within their budget."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athwe_core.data import rows as rows_module
from athwe_core.data.rows import (
    Rows,
    batch_boundaries,
    epoch_batches,
    evaluation_rows,
    packed_rows,
    prefix_rows,
    training_rows,
)
from athwe_core.data.split import leave_one_out

USER_LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=6)
MAX_LENGTHS = st.integers(2, 12)


def as_tuples(rows: Rows) -> list[tuple[int, int, int, int]]:
    columns = (rows.start, rows.stop, rows.num_supervised, rows.user_index)
    return list(zip(*(c.tolist() for c in columns), strict=True))


def offsets_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def supervised_tokens(rows: Rows) -> list[int]:
    """Position in the CSR arrays of each supervised token, row by row."""
    return [token for _, stop, count, _ in as_tuples(rows) for token in range(stop - count, stop)]


@pytest.mark.parametrize("users_at_once", [1, 2, 100])
def test_packed_rows_by_hand(users_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_USERS_AT_ONCE", users_at_once)
    # L = 4; users of 3, 7 and 12 items: two are held out, and the last training item is a target only
    found = as_tuples(packed_rows(leave_one_out(offsets_of([3, 7, 12])), max_length=4))
    assert found == [(3, 7, 4, 1), (10, 14, 4, 2), (12, 16, 2, 2), (14, 18, 2, 2), (16, 19, 1, 2)]


def test_prefix_rows_by_hand() -> None:
    found = as_tuples(prefix_rows(leave_one_out(offsets_of([3, 4, 9])), max_length=4))
    assert found == [
        (3, 4, 1, 1),
        *[(7, 8, 1, 2), (7, 9, 1, 2), (7, 10, 1, 2), (7, 11, 1, 2), (8, 12, 1, 2), (9, 13, 1, 2)],
    ]


def test_held_out_rows_by_hand() -> None:
    offsets = offsets_of([3, 9])
    assert as_tuples(evaluation_rows(leave_one_out(offsets), "validation", max_length=4)) == [
        (0, 1, 1, 0),
        (6, 10, 1, 1),
    ]
    assert as_tuples(evaluation_rows(leave_one_out(offsets), "test", max_length=4)) == [(0, 2, 1, 0), (7, 11, 1, 1)]


@given(USER_LENGTHS, MAX_LENGTHS)
@settings(deadline=None)
def test_packed_and_prefix_supervise_every_training_target_exactly_once(lengths: list[int], max_length: int) -> None:
    offsets = offsets_of(lengths)
    every_target = [t for a, b in pairwise(offsets) for t in range(a, b - 3)]
    for batching in ("packed", "prefix"):
        rows = training_rows(leave_one_out(offsets), batching=batching, max_length=max_length)
        assert sorted(supervised_tokens(rows)) == every_target
        assert rows.num_targets == len(every_target)


@given(USER_LENGTHS, MAX_LENGTHS)
@settings(deadline=None)
def test_windows_are_within_l_of_one_user_and_later_ones_have_context(lengths: list[int], max_length: int) -> None:
    offsets = offsets_of(lengths)
    seen = set()
    for start, stop, count, user in as_tuples(packed_rows(leave_one_out(offsets), max_length=max_length)):
        assert offsets[user] <= start < stop <= offsets[user + 1] - 3
        assert 1 <= count <= stop - start <= max_length
        context = stop - start - count
        if user in seen:
            assert context == max_length - max_length // 2
            assert count <= max_length // 2
        else:
            assert context == 0
            assert start == offsets[user]
        seen.add(user)


@pytest.mark.parametrize(("batch_targets", "expected"), [(5, [(0, 2), (2, 3), (3, 5)]), (100, [(0, 5)])])
def test_batches_hold_as_many_rows_as_their_targets_allow(batch_targets: int, expected: list) -> None:
    assert batch_boundaries(np.array([2, 3, 7, 4, 1]), batch_targets=batch_targets) == expected


@given(st.lists(st.integers(1, 9), min_size=0, max_size=30), st.integers(1, 20))
@settings(deadline=None)
def test_batches_partition_the_rows_within_the_budget(counts: list[int], batch_targets: int) -> None:
    ranges = batch_boundaries(np.array(counts, np.int64), batch_targets=batch_targets)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(len(counts)))
    for first, last in ranges:
        assert sum(counts[first:last]) <= batch_targets or last - first == 1
    for first, last in ranges[:-1]:
        assert sum(counts[first : last + 1]) > batch_targets


def test_an_epoch_is_a_permutation_that_repeats_with_its_generator() -> None:
    rows = packed_rows(leave_one_out(offsets_of([5, 9, 30, 4, 12])), max_length=4)

    def epoch(seed: int) -> list[list[int]]:
        batches = epoch_batches(rows, batch_targets=6, rng=np.random.default_rng(seed))
        return [batch.tolist() for batch in batches]

    first = epoch(0)
    assert sorted(i for batch in first for i in batch) == list(range(len(rows)))
    assert epoch(0) == first
    assert epoch(1) != first
