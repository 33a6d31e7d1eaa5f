"""Questions about times that decide what comes first and last."""

from collections.abc import Callable

import pytest

from athwe_core.data.prepare import PreparedDataset

Rows = list[tuple[str, str, int]]


@pytest.fixture
def doubts(
    write_inter: Callable[..., object], prepare_toy: Callable[..., PreparedDataset], toy_rows: Rows
) -> Callable[..., list[str]]:
    """Notes about times, of the toy data with other times."""

    def prepare(time_of: Callable[[int, int], int]) -> list[str]:
        notes: list[str] = []
        write_inter([(user, item, time_of(number, time)) for number, (user, item, time) in enumerate(toy_rows)])
        prepare_toy(notify=notes.append)
        return [note for note in notes if "time" in note]

    return prepare


def test_one_time_for_all_rows_is_questioned(doubts: Callable[..., list[str]]) -> None:
    (note,) = doubts(lambda *_: 1_400_000_001)
    assert note == "all rows have one time, 2014-05-13T16:53:21: the order of a user's items is the order of ties"


def test_times_far_from_the_others_are_questioned(doubts: Callable[..., list[str]]) -> None:
    odd = {0: 5, 41: 4_102_444_800}
    notes = doubts(odd.get)
    question = "2 of 42 rows have times before 1995 or after next year, e.g. 1970-01-01T00:00:05: is that right?"
    assert question in notes


@pytest.mark.parametrize("shift", [0, -1_399_999_999])
def test_times_of_today_and_times_since_any_day_are_not(doubts: Callable[..., list[str]], shift: int) -> None:
    assert doubts(lambda _, time: time + shift) == []
