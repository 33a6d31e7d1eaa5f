"""One file with named columns, as strings in blocks: CSV and the like, JSON lines, parquet, Feather."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from athwe_core.data.readers.columns import example_names, looks_like_data
from athwe_core.data.readers.delimited import RowBlock, open_blocks, split_rows
from athwe_core.data.readers.header import MAX_COLUMNS, Dialect, header_text, is_empty, refuse_note, split_header
from athwe_core.data.readers.json_lines import all_keys, parse_object, read_json_lines
from athwe_core.data.readers.lines import blocks, first_lines
from athwe_core.data.readers.lists import BAR
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError
from athwe_core.messages import brief, clipped, listed, reason

SEPARATORS = (",", "\t", ";", "|", "::")
PARQUET_MAGIC, FEATHER_MAGIC = b"PAR1", b"ARROW1"
MAX_ROWS_PER_BYTE = 100
"""Of parquet and Feather beyond their first million rows: a damaged count of rows would be read for years."""
_ROWS_AT_ONCE = 1_000_000
_SAMPLE = 10_000
_TYPED = re.compile(r"(.+):(?:token|token_seq|float|float_seq)")
_EXACT, _EXACT_32 = 2**53, 2**24  # largest whole number below which a float64, a float32 is exact


def binary_format(path: Path) -> str | None:
    """`parquet` or `feather` by the first bytes, None for other files."""
    with path.open("rb") as file:
        start = file.read(len(FEATHER_MAGIC))
    return {PARQUET_MAGIC: "parquet"}.get(start[:4]) or {FEATHER_MAGIC: "feather"}.get(start)


class Table:
    """One file with named columns.

    Args:
        path: CSV or the like (the separator is the commonest one in the first line), JSON lines (the first line is an
            object), parquet or Feather, by content.
        reading: Gets progress, counts and bad rows.
        names: Column names of a text file without header line; None reads the header.
        quotes: `double`: fields may stand in double quotes; `none`: quotes are ordinary characters; `auto`: as `double`, but
            quotes that do not pair are noticed.
        constants: Column name -> its one value: of a file in a folder `day=2020-09-14`.

    Attributes:
        kind: `text`, `json`, `parquet` or `feather`.
        names: As given.
        columns: Column names; of JSON lines the keys of the first lines, see `read_all_keys`.
        unreadable: Columns that cannot be read as text, each with its type.
        constants: As given, without columns that the file has itself.

    Raises:
        DataError: The file is empty, has no header, names a column twice, or see `blocks`.
    """

    def __init__(
        self,
        path: Path,
        reading: Reading,
        *,
        names: Sequence[str] | None = None,
        quotes: str = "auto",
        constants: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self._reading, self.names, self._quotes = path, reading, names, quotes
        self.unreadable: list[str] = []
        self._separator = ""
        self.constants = dict(constants or {})
        self.kind = binary_format(path) or "text"
        if self.kind == "text":
            self.columns = self._text_columns()
        else:
            schema = dict(self._scan().collect_schema())
            self._schema = {name: kind for name, kind in schema.items() if _is_text_like(kind)}
            for name in [name for name, kind in self._schema.items() if kind == pl.Binary]:
                values = self.sample([name]).to_series()
                if values.null_count() or values.str.contains("\0", literal=True).any():
                    self._schema.pop(name)
            self.unreadable = [f"{name} ({kind})" for name, kind in schema.items() if name not in self._schema]
            self.columns = list(self._schema)
        if len(set(self.columns)) < len(self.columns):
            rule = f"must name each column once; it names {listed(self.columns)}"
            raise DataError(f"{path} line 1", rule, remedy="Rename or remove the second of each")
        self.constants = {name: value for name, value in self.constants.items() if name not in self.columns}
        self.columns += self.constants

    @property
    def header_place(self) -> str:
        """Where the columns are named, for messages."""
        return f"{self.path} line 1" if self.kind in ("text", "json") else str(self.path)

    @property
    def listed_columns(self) -> str:
        """What the columns are, for messages."""
        more = f"; not text: {listed(self.unreadable)}" if self.unreadable else ""
        return listed(self.columns) + more

    def read_all_keys(self) -> None:
        """Complete the `columns` of JSON lines with the keys that first occur late in the file."""
        if self.kind == "json":
            found, line = all_keys(self.path)
            if line:
                raise _too_many_keys(self.path, line, len(found))
            self.columns = list(dict.fromkeys([*self.columns, *found]))

    def rows(self, columns: Sequence[str]) -> Iterator[RowBlock]:
        """The columns as strings, in blocks; dates of a binary file's own types as whole microseconds."""
        wanted = list(dict.fromkeys(name for name in columns if name not in self.constants))
        for rows in self._rows(wanted):
            frame = rows.frame.with_columns(pl.lit(value).alias(name) for name, value in self.constants.items())
            yield RowBlock(rows.lines, frame)

    def sample(self, columns: Sequence[str]) -> pl.DataFrame:
        """The columns of the first rows."""
        if self.kind in ("parquet", "feather"):
            chosen = [_as_text(name, self._schema[name]) for name in dict.fromkeys(columns) if name in self._schema]
            with _named_damage(self.path, f"column {brief(columns[0])} cannot be read"):
                frame = self._scan().select(chosen).head(_SAMPLE).collect()
            return frame.with_columns(pl.lit(value).alias(name) for name, value in self.constants.items())
        aside = Table(
            self.path, Reading([self.path], 1.0), names=self.names, quotes=self._quotes, constants=self.constants
        )
        aside.columns = self.columns  # neither progress nor bad rows count
        found = next((rows.frame for rows in aside.rows(columns) if len(rows.frame)), None)
        return found if found is not None else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))

    def is_dated(self, column: str) -> bool:
        """Whether a binary file has the column as dates or moments; `rows` gives them in microseconds."""
        return self.kind in ("parquet", "feather") and isinstance(self._schema.get(column), pl.Date | pl.Datetime)

    def _rows(self, columns: list[str]) -> Iterator[RowBlock]:
        if self.kind in ("parquet", "feather"):
            yield from self._binary_rows(columns)
        elif self.kind == "json":
            yield from read_json_lines(self.path, columns, self._reading)
        else:
            reading = self._reading
            found = blocks(self.path, reading) if self.names is not None else open_blocks(self.path, reading)[1]

            def on_bad(line: int, rule: str, value: object, *, num_lines: int = 1) -> None:
                reading.bad_line(self.path, line, f"{rule}, got {value!r}", num_lines=num_lines)

            names = [name for name in self.columns if name not in self.constants]
            yield from split_rows(found, names, self._dialect(), path=self.path, reading=reading, on_bad=on_bad)

    def _dialect(self) -> Dialect:
        has_quotes = self._quotes != "none" and len(self._separator) == 1
        return Dialect(self._separator, has_quotes, is_sure=self._quotes != "auto")

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
                raise _too_many_keys(self.path, len(lines), len(names))
            return names
        if lines[0].lstrip().startswith(b"["):
            remedy = "Write one object a line: jq -c '.[]' FILE"
            rule = "must be one JSON object or the names of columns"
            raise DataError(f"{self.path} line 1", rule, lines[0][:20], remedy)
        header = header_text(self.path, lines[0])
        if self.names is None:
            refuse_note(self.path, header)
        self._separator = max(SEPARATORS, key=lambda separator: header.count(separator) * len(separator))
        fields = split_header(self.path, header, self._dialect())
        if self.names is not None:
            if len(self.names) != len(fields):
                rule, remedy = "must name each of the columns", f"Line 1 has {len(fields)} fields: {listed(fields)}"
                raise DataError(f"--columns for {self.path}", rule, ",".join(self.names), remedy)
            return list(self.names)
        if looks_like_data(fields):
            rule = f"must name the columns, and holds values: {listed(fields)}"
            remedy = f"Name them with --columns, e.g.: --columns {example_names(fields)}"
            raise HeaderMissingError(f"{self.path} line 1", rule, remedy=remedy, num_fields=len(fields))
        typed = [_TYPED.fullmatch(field) for field in fields]
        return [found[1] for found in typed if found] if all(typed) else fields

    def _scan(self) -> pl.LazyFrame:
        with _named_damage(self.path, f"is not a readable {self.kind} file"):
            found = pl.scan_parquet(self.path) if self.kind == "parquet" else pl.scan_ipc(self.path)
            found.collect_schema()
        return found

    def _num_rows(self) -> int:
        with _named_damage(self.path, f"is not a readable {self.kind} file"):
            count = int(self._scan().select(pl.len()).collect().item())
        most = _ROWS_AT_ONCE + MAX_ROWS_PER_BYTE * self.path.stat().st_size
        if count > most:
            remedy = "Write it again, with other software"
            raise DataError(f"rows of {self.path}", f"must be at most {most:,} for a file of its size", count, remedy)
        return count

    def _binary_rows(self, columns: Sequence[str]) -> Iterator[RowBlock]:
        """In slices, so that memory is bounded by the larger of a slice and a row group of the file."""
        scanned = self._scan().select(*(_as_text(name, self._schema[name]) for name in columns))
        num_rows, size = self._num_rows(), self.path.stat().st_size
        for start in range(0, num_rows, _ROWS_AT_ONCE):
            with _named_damage(self.path, f"cannot be read from row {start + 1} on"):
                frame = scanned.slice(start, _ROWS_AT_ONCE).collect()
            end = min(start + _ROWS_AT_ONCE, num_rows)
            if len(frame) != end - start:
                rule = f"must hold as many rows as it says, {num_rows:,}"
                raise DataError(str(self.path), rule, start + len(frame), "Fetch or write it again")
            self._reading.add_rows(self.path, len(frame), len(frame))
            yield RowBlock(np.arange(start + 1, end + 1, dtype=np.int64), frame)
            self._reading.advance(self.path, size * end // num_rows, end)


class HeaderMissingError(DataError):
    """The first line of a text file holds values. `num_fields`: how many."""

    def __init__(self, name: str, rule: str, *, remedy: str, num_fields: int) -> None:
        super().__init__(name, rule, remedy=remedy)
        self.num_fields = num_fields


def _too_many_keys(path: Path, line: int, count: int) -> DataError:
    rule, remedy = f"must have at most {MAX_COLUMNS:,} keys in their objects", "Is it one object an interaction?"
    return DataError(f"{path} line 1 to {line}", rule, count, remedy)


@contextmanager
def _named_damage(path: Path, rule: str) -> Iterator[None]:
    """Turn what polars raises into DataError."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError) as error:
        raise DataError(str(path), f"{rule} ({reason(error)})", remedy="Fetch or write it again") from None


def _is_text_like(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return isinstance(dtype.inner, pl.DataType) and not dtype.inner.is_nested()
    return not dtype.is_nested() and dtype not in (pl.Object, pl.Duration)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return (
            column.cast(pl.Datetime("us"), strict=False).dt.epoch("us").cast(pl.String)
        )  # null beyond the year 294247
    if isinstance(dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join(BAR, ignore_nulls=True)
    if dtype.is_float():  # 1e7 as 10000000
        if dtype == pl.Float32:
            column = column.map_batches(_float32_text, return_dtype=pl.String)
            return column.str.replace(r"\.0$", "")
        is_whole = column.is_finite() & (column == column.round()) & (column.abs() < _EXACT)
        return (
            pl.when(is_whole)
            .then(column.cast(pl.Int64, strict=False).cast(pl.String))
            .otherwise(column.cast(pl.String))
        )
    if dtype == pl.Binary:
        return column.map_batches(_decoded, return_dtype=pl.String)
    return column.cast(pl.String)


def _decoded(values: pl.Series) -> pl.Series:
    """Bytes as text, null where they are no UTF-8."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:
        texts = []
        for value in values.to_list():
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
        return pl.Series(values.name, texts, dtype=pl.String)


def _float32_text(values: pl.Series) -> pl.Series:
    """Numbers as text; large ones with the few digits that they have (`1.6777218e+07`): each may stand for several."""
    texts = values.cast(pl.String)
    is_rounded = (values.is_finite() & (values.abs() >= _EXACT_32)).fill_null(value=False)
    if not is_rounded.any():
        return texts
    short = pl.Series([f"{value:.7e}" if value is not None else None for value in values.to_list()], dtype=pl.String)
    return short.alias(values.name).zip_with(is_rounded, texts)
