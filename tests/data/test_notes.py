"""The sentences about rows that were read and kept; that the engines count right is tested with each engine."""

import pytest

from athwe_core.data.notes import Filtering, MissingIds, TimesKept, doubtful_user, plausible_times, refuse_disorder
from athwe_core.data.readers.reading import RowCounts
from athwe_core.errors import DataError

NAMES = [("user", "nan", 2), ("item", "", 1)]


def test_rows_without_an_id_are_counted_shown_and_refused_above_a_share() -> None:
    missing = MissingIds(3, 100, NAMES)
    missing.refuse_above(0.03, "log.csv")
    assert missing.notes() == ["3 of 100 rows have no id and were dropped: user 'nan' in 2, item '' in 1"]
    assert missing.without(RowCounts(100, 100)) == RowCounts(100, 97, {"had no user or item id": 3})
    with pytest.raises(DataError, match=r"log.csv may have at most 2 % rows without a user or an item, got .3 of 100"):
        missing.refuse_above(0.02, "log.csv")
    assert MissingIds(0, 100, []).notes() == []


@pytest.mark.parametrize(("count", "is_doubtful"), [(50, False), (53, True)])  # of 110: 10 times the mean of 10 others
def test_a_user_with_ten_times_the_rows_of_the_others_is_questioned(count: int, is_doubtful: bool) -> None:
    assert bool(doubtful_user("guest", count, num_others=10, num_rows=count + 53)) is is_doubtful
    assert doubtful_user("guest", 5, num_others=0, num_rows=5) == []


def test_what_a_filter_removed_is_told_and_counted() -> None:
    found = Filtering(5, num_read=20, num_distinct=18, num_kept=9, users=(4, 2), items=(8, 4), num_late=1)
    removed = "2 of 4 users (50.0%), 4 of 8 items (50.0%), 9 of 18 rows (50.0%)"
    assert found.notes() == [
        "2 repeated rows (same user, item and time) were removed",
        f"users and items with fewer than 5 interactions were removed: {removed}",
        "1 rows came after a later one of the same user in the file: sorted by time",
    ]
    dropped = {"were repeated": 2, "were of users or items with fewer than 5 interactions": 9}
    assert found.without(RowCounts(20, 20)) == RowCounts(20, 9, dropped)


def test_times_far_from_plausible_ones_are_questioned_and_others_are_not() -> None:
    first, end = plausible_times()
    assert first < 1_400_000_000 < end
    odd = TimesKept(5, end, 1.4e9, num_rows=9, num_odd=2, first_odd=5)
    question = "2 of 9 rows have times before 1995 or after next year, e.g. 1970-01-01T00:00:05: is that right?"
    assert odd.notes() == [question]
    assert TimesKept(5, 100, 50.0, num_rows=9, num_odd=9, first_odd=5).notes() == []  # time since any day


def test_a_given_split_in_disorder_is_refused() -> None:
    refuse_disorder(0, 7)
    with pytest.raises(DataError, match=r"given split must be in the order of time: .* got '2 of 7 users are not'"):
        refuse_disorder(2, 7)
