"""Times as texts to whole seconds since 1970 UTC, exactly: they never pass through a float."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000}
YEAR_5138 = 100_000_000_000  # seconds; a later time is in a smaller unit
_LARGEST = 2**63 - 1
_WHOLE = r"^([0-9]{1,18})(?:\.[0-9]*)?$"
_ISO = (
    r"^\s*([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[T ]+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,][0-9]+)?)?)?"
    r"\s*(?:(Z|z|UTC|GMT)|([+-])([0-9]{2}):?([0-9]{2})?)?\s*$"
)
_SAMPLE = 10_000


def whole_seconds(texts: pl.Series, unit: str) -> tuple[Int64[np.ndarray, "I"], Bool[np.ndarray, "I"]]:
    """Floor times to seconds.

    Args:
        texts: (I,) strings, null where absent.
        unit: `s`, `ms`, `us` (decimal numbers, exponents allowed) or `iso` (dates, with or without a time of day and an
            offset; without one they are UTC).
    Returns:
        (I,) int64 seconds, 0 where a text is no time, and the (I,) mask of those that are. Negative times are times.
    """
    if unit == "iso":
        return _iso_seconds(texts)
    whole = texts.str.extract(_WHOLE).cast(pl.Int64)
    is_time = whole.is_not_null().to_numpy().copy()
    numbers = whole.fill_null(0).to_numpy() // PER_SECOND[unit]
    for row in np.flatnonzero(~is_time).tolist():  # signs, exponents, blanks: rare, so one at a time
        value = _floor(texts[row], PER_SECOND[unit])
        if value is not None:
            numbers[row], is_time[row] = value, True
    return numbers, is_time


def guess_unit(texts: pl.Series) -> str | None:
    """Unit of most of the first texts: `iso`, or `s`, `ms`, `us` by the median of the numbers; None where neither fits."""
    sample = texts.drop_nulls()[:_SAMPLE]
    numbers = sample.str.strip_chars().cast(pl.Float64, strict=False).drop_nulls()
    numbers = numbers.filter(numbers.is_finite())
    if 2 * len(numbers) > len(sample):
        middle = abs(float(np.median(numbers.to_numpy())))
        return next((unit for unit, factor in PER_SECOND.items() if middle < YEAR_5138 * factor), None)
    return "iso" if 2 * int(sample.str.contains(_ISO).sum()) > len(sample) else None


def _floor(text: str | None, per_second: int) -> int | None:
    try:
        value = Decimal((text or "").strip())
    except InvalidOperation:
        return None
    if not value.is_finite() or not -_LARGEST <= value <= _LARGEST:
        return None
    return math.floor(value) // per_second


def _iso_seconds(texts: pl.Series) -> tuple[Int64[np.ndarray, "I"], Bool[np.ndarray, "I"]]:
    parts = texts.str.extract_groups(_ISO).struct.unnest()
    parts.columns = ["year", "month", "day", "hour", "minute", "second", "utc", "sign", "ahead_h", "ahead_m"]
    two = [pl.col(name).fill_null("0").str.zfill(2) for name in ("month", "day", "hour", "minute", "second")]
    text = pl.concat_str([pl.col("year"), *two], separator="-")
    hours, minutes = (pl.col(name).fill_null("0").cast(pl.Int64) for name in ("ahead_h", "ahead_m"))
    ahead = hours * 3600 + minutes * 60
    local = text.str.to_datetime("%Y-%m-%d-%H-%M-%S", time_unit="us", strict=False).dt.epoch("s")
    shift = pl.when(pl.col("sign") == "-").then(-ahead).otherwise(ahead)
    found = parts.select(local - shift).to_series()
    return found.fill_null(0).to_numpy().copy(), found.is_not_null().to_numpy()
