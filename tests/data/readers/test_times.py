from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers.times import guess_time, other_unit, rounding_seconds, whole_seconds


def one(text: str | None, unit: str) -> int | None:
    seconds, is_time = whole_seconds(pl.Series([text], dtype=pl.String), unit)
    return int(seconds[0]) if is_time[0] else None


@pytest.mark.parametrize(
    ("text", "unit", "seconds"),
    [
        ("1588687728923", "ms", 1588687728),
        ("1588687728923999", "us", 1588687728),
        ("1588687728999.9", "ms", 1588687728),
        ("-1", "ms", -1),
        ("-1000", "ms", -1),
        ("-1001", "ms", -2),
        ("-0.5", "s", -1),
        ("1.5e9", "s", 1_500_000_000),
        ("1e999999999", "s", None),
        ("x", "s", None),
        (None, "s", None),
        ("", "ms", None),
        ("2014-05-13", "iso", 1399939200),
        ("2014-05-13 10:11:12", "iso", 1399975872),
        ("2014-05-13T10:11:12.999Z", "iso", 1399975872),
        ("2014-05-13T10:11+02:00", "iso", 1399968660),
        ("2014-05-13T10:11:12-0530", "iso", 1399995672),
        ("1969-12-31T23:59:59", "iso", -1),
        ("2014-02-30", "iso", None),
        ("13/05/2014", "iso", None),
        ("２０１４-05-13", "iso", None),
        ("2014-05-13T10:11+०५:00", "iso", None),
        ("1e-999999999999999999", "s", 0),
        ("-1e-999999999999999999", "s", -1),
        (None, "iso", None),
    ],
)
def test_by_hand(text: str | None, unit: str, seconds: int | None) -> None:
    assert one(text, unit) == seconds


@given(st.integers(0, 2**40), st.sampled_from([("s", 1), ("ms", 1000), ("us", 10**6)]), st.integers(0, 999_999))
def test_smaller_units_floor_to_the_same_second(seconds: int, unit: tuple[str, int], rest: int) -> None:
    name, factor = unit
    assert one(str(seconds * factor + rest % factor), name) == seconds


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_iso_equals_the_standard_library(moment: datetime, ahead: int) -> None:
    sign, offset = "-" if ahead < 0 else "+", f"{abs(ahead) // 60:02}:{abs(ahead) % 60:02}"
    expected = moment.replace(microsecond=0, tzinfo=UTC) - timedelta(minutes=ahead)
    assert one(f"{moment.isoformat()}{sign}{offset}", "iso") == int(expected.timestamp())


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["0", "5", "900"], "s"),
        (["1400000001", "1400000001.5", " 1400000002", "nan", "x"], "s"),
        (["1588687728923", "-5", "1588687728923"], "ms"),
        (["1588687728923000"], "us"),
        (["1588687728923000000"], "ns"),
        (["2014-05-13", "", "2014-05-14T10:11Z"], "iso"),
        (["May 3", "4"], None),
        ([], None),
        ([None], None),
    ],
)
def test_units_are_guessed_by_magnitude(texts: list[str | None], unit: str | None) -> None:
    assert guess_time(pl.Series(texts, dtype=pl.String)).unit == unit


@pytest.mark.parametrize(
    ("texts", "unit"), [(["inf", "-inf", "nan"], None), (["inf", "1400000001", "-inf"], None), (["inf", "5", "6"], "s")]
)
def test_infinite_numbers_tell_no_unit(texts: list[str], unit: str | None) -> None:
    assert guess_time(pl.Series(texts)).unit == unit


@pytest.mark.parametrize(
    ("texts", "unit", "seconds"),
    [
        (["20200914", "20200915"], "yyyymmdd", 1600041600),
        (["2014", "2016", "2015"], "year", 1388534400),
        (["16203"], "days", 1399939200),
        (["41772.5"], "excel", 1399982400),
        (["1400000001000000000"], "ns", 1400000001),
        (["1.400000001e9"], "s", 1400000001),
        (["0", "7", "9"], "s", 0),
        (["March 3, 2014"], "month day, year", 1393804800),
    ],
)
def test_a_number_is_a_time_after_a_look_at_what_it_would_mean(texts: list[str], unit: str, seconds: int) -> None:
    guess = guess_time(pl.Series(texts))
    assert guess.unit == unit
    assert guess.is_plausible == (seconds > 0)
    found, is_time = whole_seconds(pl.Series(texts), unit)
    assert (found[0], is_time[0]) == (seconds, True)


def test_days_and_months_that_cannot_be_told_apart_are_choices() -> None:
    assert guess_time(pl.Series(["03/02/2014", "04/05/2014"])).choices == ("month/day/year", "day/month/year")
    assert guess_time(pl.Series(["03/02/2014", "13/05/2014"])).unit == "day/month/year"


@pytest.mark.parametrize(
    ("text", "unit", "other"),
    [
        ("1400000001000", "s", "ms"),
        ("1400000001", "ms", "s"),
        ("2014-05-13", "s", "iso"),
        ("20140513", "s", "yyyymmdd"),
        ("05/13/2014", "day/month/year", "month/day/year"),
        ("x", "s", None),
        ("5", "s", None),
    ],
)
def test_a_time_of_another_unit_is_known(text: str, unit: str, other: str | None) -> None:
    assert other_unit(text, unit) == other


@pytest.mark.parametrize(
    ("texts", "unit", "seconds"),
    [
        (["1.60E+09", "1.61E+09"], "s", 1e7),
        (["1.6000005e9", "1.6e9"], "s", 100.0),
        (["1.6000005e12", None, "1.6e12"], "ms", 100.0),
        (["1600000000.0", "1600000001"], "s", 0.0),
        (["1.600000000123e9"], "s", 0.0),
        (["1.6e9", "1600000001", "1600000002"], "s", 0.0),
        ([], "s", 0.0),
    ],
)
def test_times_of_few_digits_are_rounded(texts: list[str | None], unit: str, seconds: float) -> None:
    assert rounding_seconds(pl.Series(texts, dtype=pl.String), unit) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "unit", "seconds"),
    [
        ("1600000000,75", "s", 1_600_000_000),
        ("44087,5", "excel", (44_087 - 25_569) * 86_400 + 43_200),
        ("26666666.5", "minutes", 1_599_999_990),
        ("444444", "hours", 1_599_998_400),
    ],
)
def test_decimal_commas_minutes_and_hours(text: str, unit: str, seconds: int) -> None:
    found, is_time = whole_seconds(pl.Series([text]), unit)
    assert (found[0], is_time[0]) == (seconds, True)


def test_decimal_commas_are_recognised_and_minutes_are_not() -> None:
    assert guess_time(pl.Series(["1600000000,75", "1600000001,5"])).unit == "s"
    assert guess_time(pl.Series(["44087,5", "44088,25"])).unit == "excel"
    guess = guess_time(pl.Series(["26666666", "26666667"]))  # or seconds since the first day of a log
    assert (guess.unit, guess.is_plausible) == ("s", False)
