"""Tables between the steps: parquet files in one folder, which all workers share and which survives each of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from athwe_core.data.spark.tasks import Failure, write_parquet

CHUNK_BITS = 20
"""Ranks are counted in chunks of 2^20 places, so that no worker sorts more than a million of them."""
_GLOB = re.compile(r"([\[\]{}*?\\])")
_PART = re.compile(r"part-(\d+)")
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Stage:
    """Intermediate tables of one preparation.

    Attributes:
        spark: The session.
        folder: On a file system that the driver and all workers share under the same path.
    """

    spark: SparkSession
    folder: Path

    def keep(self, table: DataFrame, name: str) -> DataFrame:
        """Compute a table once; what is returned reads it from the disk, so that a lost worker costs its own tasks only."""
        table.write.parquet(f"file://{self.folder / name}")
        return self.read(name, table.schema)

    def read(self, name: str, schema: Any) -> DataFrame:
        """A table in the folder; `schema` as Spark has it, or in SQL's words."""
        return self.spark.read.schema(schema).parquet("file://" + _GLOB.sub(r"\\\1", str(self.folder / name)))

    def put(self, frame: pl.DataFrame, name: str, schema: str) -> DataFrame:
        """A table of the driver for the workers."""
        (self.folder / name).mkdir(exist_ok=True)
        number = len(self.files(name))
        write_parquet(frame, self.folder / name / f"part-{number:06d}.parquet")
        return self.read(name, schema)

    def count(self, name: str) -> int:
        """Rows of a table, by what its files say."""
        return int(pl.scan_parquet(self.files(name), glob=False).select(pl.len()).collect().item())

    def drop(self, name: str) -> None:
        """Remove a table that nothing reads any more."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def files(self, name: str) -> list[Path]:
        """The files of a table in the order of its partitions."""
        found = (self.folder / name).glob("part-*.parquet")
        return sorted(found, key=lambda path: (int(_PART.match(path.name)[1]), path.name))  # type: ignore[index]

    def frames(self, name: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """A table in the order of its partitions, one at a time."""
        for path in self.files(name):
            yield pl.read_parquet(path, columns=list(columns), glob=False)

    def run(self, function: Callable[[Task], Result | Failure], tasks: Sequence[Task]) -> list[Result]:
        """Run a Python function on the workers, a task each. Raises the error of the first task that returned one."""
        context = self.spark.sparkContext
        found = context.parallelize(tasks, max(len(tasks), 1)).map(function).collect()
        for result in found:
            if isinstance(result, Failure):
                raise result.error()
        return list(found)

    def ranked(self, table: DataFrame, column: str, name: str) -> DataFrame:
        """Add the rank of each row, from 0, by a column of distinct whole numbers >= 0.

        The driver learns how many rows each chunk of 2^20 numbers has; within a chunk the workers count.
        """
        chunk = F.shiftright(column, CHUNK_BITS)
        counts = sorted(table.groupBy(chunk.alias("chunk")).count().collect())
        before = accumulate((count for _, count in counts), initial=0)
        rows = [(number, start) for (number, _), start in zip(counts, before, strict=False)]
        starts = self.spark.createDataFrame(rows, "chunk long, before long")
        within = F.row_number().over(Window.partitionBy("chunk").orderBy(column)) - 1
        chunked = table.withColumn("chunk", chunk).withColumn("within", within)
        joined = chunked.join(F.broadcast(starts), "chunk")
        return joined.withColumn(name, F.col("before") + F.col("within")).drop("chunk", "within", "before")
