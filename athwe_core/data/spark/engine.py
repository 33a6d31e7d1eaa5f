"""Source files to ordered interactions on Spark: what `read_source` and `number_and_order` give, array for array."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from athwe_core.data.filtering import refuse_too_few
from athwe_core.data.interactions import Interactions, further_items
from athwe_core.data.notes import Filtering, kept_in_catalogue, refuse_disorder
from athwe_core.data.options import PrepareOptions, SplitRule
from athwe_core.data.readers.detect import Source
from athwe_core.data.readers.reading import ByteProgress, Reading
from athwe_core.data.readers.records import ItemTable
from athwe_core.data.spark.filtering import count_in_disorder, count_late, kept_rows, nth_times, times_kept
from athwe_core.data.spark.ids import keyed_rows
from athwe_core.data.spark.order import number_by_appearance, ordered_arrays
from athwe_core.data.spark.read import read_rows
from athwe_core.data.spark.session import spark_session
from athwe_core.data.spark.stage import Stage
from athwe_core.data.spark.tasks import PLACE_BITS
from athwe_core.data.split import (
    GIVEN,
    GLOBAL_TIME,
    Split,
    leave_one_out,
    moment_ranks,
    refuse_moments,
    split_at,
    split_parts,
)
from athwe_core.data.store.dataset import written_to
from athwe_core.safe_write import unfinished_folder


@dataclass(frozen=True)
class SparkEngine:
    """How to prepare on Spark.

    Attributes:
        master: URL of the master, see `spark_session`.
        folder: Of the data set among the prepared ones: the tables between the steps are in it while the work goes on.
        progress: Called as the driver reads: the first rows of each file, and the item file.
    """

    master: str | None
    folder: Path
    progress: ByteProgress

    def load(self, source: Source, options: PrepareOptions) -> tuple[ItemTable | None, Interactions]:
        """The item table, None without one, and the interactions.

        The arrays with a value a row are mapped from unnamed files. The driver holds the distinct ids, and of each user the
        offset and the split.

        Raises:
            AthweError: As the local engine does, and see `spark_session`.
        """
        source, folder = _with_absolute_paths(source), self.folder.absolute()
        reading = Reading(source.paths, options.max_bad_lines, self.progress)
        try:
            with written_to(folder), unfinished_folder(folder) as work, spark_session(self.master, work) as spark:
                return _load(Stage(spark, work), source, options, reading, place=folder)
        finally:
            with suppress(OSError):
                folder.rmdir()  # where nothing was prepared before


def _load(
    stage: Stage, source: Source, options: PrepareOptions, reading: Reading, *, place: Path
) -> tuple[ItemTable | None, Interactions]:
    read = read_rows(stage, source, options, reading)
    first, most = str(source.interactions[0]), options.max_missing_ids
    rows = keyed_rows(stage, read.table, read.item_ids, read.counts, read.notes, place=first, max_missing_ids=most)
    has_parts = source.has_parts and options.split in ("auto", GIVEN)
    minimum = 1 if has_parts else options.min_interactions
    kept = kept_rows(stage, rows.table, minimum=minimum)
    part = F.shiftright("place", PLACE_BITS) if has_parts else None
    split = _SplitCounts.of(kept.table, kept.num_rows, part, options)
    items = number_by_appearance(stage, kept.table, "item", rows.items.texts, {})
    users = number_by_appearance(stage, kept.table, "user", rows.users.texts, {"rows": F.lit(1), **split.wanted})
    num_users, item_names = len(users.names), items.names.to_list()
    refuse_too_few(num_users, len(item_names), name=source.name, minimum=minimum)
    arrays = ordered_arrays(
        stage,
        kept.table,
        users,
        items,
        num_rows=kept.num_rows,
        tie_order=options.tie_order,
        seed=options.seed,
        part=part,
        place=place,
    )
    filtering = Filtering(
        minimum=minimum,
        num_read=rows.num_rows,
        num_distinct=kept.num_distinct,
        num_kept=kept.num_rows,
        users=(rows.num_users, num_users),
        items=(rows.num_items, len(item_names)),
        num_late=count_late(kept.table),
    )
    notes = [*rows.notes, *filtering.notes(), *times_kept(kept.table, kept.num_rows).notes()]
    others = further_items(read.items, item_names) if options.keep_items else []
    if others:
        notes.append(kept_in_catalogue(len(others), read.items.source))  # type: ignore[union-attr]
    offsets = np.concatenate([[0], np.cumsum(users.sums["rows"])]).astype(np.int64)
    if part is not None:
        refuse_disorder(count_in_disorder(kept.table, part), num_users)
    return read.items, Interactions(
        offsets=offsets,
        user_tokens=users.names,
        item_tokens=["", *item_names, *others],
        split=split.split(offsets, users.sums),
        split_rule=split.rule,
        notes=tuple(notes),
        counts=filtering.without(rows.counts),
        **arrays,
    )


@dataclass(frozen=True)
class _SplitCounts:
    """What must be counted of each user's rows for the split: `wanted` by name, from the columns of `KeyedRows.table`."""

    rule: SplitRule
    wanted: dict[str, Column]
    moments: tuple[int, int] = (0, 1)

    @classmethod
    def of(cls, rows: DataFrame, num_rows: int, part: Column | None, options: PrepareOptions) -> _SplitCounts:
        if part is not None:
            return cls("given", {str(number): part == number for number in range(3)})
        if options.split != GLOBAL_TIME or not num_rows:
            return cls("leave-one-out", {})
        first, last = nth_times(rows, list(moment_ranks(num_rows, options.held_out_share)))
        early = {"before_validation": F.col("seconds") < first, "before_test": F.col("seconds") < last}
        return cls("global-time", early, (first, last))

    def split(self, offsets: Int64[np.ndarray, "U_plus_1"], sums: dict[str, Int64[np.ndarray, "U"]]) -> Split:
        if self.rule == "given":
            return split_parts(offsets, [sums[str(number)] for number in range(3)])
        if self.rule == "leave-one-out":
            return leave_one_out(offsets)
        refuse_moments(*self.moments)
        start = offsets[:-1]
        return split_at(offsets, start + sums["before_validation"], start + sums["before_test"])


def _with_absolute_paths(source: Source) -> Source:
    """The source with paths that mean the same in another working folder."""
    return replace(
        source,
        interactions=tuple(path.absolute() for path in source.interactions),
        items=tuple(path.absolute() for path in source.items),
        constants={path.absolute(): columns for path, columns in source.constants.items()},
    )
