"""Raw Amazon dumps of 2014, 2018 and 2023: reviews or ratings, and item metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from athwe_core.data.readers.amazon_metadata import COLUMNS, BrokenProcessPool, LiteralReader, Row, json_row
from athwe_core.data.readers.delimited import RowBlock, open_blocks, split_rows
from athwe_core.data.readers.header import Dialect, is_empty, split_header
from athwe_core.data.readers.json_lines import read_json_lines
from athwe_core.data.readers.lines import blocks, first_lines
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import ItemTable, Records, RecordsBuilder, RowSink, are_ids
from athwe_core.data.readers.times import YEAR_5138, whole_seconds
from athwe_core.errors import DataError
from athwe_core.messages import listed


@dataclass(frozen=True)
class Release:
    """Keys of a review, unit of its time, and columns of a ratings file without header."""

    user: str
    item: str
    time: str
    unit: str
    ratings: tuple[str, ...] = ()


RELEASES = {
    "amazon-2014": Release(
        "reviewerID", "asin", "unixReviewTime", "s", ("reviewerID", "asin", "rating", "unixReviewTime")
    ),
    "amazon-2018": Release(
        "reviewerID", "asin", "unixReviewTime", "s", ("asin", "reviewerID", "rating", "unixReviewTime")
    ),
    "amazon-2023": Release("user_id", "parent_asin", "timestamp", "ms"),
}
_YEAR_1973 = 100_000_000  # seconds; no review is older
_ITEM_ID = re.compile(rb"""["'](?:parent_)?asin["']\s*:\s*["']([^"'\\]*)["']""")
_ROWS_A_FRAME = 20_000


def read_amazon(
    source: str,
    paths: Sequence[Path],
    item_paths: Sequence[Path],
    reading: Reading,
    *,
    keep_items: bool = False,
    max_missing_ids: float = 1.0,
) -> Records:
    """Read reviews (JSON lines) or ratings (CSV), one file after the other, and the metadata of their items.

    Args:
        source: A key of `RELEASES`.
        paths, item_paths: Files of one data set.
        reading: Gets progress, counts and dropped lines: unreadable ones, and those without a time.
        keep_items: Read the metadata of items without any review too.
        max_missing_ids: Largest share of rows, in [0, 1], that may have no user or item.
    Returns:
        The records without rows of a negative time; the item table has title, brand, categories, description and
        image_url, cleaned.
    Raises:
        DataError: A file is unreadable, has too many bad lines, or too many rows without a user or item.
    """
    builder = RecordsBuilder()
    latest = max(read_reviews(source, path, reading, builder) for path in paths)
    counts = reading.counts(paths)
    notes, items = doubtful_unit(source, paths[0], counts.read, latest), None
    if item_paths:
        items, item_notes = read_metadata(item_paths, builder.item_names(str(paths[0])), reading, keep_items=keep_items)
        notes += item_notes
    return builder.build(
        counts, place=str(paths[0]), items=items, notes=[*notes, *reading.notes], max_missing_ids=max_missing_ids
    )


def read_reviews(source: str, path: Path, reading: Reading, builder: RowSink) -> int:
    """Read the reviews or ratings of one file. Returns the latest time in seconds, 0 without a row. Raises DataError."""
    release, latest = RELEASES[source], 0
    for rows in _interactions(path, release, reading):
        seconds, is_time = whole_seconds(rows.frame[release.time], release.unit)
        is_whole = pl.Series(is_time)
        for key in (release.user, release.item):
            is_whole &= are_ids(rows.frame[key])
        for row in (~is_whole).arg_true().to_list():
            reason = f"has no {release.user}, {release.item} or {release.time}"
            reading.bad_row(path, int(rows.lines[row]), reason)
        is_kept = is_whole & pl.Series(seconds >= 0)
        reading.drop(path, "had a negative time", int(is_whole.sum()) - int(is_kept.sum()))
        kept = rows.keep(is_kept).frame
        seconds = seconds[is_kept.to_numpy()]
        latest = max(latest, int(seconds.max(initial=0)))
        builder.add(kept[release.user], kept[release.item], seconds)
    reading.finish(path)
    return latest


def doubtful_unit(source: str, path: Path, num_read: int, latest: int) -> list[str]:
    """A question about reviews whose latest time, in seconds, is none that a review can have."""
    if not num_read or _YEAR_1973 <= latest <= YEAR_5138:
        return []
    return [f"{path.name}: the latest time is {latest} s: another unit than {RELEASES[source].unit}?"]


def _interactions(path: Path, release: Release, reading: Reading) -> Iterator[RowBlock]:
    start = first_lines(path)
    if not start:
        raise is_empty(path)
    keys = (release.user, release.item, release.time)
    if start[0].lstrip().startswith(b"{"):
        return read_json_lines(path, keys, reading)

    def on_bad(line: int, rule: str, value: object, *, num_lines: int = 1) -> None:
        reading.bad_line(path, line, f"{rule}, got {value!r}", num_lines=num_lines)

    if release.ratings:
        found, names = blocks(path, reading), list(release.ratings)
    else:
        header, found = open_blocks(path, reading)
        names = split_header(path, header, Dialect(",", has_quotes=False))
        missing = [key for key in keys if key not in names]
        if missing:
            rule = f"has no column {', '.join(missing)}; its columns are {listed(names)}"
            raise DataError(f"{path} line 1", rule, remedy="Add or rename it")
        if len(set(names)) < len(names):
            rule = f"must name each column once; it names {listed(names)}"
            raise DataError(f"{path} line 1", rule, remedy="Rename or remove the second of each")
    dialect = Dialect(",", has_quotes=True, is_sure=False)
    return split_rows(found, names, dialect, path=path, reading=reading, on_bad=on_bad)


def read_metadata(
    paths: Sequence[Path], reviewed: set[str], reading: Reading, *, keep_items: bool
) -> tuple[ItemTable, list[str]]:
    """Metadata of the items that were reviewed, or of all; of several lines of one item the first counts.

    Args:
        paths: Metadata files.
        reviewed: Ids of the items of the reviews.
        reading: Gets progress and bad lines.
        keep_items: Read items without any review too; their lines are skipped otherwise.
    Returns: The items, and notes on them.
    Raises: DataError for a file that cannot be read.
    """
    table, wanted = _ItemRows(), None if keep_items else reviewed
    with LiteralReader() as literals:
        for path in paths:
            try:
                for number, row in _rows(path, wanted, literals, reading):
                    if row is None:
                        reading.bad_line(path, number, "is neither JSON nor a Python literal with an item id")
                    elif wanted is None or row[0] in wanted:
                        table.add(row)
            except BrokenProcessPool:
                remedy = "A script that prepares such files needs: if __name__ == '__main__'"
                raise DataError(str(path), "broke a process that read it", remedy=remedy) from None
            reading.finish(path, are_rows_counted=False)
    frame = table.frame()
    notes = [f"{table.num_repeated} metadata lines repeat an item; the first one counts"] if table.num_repeated else []
    missing = len(reviewed.difference(frame["item_id"]))
    notes += [f"{missing} of {len(reviewed)} items have no metadata"] if missing else []
    return ItemTable(frame, COLUMNS, ", ".join(path.name for path in paths)), notes


def _rows(
    path: Path, wanted: set[str] | None, literals: LiteralReader, reading: Reading
) -> Iterator[tuple[int, Row | None]]:
    """Numbers and rows of the lines that may be of a wanted item, None = any; JSON is tried first."""
    for block in blocks(path, reading):
        for number, line in block.lines():
            if not line.strip() or (wanted is not None and not _may_name(line, wanted)):
                continue
            is_json, row = json_row(line)
            if is_json:
                yield number, row
            else:
                yield from literals.add(number, line)
    yield from literals.rest()


def _may_name(line: bytes, wanted: set[str]) -> bool:
    """False where a line names other items only: most lines of a full dump, of items that nobody here bought."""
    ids = _ITEM_ID.findall(line)
    return not ids or any(item.decode("utf-8", "replace") in wanted for item in ids)


class _ItemRows:
    """Rows of distinct items, kept in frames so that they cost no Python object each."""

    def __init__(self) -> None:
        self.num_repeated = 0
        self._seen: set[str] = set()
        self._rows: list[Row] = []
        self._frames = [self._frame()]

    def add(self, row: Row) -> None:
        if row[0] in self._seen:
            self.num_repeated += 1
            return
        self._seen.add(row[0])
        self._rows.append(row)
        if len(self._rows) == _ROWS_A_FRAME:
            self._frames.append(self._frame())

    def frame(self) -> pl.DataFrame:
        return pl.concat([*self._frames, self._frame()])

    def _frame(self) -> pl.DataFrame:
        rows, self._rows = self._rows, []
        return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")
