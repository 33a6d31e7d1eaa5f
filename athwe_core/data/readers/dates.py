"""Dates in the forms that public data sets write them, to whole seconds since 1970 UTC."""

from __future__ import annotations

import math
import re
import zoneinfo
from datetime import UTC, datetime
from functools import cache

import polars as pl

_TIME = (
    r"(?:(?:\s*,\s*|[T ]\s*)(?:at )?(?<hour>[0-9]{1,2})(?::(?<minute>[0-9]{2})(?::(?<second>[0-9]{2})(?:[.,][0-9]+)?)?)?"
    r"\s*(?<half>[AaPp])?(?:\.?[Mm]\.?)?)?"
)
_ZONE = (
    r"\s*(?:(?<sign>[+-])(?<ahead_h>[0-9]{2}):?(?<ahead_m>[0-9]{2})?)?"
    r"\s*[(\[]?(?<zone>[A-Za-z]{1,5}|[A-Za-z]{2,}/[A-Za-z_/+-]{2,30})?[)\]]?"
)
_DAY_NAME = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
_MONTH_NAME = r"(?<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY, _YEAR = r"(?<day>[0-9]{1,2})(?:st|nd|rd|th)?", r"(?<year>[0-9]{4})"
_TWO = r"(?<{}>[0-9]{{2}})"
_CLOCK = r"(?<hour>[0-9]{2}):(?<minute>[0-9]{2})(?::(?<second>[0-9]{2}))?"
FORMS = {
    "iso": rf"{_YEAR}-(?<month>[0-9]{{1,2}})-(?<day>[0-9]{{1,2}}){_TIME}{_ZONE}",
    "yyyymmdd": rf"{_YEAR}{_TWO.format('month')}{_TWO.format('day')}"
    rf"(?:[T ]?{_TWO.format('hour')}(?:{_TWO.format('minute')}(?:{_TWO.format('second')}(?:[.,][0-9]+)?)?)?)?{_ZONE}",
    "year": r"(?<year>[0-9]{4})(?:\.0)?",
    "year/month/day": rf"{_YEAR}[/.](?<month>[0-9]{{1,2}})[/.](?<day>[0-9]{{1,2}}){_TIME}{_ZONE}",
    "month/day/year": rf"(?<month>[0-9]{{1,2}})[/.-](?<day>[0-9]{{1,2}})[/.-]{_YEAR}{_TIME}{_ZONE}",
    "day/month/year": rf"(?<day>[0-9]{{1,2}})[/.-](?<month>[0-9]{{1,2}})[/.-]{_YEAR}{_TIME}{_ZONE}",
    "month day, year": rf"{_DAY_NAME}(?:(?<number>[0-9]{{1,2}})|{_MONTH_NAME}) {_DAY},? {_YEAR}{_TIME}{_ZONE}",
    "day month year": rf"{_DAY_NAME}{_DAY}[ -]{_MONTH_NAME},?[ -]{_YEAR}{_TIME}{_ZONE}",
    "weekday month day time year": rf"{_DAY_NAME}{_MONTH_NAME}\s+{_DAY} {_CLOCK}{_ZONE}\s+{_YEAR}",
}
"""Form -> pattern of the whole text (letters in either case). `month/day/year` and `day/month/year` fit the same texts."""
AMBIGUOUS = ("month/day/year", "day/month/year")
"""Forms that only days above 12 tell apart."""
_MONTHS = dict(
    zip(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        map(str, range(1, 13)),
        strict=True,
    )
)
_ZONE_HOURS = {
    **{"z": 0, "utc": 0, "gmt": 0, "ut": 0, "wet": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6},
    **{
        "pst": -8,
        "pdt": -7,
        "bst": 1,
        "cet": 1,
        "cest": 2,
        "eet": 2,
        "eest": 3,
        "msk": 3,
        "jst": 9,
        "kst": 9,
        "aest": 10,
    },
}
"""Abbreviated zone (small letters) -> hours ahead of UTC; American ones as in RFC 2822."""
_PARTS = ("year", "month", "number", "day", "hour", "minute", "second", "half", "sign", "ahead_h", "ahead_m", "zone")


