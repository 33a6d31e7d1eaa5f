"""Raw ids to keys: one spelling for each id, and a number that tells where it first appears."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from athwe_core.data.notes import MissingIds, doubtful_user, no_usable_rows, several_spellings
from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.spark.stage import Stage
from athwe_core.data.spark.tasks import NAMES, CleanFile, clean_file


@dataclass(frozen=True)
class KeyedRows:
    """The rows with a user and an item.

    Attributes:
        table: Columns place, user and item (keys), seconds.
        num_rows: Its rows.
        num_users, num_items: Distinct keys in it.
        users, items: The distinct ids.
        counts: Of the files, without rows that have no id.
        notes: What the user should know about the ids.
    """

    table: DataFrame
    num_rows: int
    num_users: int
    num_items: int
    users: RawNames
    items: RawNames
    counts: RowCounts
    notes: list[str]


class RawNames:
    """The distinct ids of one kind in the rows, each with its spelling, its rows and its first place.

    Args:
        stage: Gets the tables.
        rows: Columns of `ROWS`.
        what: `user` or `item`.
        place: Where the ids come from, for messages.
    Raises:
        DataError: See `clean_ids`.
    """

    def __init__(self, stage: Stage, rows: DataFrame, what: str, place: str) -> None:
        self.what, self._stage = what, stage
        counted = rows.groupBy(F.col(what).alias("name")).agg(
            F.count("*").alias("count"), F.min("place").alias("first")
        )
        raw, named = f"{what}-names", f"{what}-spelled"
        stage.keep(counted, raw)
        target = stage.folder / named
        target.mkdir()
        tasks = [CleanFile(path, target / path.name, what, place) for path in stage.files(raw)]
        cleaned = stage.run(clean_file, tasks)
        refused = [name for _, name in sorted(pair for file in cleaned for pair in file.refused)]
        if refused:
            clean_ids(pl.Series(refused, dtype=pl.String), what, place)  # which raises
        self.num_placeholders = sum(file.num_placeholders for file in cleaned)
        self._num_rewritten = sum(file.num_rewritten for file in cleaned)
        self._table = stage.read(named, NAMES)

    @cached_property
    def keys(self) -> DataFrame:
        """Columns name, text and key: the first place of any spelling. Placeholders have no key."""
        found = self._table.filter(~F.col("is_placeholder"))
        if not self._num_rewritten:
            return found.select("name", "text", F.col("first").alias("key"))
        return found.select("name", "text", F.min("first").over(Window.partitionBy("text")).alias("key"))

    @cached_property
    def texts(self) -> DataFrame:
        """Columns key and text, one row an id."""
        return self.keys.select("key", "text").distinct() if self._num_rewritten else self.keys.select("key", "text")

    def all_texts(self) -> set[str]:
        """Every distinct id in its spelling, placeholders among them, in the memory of the driver."""
        files = self._stage.frames(f"{self.what}-spelled", ["text"])
        return {text for frame in files for text in frame["text"].to_list()}

    def placeholders(self) -> list[tuple[str, str, int]]:
        """(what, name, rows) of each placeholder, in order of appearance."""
        if not self.num_placeholders:
            return []
        found = self._table.filter("is_placeholder").orderBy("first").select("name", "count").collect()
        return [(self.what, name, count) for name, count in found]

    def spelling_notes(self) -> list[str]:
        """One sentence where ids are written in several ways."""
        if not self._num_rewritten:
            return []
        first = self._table.filter("is_rewritten").orderBy("first").select("name", "text").first()
        return [several_spellings(self.what, *first)] if first is not None else []


def keyed_rows(
    stage: Stage,
    rows: DataFrame,
    items: RawNames | None,
    counts: RowCounts,
    notes: list[str],
    *,
    place: str,
    max_missing_ids: float,
) -> KeyedRows:
    """Give each row the keys of its user and item; rows with a placeholder are dropped.

    Args:
        stage: Gets the tables.
        rows: Columns of `ROWS`.
        items: The item ids, where they are known already.
        counts: Of the rows.
        notes: What the user should know so far.
        place: Where they come from, for messages.
        max_missing_ids: See `PrepareOptions`.
    Raises:
        DataError: Too many rows have a placeholder, no row is left, or see `clean_ids`.
    """
    users = RawNames(stage, rows, "user", place)
    items = items or RawNames(stage, rows, "item", place)
    keys = [
        names.keys.select(F.col("name").alias(names.what), F.col("key").alias(f"{names.what}_key"))
        for names in (users, items)
    ]
    joined = rows.join(keys[0], "user").join(keys[1], "item")
    table = stage.keep(
        joined.select("place", F.col("user_key").alias("user"), F.col("item_key").alias("item"), "seconds"), "keyed"
    )
    num_rows = stage.count("keyed")
    missing = MissingIds(counts.read - num_rows, counts.read, [*users.placeholders(), *items.placeholders()])
    missing.refuse_above(max_missing_ids, place)
    counts = missing.without(counts)
    if not num_rows:
        raise no_usable_rows(place)
    by_user = table.groupBy("user").count()
    largest = F.max(F.struct("count", (-F.col("user")).alias("user")))  # of equal counts the user that appears first
    num_users, (num_most, user) = by_user.agg(F.count("*"), largest).first()
    num_items = table.agg(F.count_distinct("item")).first()[0]
    notes = [counts.sentence(), *notes, *users.spelling_notes(), *items.spelling_notes(), *missing.notes()]
    name = users.texts.filter(F.col("key") == -user).first()["text"]
    notes += doubtful_user(name, num_most, num_others=num_users - 1, num_rows=num_rows)
    return KeyedRows(table, num_rows, num_users, num_items, users, items, counts, notes)
