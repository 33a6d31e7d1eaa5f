import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data import long_arrays
from athwe_core.data.split import global_time, leave_one_out, order_by_time, tied_test_share, user_offsets
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
    with pytest.raises(ConfigError, match=r"--tie-order must be one of file, item, random, got 'time'"):
        order_by_time(USERS, TOKENS, ITEMS, TIMES, tie_order="time")  # type: ignore[arg-type]


@given(lengths=st.lists(st.integers(3, 9), min_size=1, max_size=8))
def test_split_partitions_each_user(lengths: list[int]) -> None:
    offsets = user_offsets(np.repeat(np.arange(len(lengths)), lengths), len(lengths))
    split = leave_one_out(offsets)
    for user, length in enumerate(lengths):
        rows = [*range(split.start[user], split.validation[user]), split.validation[user], split.test[user]]
        assert rows == list(range(offsets[user], offsets[user] + length))


def test_users_too_short_to_split_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--min-interactions must be >= 3, .*, got 2"):
        leave_one_out(np.array([0, 3, 5]))


def test_tied_test_share_by_hand() -> None:
    offsets = np.array([0, 3, 6, 9, 12])
    times = np.array([1, 2, 2, 1, 1, 2, 3, 3, 3, 1, 2, 3])  # users 0 and 2 tie with the item before
    assert tied_test_share(leave_one_out(offsets), times) == 2 / 4


class TestGlobalTime:
    OFFSETS = np.array([0, 5, 8, 10, 12])
    TIMES = np.array([1, 4, 5, 8, 9, 1, 2, 3, 6, 8, 5, 5])
    """Users: training, validation and test; training only; test after a first item in the test's past; validation only."""

    def test_by_hand(self) -> None:
        split = global_time(self.OFFSETS, self.TIMES, validation_from=5, test_from=8)
        assert split.training_end.tolist() == [2, 8, 8, 10]
        assert split.validation.tolist() == [2, -1, -1, -1]
        assert split.test.tolist() == [3, -1, 9, -1]
        assert split.users("test").tolist() == [0, 2]
        assert tied_test_share(split, self.TIMES) == 0
        assert np.flatnonzero(split.is_training(12)).tolist() == [0, 1, 5, 6, 7]

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 12, 20])
    def test_blocks_of_any_size_have_the_same_training_rows(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(long_arrays, "BLOCK_ROWS", size)
        split = global_time(self.OFFSETS, self.TIMES, validation_from=5, test_from=8)
        assert np.flatnonzero(split.is_training(12)).tolist() == [0, 1, 5, 6, 7]
        assert [block.start for block, _ in split.training_blocks(12)] == list(range(0, 12, size))

    @given(
        gaps=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=2, max_size=9),
        moments=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    )
    def test_nothing_asked_or_read_is_earlier_than_what_training_saw(
        self, gaps: list[list[int]], moments: tuple[int, int]
    ) -> None:
        offsets = np.cumsum([0, *map(len, gaps)])
        times = np.concatenate([np.cumsum(user) for user in gaps])
        first, second = moments[0], moments[0] + moments[1]
        try:
            split = global_time(offsets, times, validation_from=first, test_from=second)
        except ConfigError:
            return
        assert (times[split.is_training(len(times))] < first).all()
        for name, bounds in (("validation", (first, second)), ("test", (second, np.inf))):
            users = split.users(name)
            rows = split.held_out(name)[users]
            assert ((times[rows] >= bounds[0]) & (times[rows] < bounds[1])).all()
            assert (times[rows - 1] < bounds[0]).all()
            assert ((rows > offsets[users]) & (rows < offsets[users + 1])).all()

    @pytest.mark.parametrize(
        ("moments", "text"),
        [
            ((8, 8), "must be before test_from=8"),
            ((5, 90), "must leave a user with a target for test"),
            ((6, 7), "must leave a user with a target for validation"),
        ],
    )
    def test_moments_that_leave_nobody_are_refused(self, moments: tuple[int, int], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            global_time(self.OFFSETS, self.TIMES, validation_from=moments[0], test_from=moments[1])

    def test_without_two_training_items_in_a_row_there_is_nothing_to_learn(self) -> None:
        with pytest.raises(ConfigError, match="two training interactions"):
            global_time(np.array([0, 3]), np.array([1, 5, 9]), validation_from=5, test_from=9)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="split must be one of validation, test, got 'dev'"):
        leave_one_out(np.array([0, 3])).users("dev")
