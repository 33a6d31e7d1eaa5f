"""Dates as public data sets write them; expected moments from the standard library."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from athwe_core.data.readers.dates import FORMS, date_seconds, format_seconds, is_format

MOMENT = datetime(2014, 5, 13, 10, 11, 12, tzinfo=UTC)
DAY = datetime(2014, 5, 13, tzinfo=UTC)


def one(text: str, form: str) -> datetime | None:
    seconds = date_seconds(pl.Series([text, None]), form).to_list()
    assert seconds[1] is None
    return None if seconds[0] is None else datetime.fromtimestamp(seconds[0], UTC)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("2014-05-13 10", "iso", MOMENT.replace(minute=0, second=0)),
        ("2014-05-13 10:11:12 UTC", "iso", MOMENT),
        ("2014-05-13 10:11:12 EST", "iso", MOMENT + timedelta(hours=5)),
        ("2014-05-13 10:11:12 Europe/Berlin", "iso", MOMENT - timedelta(hours=2)),
        ("2014-05-13T10:11:12+02:00[Europe/Berlin]", "iso", MOMENT - timedelta(hours=2)),
        ("2014-05-13 10:11:12 Nowhere/Town", "iso", None),
        ("20140513", "yyyymmdd", DAY),
        ("20140513T101112Z", "yyyymmdd", MOMENT),
        ("20140513101112", "yyyymmdd", MOMENT),
        ("20141332", "yyyymmdd", None),
        ("2014", "year", datetime(2014, 1, 1, tzinfo=UTC)),
        ("2014/05/13 10:11:12", "year/month/day", MOMENT),
        ("05/13/2014 10:11:12 AM", "month/day/year", MOMENT),
        ("5/13/2014 10:11:12 pm", "month/day/year", MOMENT + timedelta(hours=12)),
        ("12/13/2010 12:26 am", "month/day/year", datetime(2010, 12, 13, 0, 26, tzinfo=UTC)),
        ("13.05.2014", "day/month/year", DAY),
        ("13/05/2014", "month/day/year", None),
        ("May 13, 2014", "month day, year", DAY),
        ("05 13, 2014", "month day, year", DAY),
        ("Tuesday, May 13, 2014 at 10:11:12 AM", "month day, year", MOMENT),
        ("Tue, 13 May 2014 10:11:12 GMT", "day month year", MOMENT),
        ("13-May-2014", "day month year", DAY),
        ("Tue May 13 10:11:12 +0200 2014", "weekday month day time year", MOMENT - timedelta(hours=2)),
        ("Tue May 13 10:11:12 PDT 2014", "weekday month day time year", MOMENT + timedelta(hours=7)),
        ("2014-05-13 25:00", "iso", None),
        ("2014-05-13 10:11:12 x y", "iso", None),
    ],
)
def test_forms_by_hand(text: str, form: str, expected: datetime | None) -> None:
    assert one(text, form) == expected
    others = {other for other in FORMS if other != form and one(text, other) is not None}
    assert expected is None or others == set()


def test_days_and_months_up_to_twelve_fit_two_forms() -> None:
    assert one("03/02/2014", "month/day/year") == datetime(2014, 3, 2, tzinfo=UTC)
    assert one("03/02/2014", "day/month/year") == datetime(2014, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize("pattern", ["%d.%m.%Y %Hh", "%Y-%j", "%d %b %y, %H:%M:%S %z"])
def test_named_formats_are_those_of_the_standard_library(pattern: str) -> None:
    moment = datetime(2014, 5, 13, 10, 11, 12, tzinfo=timezone(timedelta(hours=2)))
    text = moment.strftime(pattern)
    found = datetime.strptime(text, pattern)
    expected = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    assert format_seconds(pl.Series([text, "x", None, text]), pattern).to_list() == [expected, None, None, expected]


@pytest.mark.parametrize(
    ("pattern", "is_good"), [("%Y-%m-%d", True), ("%c", True), ("%H:%M", False), ("year", False), ("%Q %Y", False)]
)
def test_formats_need_a_year_and_known_directives(pattern: str, is_good: bool) -> None:
    assert is_format(pattern) is is_good
