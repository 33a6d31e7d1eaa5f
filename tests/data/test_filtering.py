import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.filtering import first_occurrences, k_core, refuse_too_few
from athwe_core.errors import DataError

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 2)), max_size=60)


def as_columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def naive_k_core(rows: list[tuple[int, int, int]], minimum: int) -> list[int]:
    """Take away one offending user or item at a time until none is left."""
    kept = list(range(len(rows)))
    while True:
        for column in (0, 1):
            values = [rows[row][column] for row in kept]
            short = next((value for value in values if values.count(value) < minimum), None)
            if short is not None:
                kept = [row for row in kept if rows[row][column] != short]
                break
        else:
            return kept


@given(rows=PAIRS, minimum=st.integers(1, 5))
def test_k_core_equals_the_naive_loop_and_is_idempotent(rows: list[tuple[int, int, int]], minimum: int) -> None:
    users, items, _ = as_columns(rows)
    keep = k_core(users, items, minimum=minimum)
    assert np.flatnonzero(keep).tolist() == naive_k_core(rows, minimum)
    assert k_core(users[keep], items[keep], minimum=minimum).all()


def test_k_core_by_hand() -> None:
    users = np.array([0, 0, 1, 1, 2])  # item 2 falls, then user 2 with it, then nothing else
    items = np.array([0, 1, 0, 1, 2])
    assert k_core(users, items, minimum=2).tolist() == [True, True, True, True, False]
    assert not k_core(users, items, minimum=3).any()


@given(rows=PAIRS)
def test_first_occurrences_are_those_of_a_set(rows: list[tuple[int, int, int]]) -> None:
    expected = [row not in rows[:position] for position, row in enumerate(rows)]
    assert first_occurrences(*as_columns(rows)).tolist() == expected


@pytest.mark.parametrize(("users", "items"), [(0, 0), (1, 9), (9, 1)])
def test_too_few_left_names_counts_and_minimum(users: int, items: int) -> None:
    with pytest.raises(
        DataError, match=rf"with 5 interactions each, got '{users} users and {items} items'. Lower --min"
    ):
        refuse_too_few(users, items, name="toy", minimum=5)
