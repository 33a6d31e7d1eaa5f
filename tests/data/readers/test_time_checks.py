from pathlib import Path

import polars as pl
import pytest

from athwe_core.data.readers.time_checks import doubts_about_times
from athwe_core.errors import DataError

PLACE = Path("log.csv")
DAYS = pl.Series("date", ["2020-09-14", "2020-09-15"])


def test_days_beside_a_time_of_day_are_questioned() -> None:
    clock = pl.Series("time", ["15:30", "08:00:59"])
    assert doubts_about_times(PLACE, DAYS, "iso", [clock]) == [
        "log.csv: date holds days, and time the time of day, which is not read: "
        "join both in one column to order the items of a day"
    ]
    assert doubts_about_times(PLACE, DAYS, "iso", []) == []
    assert doubts_about_times(PLACE, DAYS, "iso", [pl.Series("time", ["15:30", "soon"])]) == []
    moments = pl.Series("date", ["2020-09-14 15:30", "2020-09-15"])
    assert doubts_about_times(PLACE, moments, "iso", [clock]) == []


def test_rounded_times_are_questioned() -> None:
    (question,) = doubts_about_times(PLACE, pl.Series("time", ["1.6000005e9", "1.6000132e9"]), "s", [])
    assert question.startswith("log.csv: the times in time are rounded to about 100 s (float32?)")


def test_times_cut_to_days_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"column time must not be numbers cut .*: they are 116 days apart, got '1.60E\+09'"
    ):
        doubts_about_times(PLACE, pl.Series("time", ["1.60E+09", "1.61E+09"]), "s", [])
