"""What the workers run in Python: the local readers on one file, and the one spelling of ids; files in, files out."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from athwe_core.data.readers.amazon import read_reviews
from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.user_table import TablePart, read_part
from athwe_core.errors import AthweError, ConfigError, DataError
from athwe_core.safe_write import reason, replacing

PLACE_BITS = 40
"""A row's place is the number of its file times 2^40 plus its number among the rows that were read from the file."""
ROWS = "place long, user string, item string, seconds long"
NAMES = "name string, count long, first long, text string, is_placeholder boolean, is_rewritten boolean"
_ROWS_A_FILE = 500_000


@dataclass(frozen=True)
class Failure:
    """An error in a task, in a form that travels."""

    kind: type[AthweError]
    name: str
    rule: str
    value: Any
    remedy: str

    @classmethod
    def of(cls, error: AthweError | OSError, path: Path) -> Failure:
        """The failure that an error in a task about `path` is."""
        if isinstance(error, AthweError):
            kind = ConfigError if isinstance(error, ConfigError) else DataError
            return cls(kind, error.name, error.rule, error.value, error.remedy)
        rule = f"cannot be used on a Spark worker ({reason(error)})"
        remedy = "All workers must see the source files and the folder of --prepared under the same paths"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some space, then run the same command again: what was prepared before is kept"
        return cls(DataError, str(error.filename or path), rule, None, remedy)

    def error(self) -> AthweError:
        """The error to raise in the driver."""
        if self.value is None:
            return self.kind(self.name, self.rule, remedy=self.remedy)
        return self.kind(self.name, self.rule, self.value, self.remedy)


@dataclass(frozen=True)
class ReviewFile:
    """A file of Amazon reviews or ratings; `release` is a key of `RELEASES`."""

    path: Path
    release: str


@dataclass(frozen=True)
class ReadFile:
    """The task to read one file.

    Attributes:
        number: Of the file, in the order of reading.
        part: The file, and how it is read.
        max_bad_lines: See `PrepareOptions`.
        folder: Gets the rows.
    """

    number: int
    part: TablePart | ReviewFile
    max_bad_lines: float
    folder: Path


@dataclass(frozen=True)
class FileRead:
    """What became of the lines of a file; `latest` is the latest time of reviews in seconds."""

    reading: Reading
    latest: int


def read_file(task: ReadFile) -> FileRead | Failure:
    """Read one file with the local reader into parquet files with the columns of `ROWS`."""
    part = task.part
    reading, rows = Reading([part.path], task.max_bad_lines), _RowFiles(task.folder, task.number)
    latest = 0
    try:
        if isinstance(part, ReviewFile):
            latest = read_reviews(part.release, part.path, reading, rows)
        else:
            read_part(part, reading, rows)
        rows.write()
    except (AthweError, OSError) as error:
        return Failure.of(error, part.path)
    return FileRead(reading, latest)


class _RowFiles:
    """A `RowSink` that writes parquet files of bounded size."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._waiting: list[pl.DataFrame] = []
        self._num_rows = self._num_waiting = self._num_files = 0

    def add(self, users: pl.Series, items: pl.Series, timestamps: Int64[np.ndarray, "n"], *, part: int = 0) -> None:
        del part  # the number of the file tells it
        texts = {"user": users.fill_null(""), "item": items.fill_null("")}
        start = (self._number << PLACE_BITS) + self._num_rows
        places = np.arange(start, start + len(users), dtype=np.int64)
        self._waiting.append(pl.DataFrame({"place": places, **texts, "seconds": np.asarray(timestamps, np.int64)}))
        self._num_rows += len(users)
        self._num_waiting += len(users)
        if self._num_waiting >= _ROWS_A_FILE:
            self.write()

    def write(self) -> None:
        """Write what waits. Raises OSError."""
        if self._num_waiting:
            path = self._folder / f"part-{self._number:06d}-{self._num_files:06d}.parquet"
            write_parquet(pl.concat(self._waiting), path)
            self._waiting, self._num_waiting, self._num_files = [], 0, self._num_files + 1


@dataclass(frozen=True)
class CleanFile:
    """The task to bring the distinct ids of one parquet file to one spelling.

    Attributes:
        source: Columns name, count and first.
        target: Gets the columns of `NAMES`.
        what: `user` or `item`.
        place: Where the ids come from, for messages.
    """

    source: Path
    target: Path
    what: str
    place: str


@dataclass(frozen=True)
class FileCleaned:
    """How many ids of a file are placeholders, are rewritten, and which of them must not be ids, with their first places."""

    num_placeholders: int
    num_rewritten: int
    refused: Sequence[tuple[int, str]]


def clean_file(task: CleanFile) -> FileCleaned | Failure:
    """Bring distinct ids to one spelling."""
    try:
        frame = pl.read_parquet(task.source, glob=False)
        try:
            clean = clean_ids(frame["name"], task.what, task.place)
        except DataError:
            return FileCleaned(0, 0, _refused(frame, task))
        columns = [clean.texts.alias("text"), clean.is_placeholder.alias("is_placeholder")]
        frame = frame.with_columns(*columns, clean.is_rewritten.alias("is_rewritten"))
        write_parquet(frame, task.target)
    except OSError as error:
        return Failure.of(error, task.source)
    return FileCleaned(int(clean.is_placeholder.sum()), int(clean.is_rewritten.sum()), ())


def _refused(frame: pl.DataFrame, task: CleanFile) -> list[tuple[int, str]]:
    """The ids that `clean_ids` refuses, with their first places."""
    found = []
    for first, name in zip(frame["first"].to_list(), frame["name"].to_list(), strict=True):
        try:
            clean_ids(pl.Series([name], dtype=pl.String), task.what, task.place)
        except DataError:
            found.append((first, name))
    return found


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a file that appears whole, so that a task that is run twice does no harm. Raises OSError."""
    with replacing(path) as temporary:
        try:
            frame.write_parquet(temporary)
        except pl.exceptions.PolarsError as error:  # so it calls a full disk
            raise OSError(
                errno.ENOSPC if "No space" in reason(error) else errno.EIO, reason(error), str(path)
            ) from None
