"""Numbers by first appearance, the order of each user's rows, and the arrays that come of it, a partition at a time."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from athwe_core.data.options import TieOrder
from athwe_core.data.spark.stage import Stage

_ROWS_A_PARTITION = 2_000_000
_ARRAYS = {"item_ids": np.int32, "timestamps": np.int64, "file_rows": np.int64}


@dataclass(frozen=True)
class Numbered:
    """Ids with their numbers by first appearance in the rows that are kept.

    Attributes:
        table: Columns key and number; of users also the sums that were wanted.
        names: The ids by number, in the memory of the driver.
        sums: Those sums by number.
    """

    table: DataFrame
    names: pl.Series
    sums: dict[str, Int64[np.ndarray, "N"]]


def number_by_appearance(
    stage: Stage, rows: DataFrame, what: str, texts: DataFrame, sums: dict[str, Column]
) -> Numbered:
    """Number users or items by the first of their rows.

    Args:
        stage: Gets the tables.
        rows: Columns of `KeyedRows.table`.
        what: `user` or `item`.
        texts: Columns key and text.
        sums: What to sum over the rows of each, by name.
    """
    totals = [F.sum(value.cast("long")).alias(name) for name, value in sums.items()]
    firsts = rows.groupBy(F.col(what).alias("key")).agg(F.min("place").alias("first"), *totals)
    ranked = stage.ranked(stage.keep(firsts, f"{what}-firsts"), "first", "number")
    named = ranked.join(texts, "key").orderBy("number")
    table = stage.keep(named.select("number", "key", "text", *sums), f"{what}-numbers")
    frame = pl.concat(stage.frames(f"{what}-numbers", ["text", *sums]))
    arrays = {name: frame[name].to_numpy().astype(np.int64) for name in sums}
    return Numbered(table.select("key", "number"), frame["text"], arrays)


def ordered_arrays(
    stage: Stage,
    rows: DataFrame,
    users: Numbered,
    items: Numbered,
    *,
    num_rows: int,
    tie_order: TieOrder,
    seed: int,
    part: Column | None,
    place: Path,
) -> dict[str, np.ndarray[Any, Any]]:
    """Item ids, times and file rows in the order of users, parts, times and ties, as `order_by_time` has it.

    Args:
        stage: Gets the tables.
        rows: Columns of `KeyedRows.table`.
        users, items: Their numbers.
        num_rows: I.
        tie_order, seed: See `order_by_time`. The random order is drawn in the driver: 8 bytes a row.
        part: Of a given split; None without one.
        place: Folder whose disk holds the arrays.
    Returns:
        `item_ids`, `timestamps` and `file_rows`, (I,) each, in unnamed files.
    """
    placed = stage.ranked(rows, "place", "file_row")
    for what, numbered in (("user", users), ("item", items)):
        keys = numbered.table.select(F.col("key").alias(what), F.col("number").alias(f"{what}_number"))
        placed = placed.join(keys, what)
    placed = placed.withColumn("part", F.lit(0) if part is None else part)
    placed = _with_ties(stage, placed, items, num_rows=num_rows, tie_order=tie_order, seed=seed)
    count = max(stage.spark.sparkContext.defaultParallelism, -(-num_rows // _ROWS_A_PARTITION))
    ordered = placed.repartitionByRange(count, "user_number")
    ordered = ordered.sortWithinPartitions("user_number", "part", "seconds", "tie")
    item_ids = (F.col("item_number") + 1).cast("int").alias("item_ids")
    columns = [item_ids, F.col("seconds").alias("timestamps"), F.col("file_row").alias("file_rows")]
    stage.keep(ordered.select(*columns), "ordered")
    with ExitStack() as files:
        opened = {name: files.enter_context(tempfile.TemporaryFile(dir=place)) for name in _ARRAYS}
        for frame in stage.frames("ordered", list(_ARRAYS)):
            for name, dtype in _ARRAYS.items():
                opened[name].write(np.ascontiguousarray(frame[name].to_numpy(), dtype).data)
        for file in opened.values():
            file.flush()
        return {name: np.memmap(opened[name], dtype, mode="r") for name, dtype in _ARRAYS.items()}


def _with_ties(
    stage: Stage, placed: DataFrame, items: Numbered, *, num_rows: int, tie_order: TieOrder, seed: int
) -> DataFrame:
    """Add the column tie, by which rows of one user and time are ordered."""
    if tie_order == "item":
        ranks = items.names.rank("ordinal").cast(pl.Int64)
        frame = pl.DataFrame({"item_number": np.arange(len(ranks)), "tie": ranks})
        return placed.join(stage.put(frame, "item-ties", "item_number long, tie long"), "item_number")
    if tie_order == "random":
        draw = np.random.default_rng(seed).permutation(num_rows)
        for start in range(0, num_rows, _ROWS_A_PARTITION):
            drawn = draw[start : start + _ROWS_A_PARTITION]
            frame = pl.DataFrame({"file_row": np.arange(start, start + len(drawn)), "tie": drawn})
            table = stage.put(frame, "row-ties", "file_row long, tie long")
        return placed.join(table, "file_row")
    return placed.withColumn("tie", F.col("file_row"))
