"""Checks of a time column: one kind of values, precise enough, and not days alone beside a time of day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from athwe_core.data.readers.columns import Columns
from athwe_core.data.readers.delimited import RowBlock
from athwe_core.data.readers.times import (
    EARLIEST,
    FORMAT,
    PER_SECOND,
    TimeGuess,
    latest,
    other_unit,
    rounding_seconds,
    whole_seconds,
)
from athwe_core.errors import DataError
from athwe_core.messages import brief, clipped

_TRIED = 20  # rows of a block that are tried in other units
_DAY = 86_400  # seconds
_CLOCK = r"^\s*[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?\s*$"


@dataclass
class TimeColumn:
    """The time column of a file, for messages about its values; `good` is the line of one that fits."""

    path: Path
    columns: Columns
    good: str = ""


def refuse_mixed(
    rows: RowBlock, seconds: Int64[np.ndarray, "R"], is_time: Bool[np.ndarray, "R"], times: TimeColumn
) -> None:
    """Refuse a column where some times are in another unit or form than the rest."""
    texts, chosen = rows.frame[times.columns.time], times.columns
    plausible = is_time & (seconds >= EARLIEST) & (seconds < latest())
    if not times.good and plausible.any():
        row = int(np.flatnonzero(plausible)[0])
        times.good = f"line {rows.lines[row]} has {clipped(texts[row])!r} ({chosen.unit.removeprefix(FORMAT)})"
    for row in np.flatnonzero(~plausible)[:_TRIED].tolist() if times.good else ():
        other = other_unit(texts[row], chosen.unit)
        if other is not None:
            rule = f"must be of one kind: {times.good}, line {rows.lines[row]} has {clipped(texts[row])!r} ({other})"
            remedy = "Write all times alike, or name another column with --time-column"
            raise DataError(f"{times.path}: column {brief(chosen.time)}", rule, remedy=remedy)


def no_times(path: Path, name: str, sample: pl.Series, guess: TimeGuess) -> DataError:
    """The error for a column that holds no times, or dates that fit two forms."""
    shown = [text and clipped(text) for text in sample.to_list()[:3]]
    where = f"{path}: column {brief(name)}"
    if guess.choices:
        rule = "must show whether days or months come first"
        remedy = " or ".join(f"--time-unit {choice}" for choice in guess.choices)
        return DataError(where, rule, shown, f"Name it: {remedy}")
    rule = f"must hold times: numbers ({', '.join(PER_SECOND)} since 1970) or dates"
    remedy = "Name another column with --time-column, or describe the dates with --time-format, e.g. '%d.%m.%Y %H:%M'"
    return DataError(where, rule, shown, remedy)


def doubts_about_times(path: Path, texts: pl.Series, unit: str, others: Sequence[pl.Series]) -> list[str]:
    """Questions about the first values of a time column.

    Args:
        path: For messages.
        texts: (I,) the values, null where absent.
        unit: See `whole_seconds`.
        others: (I,) values of columns that are named like times and hold none.
    Raises:
        DataError: The times were cut to days or more.
    """
    found = []
    coarse = rounding_seconds(texts, unit)
    if coarse >= _DAY:
        rule = f"must not be numbers cut to a few digits: they are {coarse / _DAY:,.0f} days apart"
        remedy = "Write the times as whole numbers or dates, or name another column with --time-column"
        raise DataError(f"{path}: column {brief(texts.name)}", rule, clipped(texts[0] or ""), remedy)
    if coarse > 1:
        found.append(
            f"{path.name}: the times in {brief(texts.name)} are rounded to about {coarse:,.0f} s (float32?): "
            "within that, the order of a user's items is lost"
        )
    seconds, is_time = whole_seconds(texts, unit)
    clocks = [other.name for other in others if other.str.contains(_CLOCK).fill_null(value=False).all()]
    if clocks and is_time.any() and not (seconds[is_time] % _DAY).any():
        found.append(
            f"{path.name}: {brief(texts.name)} holds days, and {brief(clocks[0])} the time of day, which is not read: "
            "join both in one column to order the items of a day"
        )
    return found
