"""Times as texts to whole seconds since 1970 UTC, exactly: whole numbers never pass through a float."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from athwe_core.data.readers.dates import AMBIGUOUS, FORMS, date_seconds, format_seconds

PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
PER_UNIT = {"minutes": 60, "hours": 3600, "days": 86_400, "excel": 86_400}
EXCEL_EPOCH = 25_569  # 1970-01-01 in days since the last day of 1899, as spreadsheets count
YEAR_5138 = 100_000_000_000  # seconds; a later time is in a smaller unit
EARLIEST = int(datetime(1995, 1, 1, tzinfo=UTC).timestamp())
"""Seconds. A median before is not that of a log: the unit is questioned."""
DIGITS = ("yyyymmdd", "year")
"""Forms of dates that are numbers too."""
FORMAT = "format:"
"""Begins a unit that is a `strptime` format."""
_LARGEST = 2**63 - 1
_WHOLE = r"^([0-9]{1,18})(?:\.[0-9]*)?$"
_FEW_DIGITS = r"^[0-9](?:\.(?<digits>[0-9]{1,7}))?[eE]\+?(?<power>[0-9]{1,2})$"
_SAMPLE = 10_000
_NUMERIC = (*PER_SECOND, "days", "excel")  # minutes and hours are not guessed: seconds since any day look the same
_DECIMAL_COMMA = r"^(\s*[0-9]+),([0-9]+\s*)$"


@dataclass(frozen=True)
class TimeGuess:
    """What a column of times would mean.

    Attributes:
        unit: See `whole_seconds`; None where no unit fits most of the texts, or two fit alike (`choices`).
        median: Of the sample in seconds; 0 without a unit.
        num_distinct: Distinct seconds in the sample.
        choices: Forms that fit alike.
    """

    unit: str | None
    median: int = 0
    num_distinct: int = 0
    choices: tuple[str, ...] = ()

    @property
    def is_plausible(self) -> bool:
        """Whether the median lies between 1995 and the end of next year."""
        return self.unit is not None and is_plausible(self.median)


def latest() -> int:
    """The end of next year, in seconds."""
    return int(datetime(datetime.now(UTC).year + 2, 1, 1, tzinfo=UTC).timestamp())


def is_plausible(seconds: int | float) -> bool:
    """Whether a moment lies between 1995 and the end of next year."""
    return EARLIEST <= seconds < latest()


def whole_seconds(texts: pl.Series, unit: str) -> tuple[Int64[np.ndarray, "I"], Bool[np.ndarray, "I"]]:
    """Floor times to seconds.

    Args:
        texts: (I,) strings, null where absent.
        unit: `s`, `ms`, `us`, `ns`, `minutes`, `hours`, `days` (decimal numbers since 1970, with a point or a comma;
            exponents allowed), `excel` (days as spreadsheets count), a form of `dates.FORMS` (dates, with or without a
            time of day and a zone; UTC without one), or `format:` and a strptime format.
    Returns:
        (I,) int64 seconds, 0 where a text is no time, and the (I,) mask of those that are. Negative times are times.
    """
    if unit.startswith(FORMAT):
        return _masked(format_seconds(texts, unit.removeprefix(FORMAT)))
    if unit in FORMS:
        return _masked(date_seconds(texts, unit))
    texts = _with_points(texts)
    whole = texts.str.extract(_WHOLE).cast(pl.Int64)
    is_time = whole.is_not_null().to_numpy().copy()
    if unit in PER_UNIT:
        is_time[:] = False  # parts of a day count
    numbers = whole.fill_null(0).to_numpy() // PER_SECOND.get(unit, 1)
    for row in np.flatnonzero(~is_time).tolist():  # signs, exponents, blanks, days: rare, so one at a time
        value = _floor(texts[row], unit)
        if value is not None:
            numbers[row], is_time[row] = value, True
    return numbers, is_time


def guess_time(texts: pl.Series) -> TimeGuess:
    """What the first texts of a column would mean as times.

    A number is a time where some unit puts the median between 1995 and the end of next year. Where none does, it is in
    seconds, or in the unit that its size speaks for; the guess is then not plausible. Digits are dates (20200914) or years
    where all of them can be.
    """
    sample = texts.drop_nulls()[:_SAMPLE]
    sample = sample.filter(sample.str.strip_chars() != "")
    numbers = _with_points(sample).str.strip_chars().cast(pl.Float64, strict=False)
    numbers = numbers.filter(numbers.is_finite())
    is_numeric = 2 * len(numbers) > len(sample)
    fits = {form: date_seconds(sample, form) for form in (DIGITS if is_numeric else FORMS)}
    shares = {form: (len(sample) - seconds.null_count()) / max(len(sample), 1) for form, seconds in fits.items()}
    if is_numeric:
        middle = float(np.median(numbers.to_numpy()))
        for form in DIGITS:
            if shares[form] > 0.99 and is_plausible(_median(fits[form])):
                return _guess(form, fits[form])
        units = [unit for unit in _NUMERIC if is_plausible(_in_seconds(middle, unit))]
        by_size = [unit for unit in PER_SECOND if abs(middle) < YEAR_5138 * PER_SECOND[unit]]
        unit = next(iter([*units, *by_size]), None)
        if unit is None:
            return TimeGuess(None)
        seconds, is_time = whole_seconds(sample, unit)
        return _guess(unit, pl.Series(seconds[is_time]))
    best = max(shares.values(), default=0)
    if best <= 0.5:
        return TimeGuess(None)
    forms = [form for form, share in shares.items() if share == best]
    if len(forms) > 1 and set(forms) <= set(AMBIGUOUS):
        return TimeGuess(None, choices=tuple(forms))
    return _guess(forms[0], fits[forms[0]])


def rounding_seconds(texts: pl.Series, unit: str) -> float:
    """How coarse times are that were written with few digits (`1.60E+09`, or float32); 0 where most are not.

    Args:
        texts: (I,) strings, null where absent.
        unit: See `whole_seconds`.
    """
    parts = texts.drop_nulls().str.extract_groups(_FEW_DIGITS).struct.unnest().drop_nulls("power")
    if 2 * len(parts) <= len(texts) or unit not in PER_SECOND:
        return 0.0
    digits = int(parts["digits"].fill_null("").str.len_bytes().to_numpy().max())
    power = int(parts["power"].cast(pl.Int64).to_numpy().max())
    return float(10.0 ** (power - digits) / PER_SECOND[unit])


def other_unit(text: str | None, unit: str) -> str | None:
    """Another unit, in which a text that is no plausible time in the unit of its column is one; None where there is none."""
    for other in (*PER_SECOND, *FORMS):
        found, is_time = whole_seconds(pl.Series([text], dtype=pl.String), other)
        if other not in (unit, "year") and is_time[0] and is_plausible(int(found[0])):
            return other
    return None


def _with_points(texts: pl.Series) -> pl.Series:
    """Decimal numbers with a point: `1600000000,5` is how many countries write them."""
    return texts.str.replace(_DECIMAL_COMMA, "$1.$2")


def _guess(unit: str, seconds: pl.Series) -> TimeGuess:
    return TimeGuess(unit, _median(seconds), seconds.n_unique())


def _median(seconds: pl.Series) -> int:
    values = seconds.drop_nulls()
    return int(np.median(values.to_numpy())) if len(values) else 0


def _in_seconds(value: float, unit: str) -> float:
    if unit in PER_SECOND:
        return value / PER_SECOND[unit]
    return (value - (EXCEL_EPOCH if unit == "excel" else 0)) * PER_UNIT[unit]


def _masked(seconds: pl.Series) -> tuple[Int64[np.ndarray, "I"], Bool[np.ndarray, "I"]]:
    return seconds.fill_null(0).to_numpy().copy(), seconds.is_not_null().to_numpy().copy()


def _floor(text: str | None, unit: str) -> int | None:
    try:
        value = Decimal((text or "").strip())
    except InvalidOperation:
        return None
    if not value.is_finite() or not -_LARGEST <= value <= _LARGEST:
        return None
    if unit in PER_UNIT:  # spreadsheets hold a second as a rounded part of a day
        found = round((value - (EXCEL_EPOCH if unit == "excel" else 0)) * PER_UNIT[unit])
        return found if abs(found) <= _LARGEST else None
    return math.floor(value) // PER_SECOND[unit]
