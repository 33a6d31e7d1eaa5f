"""Which interactions stay, as DataFrame operations: repeated rows go, then the k-core, as in `data.filtering`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from athwe_core.data.notes import TimesKept, plausible_times
from athwe_core.data.spark.stage import Stage

_DAY = 86_400


@dataclass(frozen=True)
class KeptRows:
    """What the filter leaves: `table` has the columns of `KeyedRows.table`, `num_distinct` are the rows before the k-core."""

    table: DataFrame
    num_rows: int
    num_distinct: int


def kept_rows(stage: Stage, rows: DataFrame, *, minimum: int) -> KeptRows:
    """The first row of each (user, item, time), of these the largest subset where all users and items have `minimum` rows.

    Args:
        stage: Gets the tables, one for each round of the k-core.
        rows: Columns of `KeyedRows.table`.
        minimum: Rows a user and an item must keep, >= 0.
    """
    first = rows.groupBy("user", "item", "seconds").agg(F.min("place").alias("place"))
    kept = stage.keep(first.select("place", "user", "item", "seconds"), "distinct")
    num_distinct = before = stage.count("distinct")
    turn = 0
    while before and minimum > 1:
        few = {
            what: kept.groupBy(what).count().filter(F.col("count") < minimum).select(what) for what in ("user", "item")
        }
        turn += 1
        kept = stage.keep(
            kept.join(few["user"], "user", "left_anti").join(few["item"], "item", "left_anti"), f"core-{turn}"
        )
        after = stage.count(f"core-{turn}")
        stage.drop(f"core-{turn - 1}")
        if after == before:
            break
        before = after
    return KeptRows(kept, before, num_distinct)


def count_late(rows: DataFrame) -> int:
    """Rows earlier than the row before of the same user, in file order."""
    before = F.lag("seconds").over(Window.partitionBy("user").orderBy("place"))
    return rows.select((before > F.col("seconds")).alias("is_late")).filter("is_late").count()


def count_in_disorder(rows: DataFrame, part: Column) -> int:
    """Users with a row from before a row of an earlier part of a given split."""
    before = F.lag("seconds").over(Window.partitionBy("user").orderBy("part", "seconds"))
    back = rows.withColumn("part", part).select("user", (before > F.col("seconds")).alias("is_back"))
    return back.filter("is_back").select("user").distinct().count()


def times_kept(rows: DataFrame, num_rows: int) -> TimesKept:
    """What is to be known about the times of the rows; `num_rows` is their number."""
    first, end = plausible_times()
    is_odd = (F.col("seconds") < first) | (F.col("seconds") >= end)
    found = rows.agg(
        F.min("seconds").alias("lowest"),
        F.max("seconds").alias("highest"),
        F.count_if(is_odd).alias("num_odd"),
        F.min_by("seconds", F.when(is_odd, F.col("place"))).alias("first_odd"),
    ).first()
    lowest, highest, num_odd, first_odd = found
    if not num_odd:
        return TimesKept(lowest, highest, 0.0, num_rows, 0, None)
    low, high = nth_times(rows, [(num_rows - 1) // 2, num_rows // 2])
    return TimesKept(lowest, highest, (low + high) / 2, num_rows, num_odd, first_odd)


def nth_times(rows: DataFrame, places: list[int]) -> list[int]:
    """The times at some places, from 0, of all times in ascending order: exact, by counts a day and then a second.

    The driver learns a count for each day between the first and the last row.
    """
    day = F.floor(F.col("seconds") / _DAY).cast("long")
    by_day = sorted(rows.groupBy(day.alias("day")).count().collect())
    found = []
    for place in places:
        wanted, within = _bin_of(place, by_day)
        by_second = sorted(rows.filter(day == wanted).groupBy("seconds").count().collect())
        found.append(_bin_of(within, by_second)[0])
    return found


def _bin_of(place: int, counts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (value, count) pair that a place among all of them falls into: its value, and the place within it."""
    for value, count in counts:
        if place < count:
            return value, place
        place -= count
    raise IndexError(place)
