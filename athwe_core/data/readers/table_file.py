"""One file with named columns, as strings in blocks: CSV and the like, JSON lines, parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from athwe_core.data.readers.delimited import (
    MAX_COLUMNS,
    Rows,
    header_text,
    is_empty,
    open_blocks,
    rows_of,
    split_header,
)
from athwe_core.data.readers.json_lines import parse_object, read_json_lines
from athwe_core.data.readers.lines import Reading, first_lines
from athwe_core.data.readers.times import guess_unit
from athwe_core.errors import DataError
from athwe_core.messages import brief, clipped, listed, reason

SEPARATORS = ",\t;|"
BAR = "|"
"""Between the values of a cell that was a list."""
PARQUET_MAGIC = b"PAR1"
MAX_ROWS_PER_BYTE = 100
"""Of parquet beyond its first million rows: real ones need bytes for a row, and a damaged count would be read for years."""
_PARQUET_ROWS = 1_000_000
_SAMPLE = 10_000


class Table:
    """One file with named columns.

    Args:
        path: CSV or the like (the separator is the commonest of tab, comma, semicolon and bar in the header), JSON lines
            (the first line is an object), or parquet, by content.
        reading: Told how far it is and of bad rows.

    Raises:
        DataError: The file is empty, its header names a column twice, or see `blocks`.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self._reading = path, reading
        with path.open("rb") as file:
            is_parquet = file.read(4) == PARQUET_MAGIC
        self.kind, self._separator = "parquet" if is_parquet else "text", ""
        if is_parquet:
            self._schema = {name: kind for name, kind in self._scan().collect_schema().items() if _is_text_like(kind)}
            self.columns = list(self._schema)
        else:
            self.columns = self._text_columns()
        if len(set(self.columns)) < len(self.columns):
            rule = f"must name each column once; it names {listed(self.columns)}"
            raise DataError(f"{path} line 1", rule, remedy="Rename or remove the second of each")

    @property
    def header_place(self) -> str:
        """Where the columns are named, for messages."""
        return f"{self.path} line 1" if self.kind == "text" else str(self.path)

    def rows(self, columns: Sequence[str]) -> Iterator[Rows]:
        """The columns as strings, in blocks; times of parquet's own types as ISO text or whole microseconds."""
        if self.kind == "parquet":
            yield from self._parquet_rows(columns)
        elif self.kind == "json":
            yield from read_json_lines(self.path, list(dict.fromkeys(columns)), self._reading)
        else:
            _, found = open_blocks(self.path, self._reading)

            def on_bad(line: int, rule: str, value: object) -> None:
                self._reading.bad_line(self.path, line, f"{rule}, got {value!r}")

            separator = self._separator
            yield from rows_of(found, self.columns, path=self.path, separator=separator, has_quotes=True, on_bad=on_bad)

    def sample(self, column: str) -> pl.Series:
        """Values of the first rows."""
        if self.kind == "parquet":
            with _named_damage(self.path, f"column {brief(column)} cannot be read"):
                return self._scan().select(_as_text(column, self._schema[column])).head(_SAMPLE).collect().to_series()
        aside = Table(self.path, Reading([self.path], max_bad_lines=1.0))  # neither progress nor bad rows count
        return next((rows.frame[column] for rows in aside.rows([column])), pl.Series([], dtype=pl.String))

    def unit(self, column: str, given: str) -> str | None:
        """The unit of a time column: by its type, else as given, else by its values; None where nothing tells."""
        if self.kind == "parquet" and isinstance(self._schema[column], pl.Date | pl.Datetime):
            return "us"
        return given if given != "auto" else guess_unit(self.sample(column))

    def _text_columns(self) -> list[str]:
        lines = first_lines(self.path)
        if not lines:
            raise is_empty(self.path)
        if lines[0].lstrip().startswith(b"{"):
            self.kind = "json"
            objects = [found for found in map(parse_object, lines) if found]
            if not objects:
                rule, remedy = "must be one JSON object", "Write one object a line, in double quotes: jq -c . FILE"
                raise DataError(f"{self.path} line 1", rule, clipped(lines[0]), remedy)
            names = list(dict.fromkeys(key for found in objects for key in found))
            if len(names) > MAX_COLUMNS:
                rule, remedy = (
                    f"must have at most {MAX_COLUMNS:,} keys in their objects",
                    "Is it one object an interaction?",
                )
                raise DataError(f"{self.path} line 1 to {len(lines)}", rule, len(names), remedy)
            return names
        if lines[0].lstrip().startswith(b"["):
            remedy = "Write one object a line: jq -c '.[]' FILE"
            rule = "must be one JSON object or the names of columns"
            raise DataError(f"{self.path} line 1", rule, lines[0][:20], remedy)
        header = header_text(self.path, lines[0])
        self._separator = max(SEPARATORS, key=header.count)
        return split_header(self.path, header, self._separator, has_quotes=True)

    def _scan(self) -> pl.LazyFrame:
        with _named_damage(self.path, "is not a readable parquet file"):
            found = pl.scan_parquet(self.path)
            found.collect_schema()
        return found

    def _num_rows(self) -> int:
        with _named_damage(self.path, "is not a readable parquet file"):
            count = int(self._scan().select(pl.len()).collect().item())
        most = _PARQUET_ROWS + MAX_ROWS_PER_BYTE * self.path.stat().st_size
        if count > most:
            remedy = "Write it again, with other software"
            raise DataError(f"rows of {self.path}", f"must be at most {most:,} for a file of its size", count, remedy)
        return count

    def _parquet_rows(self, columns: Sequence[str]) -> Iterator[Rows]:
        """In slices, so that memory is bounded by the larger of a slice and a row group of the file."""
        scanned = self._scan().select(*(_as_text(name, self._schema[name]) for name in dict.fromkeys(columns)))
        num_rows, size = self._num_rows(), self.path.stat().st_size
        for start in range(0, num_rows, _PARQUET_ROWS):
            with _named_damage(self.path, f"cannot be read from row {start + 1} on"):
                frame = scanned.slice(start, _PARQUET_ROWS).collect()
            end = min(start + _PARQUET_ROWS, num_rows)
            if len(frame) != end - start:
                rule = f"must hold as many rows as it says, {num_rows:,}"
                raise DataError(str(self.path), rule, start + len(frame), "Fetch or write it again")
            yield Rows(np.arange(start + 1, end + 1, dtype=np.int64), frame)
            self._reading.advance(self.path, size * end // num_rows, end)


@contextmanager
def _named_damage(path: Path, rule: str) -> Iterator[None]:
    """Turn what parquet's reader raises into DataError."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError) as error:
        raise DataError(str(path), f"{rule} ({reason(error)})", remedy="Fetch or write it again") from None


def _is_text_like(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return isinstance(dtype.inner, pl.DataType) and not dtype.inner.is_nested()
    return not dtype.is_nested() and dtype not in (pl.Binary, pl.Object, pl.Duration)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return (
            column.cast(pl.Datetime("us"), strict=False).dt.epoch("us").cast(pl.String)
        )  # null beyond the year 294247
    if isinstance(dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join(BAR, ignore_nulls=True)
    return column.cast(pl.String)
