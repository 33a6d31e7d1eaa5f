"""The source files to one table of rows: how each is read is detected in the driver, and a worker reads it."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.amazon import RELEASES, doubtful_unit, read_metadata
from athwe_core.data.readers.detect import Source
from athwe_core.data.readers.reading import Reading, RowCounts
from athwe_core.data.readers.records import ItemTable
from athwe_core.data.readers.user_table import Detected, TableFiles, TablePart, read_items, table_parts
from athwe_core.data.spark.ids import RawNames
from athwe_core.data.spark.stage import Stage
from athwe_core.data.spark.tasks import ROWS, ReadFile, ReviewFile, read_file


@dataclass(frozen=True)
class Rows:
    """What the readers found, as `Records` has it, before ids are looked at.

    Attributes:
        table: Columns of `ROWS`.
        counts: Rows in the files and read.
        items: The item table, None without one.
        item_ids: The distinct item ids, where the reading of the item table had to know them.
        notes: What the user should know.
    """

    table: DataFrame
    counts: RowCounts
    items: ItemTable | None
    item_ids: RawNames | None
    notes: list[str]


def read_rows(stage: Stage, source: Source, options: PrepareOptions, reading: Reading) -> Rows:
    """Read the files of tables and of Amazon reviews, a task each.

    Args:
        stage: Gets the rows.
        source: The files; their paths are absolute.
        options: How they are read.
        reading: Gets progress, counts and dropped rows.
    Raises:
        DataError: See `read_tables` and `read_amazon`.
    """
    if source.kind in RELEASES:
        return _read_amazon(stage, source, options, reading)
    parts = {path: part for part, path in enumerate(source.interactions)} if source.has_parts else None
    files = TableFiles(source.interactions, next(iter(source.items), None), source.constants, parts)
    found = Detected()
    table, _ = _read_files(stage, source, list(table_parts(files, options, reading, found)), options, reading)
    items, notes = read_items(files, options, reading, found)
    return Rows(table, reading.counts(files.paths), items, None, [*notes, *reading.notes])


def _read_amazon(stage: Stage, source: Source, options: PrepareOptions, reading: Reading) -> Rows:
    first = source.interactions[0]
    files = [ReviewFile(path, source.kind) for path in source.interactions]
    table, latest = _read_files(stage, source, files, options, reading)
    counts = reading.counts(source.interactions)
    notes = doubtful_unit(source.kind, first, counts.read, latest)
    if not source.items:
        return Rows(table, counts, None, None, [*notes, *reading.notes])
    item_ids = RawNames(stage, table, "item", str(first))
    items, item_notes = read_metadata(source.items, item_ids.all_texts(), reading, keep_items=options.keep_items)
    return Rows(table, counts, items, item_ids, [*notes, *item_notes, *reading.notes])


def _read_files(
    stage: Stage, source: Source, parts: list[TablePart] | list[ReviewFile], options: PrepareOptions, reading: Reading
) -> tuple[DataFrame, int]:
    """The table of all rows, and the latest time of reviews."""
    folder = stage.folder / "rows"
    folder.mkdir()
    numbers = {path: number for number, path in enumerate(source.interactions)}
    tasks = [ReadFile(numbers[part.path], part, options.max_bad_lines, folder) for part in parts]
    latest = 0
    for found in stage.run(read_file, tasks):
        reading.take_over(found.reading)
        latest = max(latest, found.latest)
    return stage.read("rows", ROWS), latest
