import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.split import leave_one_out, order_by_time, tied_test_share, user_offsets
from athwe_core.errors import ConfigError

USERS = np.array([1, 0, 1, 0, 1])
ITEMS = np.array([0, 1, 2, 0, 1])
TOKENS = ["B10", "B9", "A"]  # as strings: A < B10 < B9
TIMES = np.array([7, 5, 7, 3, 7])


def test_file_order_on_ties_keeps_the_rows_as_they_came() -> None:
    assert order_by_time(USERS, TOKENS, ITEMS, TIMES, tie_order="file").tolist() == [3, 1, 0, 2, 4]


def test_item_order_on_ties_compares_raw_ids_as_strings() -> None:
    assert order_by_time(USERS, TOKENS, ITEMS, TIMES, tie_order="item").tolist() == [3, 1, 2, 0, 4]


def test_random_order_on_ties_is_seeded_and_keeps_time_order() -> None:
    users, items = np.zeros(40, dtype=np.int64), np.zeros(40, dtype=np.int64)
    times = np.repeat([2, 1], 20)
    draws = [order_by_time(users, ["a"], items, times, tie_order="random", seed=seed).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0][:20]) == list(range(20, 40))
    assert draws[0][:20] != list(range(20, 40))


def test_unknown_tie_order_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tie_order must be one of file, item, random, got 'time'"):
        order_by_time(USERS, TOKENS, ITEMS, TIMES, tie_order="time")  # type: ignore[arg-type]


@given(lengths=st.lists(st.integers(3, 9), min_size=1, max_size=8))
def test_split_partitions_each_user(lengths: list[int]) -> None:
    offsets = user_offsets(np.repeat(np.arange(len(lengths)), lengths), len(lengths))
    split = leave_one_out(offsets)
    for user, length in enumerate(lengths):
        rows = [*range(split.start[user], split.validation[user]), split.validation[user], split.test[user]]
        assert rows == list(range(offsets[user], offsets[user] + length))


def test_users_too_short_to_split_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_interactions must be >= 3, .*, got 2"):
        leave_one_out(np.array([0, 3, 5]))


def test_tied_test_share_by_hand() -> None:
    offsets = np.array([0, 3, 6, 9, 12])
    times = np.array([1, 2, 2, 1, 1, 2, 3, 3, 3, 1, 2, 3])  # users 0 and 2 tie with the item before
    assert tied_test_share(offsets, times) == 2 / 4