def date_seconds(texts: pl.Series, form: str) -> pl.Series:
    """Seconds of dates in one form.

    Args:
        texts: (I,) strings, null where absent.
        form: A key of `FORMS`. A date without a zone is UTC, one without a time of day is midnight.
    Returns:
        (I,) int64 seconds, null where the text is no such date, or names an unknown zone.
    """
    found = texts.str.to_lowercase().str.extract_groups(rf"(?i)^\s*{FORMS[form]}\s*$").struct.unnest()
    found = found.with_columns(pl.lit(None, pl.String).alias(name) for name in _PARTS if name not in found.columns)
    month = pl.coalesce(pl.col("number"), pl.col("month").replace(_MONTHS), pl.lit("1"))
    hour, half = pl.col("hour").cast(pl.Int64).fill_null(0), pl.col("half")
    hour = pl.when(half == "p").then(hour % 12 + 12).when(half == "a").then(hour % 12).otherwise(hour)
    numbers = [
        pl.col("year").cast(pl.Int32),
        month.cast(pl.Int8),
        pl.col("day").fill_null("1").cast(pl.Int8),
        hour.cast(pl.Int8),
        *(pl.col(name).fill_null("0").cast(pl.Int8) for name in ("minute", "second")),
    ]
    year, *rest = numbers
    text = pl.concat_str([year.cast(pl.String).str.zfill(4), *(part.cast(pl.String).str.zfill(2) for part in rest)])
    ahead = pl.col("ahead_h").cast(pl.Int64).fill_null(0) * 3600 + pl.col("ahead_m").cast(pl.Int64).fill_null(0) * 60
    frame = found.select(
        text.str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False).alias("local"),
        pl.when(pl.col("sign") == "-").then(-ahead).otherwise(ahead).alias("ahead"),
        pl.when(pl.col("sign").is_null()).then(pl.col("zone")).alias("zone"),
    )
    seconds = frame["local"].dt.epoch("s") - frame["ahead"]
    for zone in frame["zone"].drop_nulls().unique():
        seconds = _in_zone(frame["local"], zone).zip_with((frame["zone"] == zone).fill_null(value=False), seconds)
    return seconds


def format_seconds(texts: pl.Series, pattern: str) -> pl.Series:
    """Seconds of texts in a `strptime` format of Python, e.g. `%d.%m.%Y %H:%M`.

    Args:
        texts: (I,) strings, null where absent.
        pattern: Without a zone the time is UTC, without a time of day it is midnight.
    Returns:
        (I,) int64 seconds, null where a text does not fit.
    """
    distinct = texts.drop_nulls().unique()
    found = pl.Series([_strptime(text, pattern) for text in distinct], dtype=pl.Int64)
    return texts.replace_strict(distinct, found, default=None, return_dtype=pl.Int64)


def is_format(pattern: str) -> bool:
    """Whether Python knows every directive of a `strptime` format, and the format holds a year."""
    try:
        datetime.strptime(datetime(2001, 2, 3, tzinfo=UTC).strftime(pattern), pattern)
    except (ValueError, re.error):
        return False
    return any(part in pattern for part in ("%Y", "%y", "%c", "%x", "%G"))


def _strptime(text: str, pattern: str) -> int | None:
    try:
        found = datetime.strptime(text.strip(), pattern)
    except ValueError:
        return None
    return math.floor((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _in_zone(local: pl.Series, zone: str) -> pl.Series:
    """Seconds of local times in a named zone; null for a zone that is not known."""
    if zone in _ZONE_HOURS:
        return local.dt.epoch("s") - 3600 * _ZONE_HOURS[zone]
    name = _zones().get(zone)
    if name is None:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(local))
    return local.dt.replace_time_zone(name, ambiguous="earliest", non_existent="null").dt.epoch("s")


@cache
def _zones() -> dict[str, str]:
    """Names like Europe/Berlin by their small letters."""
    return {name.lower(): name for name in zoneinfo.available_timezones()}
