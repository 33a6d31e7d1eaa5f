"""Tables that users have, in one or more files; columns and time unit are named, or detected and reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.columns import Columns, best_time, find_columns, like_times
from athwe_core.data.readers.delimited import RowBlock
from athwe_core.data.readers.item_table import read_item_table
from athwe_core.data.readers.lines import first_lines
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import ItemTable, Records, RecordsBuilder, RowSink, are_ids
from athwe_core.data.readers.table_file import HeaderMissingError, Table, binary_format
from athwe_core.data.readers.time_checks import TimeColumn, doubts_about_times, no_times, refuse_mixed
from athwe_core.data.readers.times import FORMAT, YEAR_5138, TimeGuess, guess_time, whole_seconds
from athwe_core.errors import DataError
from athwe_core.messages import brief, clipped, listed

_SHOWN_FILES = 3


@dataclass(frozen=True)
class TableFiles:
    """Files of one interaction table.

    Attributes:
        paths: In the order of reading.
        item_file: A table of items, None without one.
        constants: File -> columns with one value, by the names of its folders (`day=2020-09-14`).
        parts: File -> part of a given split: 0 training, 1 validation, 2 test; empty without one.
    """

    paths: Sequence[Path]
    item_file: Path | None = None
    constants: Mapping[Path, Mapping[str, str]] | None = None
    parts: Mapping[Path, int] | None = None


def read_tables(files: TableFiles, options: PrepareOptions, reading: Reading) -> Records:
    """Read one interaction table and its table of items.

    Args:
        files: Of any format each; compressed text by its first bytes. Files without a row are passed over.
        options: Names of columns and the time unit; None and `auto` are detected.
        reading: Gets progress, counts and dropped rows.
    Returns:
        The records; their notes say what was detected and what was ignored.
    Raises:
        DataError: A named column does not exist, none can be detected, times are negative, mixed or ambiguous (with the
            rows), or too many rows cannot be used.
    """
    builder, found = RecordsBuilder(), Detected()
    for part in table_parts(files, options, reading, found):
        read_part(part, reading, builder)
    items, notes = read_items(files, options, reading, found)
    return builder.build(
        reading.counts(files.paths),
        place=str(files.paths[0]),
        items=items,
        notes=[*notes, *reading.notes],
        max_missing_ids=options.max_missing_ids,
        has_parts=bool(files.parts),
    )


@dataclass(frozen=True)
class TablePart:
    """One file of an interaction table that has rows, and how it is read.

    Attributes:
        path: The file.
        columns: The columns to read, and the unit of the times.
        names: Names of all columns of a text file without header line, None where it has one.
        quotes: See `Table`.
        constants: Columns with one value.
        part: Of a given split; 0 without one.
    """

    path: Path
    columns: Columns
    names: Sequence[str] | None
    quotes: str
    constants: Mapping[str, str]
    part: int


def table_parts(files: TableFiles, options: PrepareOptions, reading: Reading, found: Detected) -> Iterator[TablePart]:
    """Detect in the first rows of each file how it is read; files without a row are passed over.

    A file is opened when the one before it has been taken.

    Args:
        files, options, reading: See `read_tables`.
        found: Gets what was detected; a file without header takes the names of the file before.
    """
    names = list(options.columns) if options.columns else None
    for path in files.paths:
        constants = (files.constants or {}).get(path, {})
        table = _open(path, names, files, options, reading, found)
        chosen = _choose(table, options, found) if table is not None else None
        if table is None or chosen is None:
            for _ in table.rows(table.columns) if table is not None else ():
                pass  # which tells bad rows from none
            reading.finish(path)
            found.empty.append(path.name)
            continue
        found.add(path, table, chosen)
        yield TablePart(path, chosen, table.names, options.quotes, constants, (files.parts or {}).get(path, 0))
    if found.columns is None:
        raise DataError(str(files.paths[0]), "has no rows", remedy="Is the file complete?")


def read_part(part: TablePart, reading: Reading, builder: RowSink) -> None:
    """Read the rows of one file. Raises DataError, see `read_tables`."""
    chosen, times = part.columns, TimeColumn(part.path, part.columns)
    table = Table(part.path, reading, names=part.names, quotes=part.quotes, constants=part.constants)
    for rows in table.rows((chosen.user, chosen.item, chosen.time)):
        _add(builder, rows, times, reading, part=part.part)
    reading.finish(part.path)


def read_items(
    files: TableFiles, options: PrepareOptions, reading: Reading, found: Detected
) -> tuple[ItemTable | None, list[str]]:
    """The table of items, None without one, and the notes about all files. Raises DataError, see `read_tables`."""
    notes = found.notes()
    if files.item_file is None or found.columns is None:
        return None, notes
    items, item_notes = _read_items(files.item_file, found.columns, options, reading)
    reading.finish(files.item_file)
    return items, notes + item_notes


class Detected:
    """What was detected in the files so far."""

    def __init__(self) -> None:
        self.columns: Columns | None = None
        self.names: list[str] = []
        self.empty: list[str] = []
        self._files: dict[str, list[str]] = {}
        self._questions: list[str] = []

    def add(self, path: Path, table: Table, chosen: Columns) -> None:
        """Record the columns of a file."""
        self.columns, self.names = chosen, table.columns
        ignored = [name for name in table.columns if name not in (chosen.user, chosen.item, chosen.time)]
        sentence = (
            f"users {chosen.user}, items {chosen.item}, times {chosen.time} in {chosen.unit.removeprefix(FORMAT)}"
        )
        sentence += f"; ignored: {listed(ignored)}" if ignored else ""
        name = path.name if table.constants.keys().isdisjoint(table.columns) else f"{path.parent.name}/{path.name}"
        self._files.setdefault(sentence, []).append(name)

    def question(self, text: str) -> None:
        """Record something that the user should check."""
        if text not in self._questions:
            self._questions.append(text)

    def notes(self) -> list[str]:
        """One sentence for each set of columns, for the files without a row, and for each question."""
        found = [f"{_few(names)}: {sentence}" for sentence, names in self._files.items()]
        if self.empty:
            found.append(f"{_few(self.empty)}: no rows, passed over")
        return [*found, *self._questions]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    return ", ".join(map(brief, names[:_SHOWN_FILES])) + more


def _open(
    path: Path, names: list[str] | None, files: TableFiles, options: PrepareOptions, reading: Reading, found: Detected
) -> Table | None:
    """The table in a file; None where the file is empty. A file without header takes the names of the one before."""
    if len(files.paths) > 1 and binary_format(path) is None and not first_lines(path):
        return None
    constants = (files.constants or {}).get(path, {})
    try:
        return Table(path, reading, names=names, quotes=options.quotes, constants=constants)
    except HeaderMissingError as error:
        before = [name for name in found.names if name not in constants]
        if error.num_fields != len(before):
            raise
        return Table(path, reading, names=before, quotes=options.quotes, constants=constants)


def _add(builder: RowSink, rows: RowBlock, times: TimeColumn, reading: Reading, *, part: int) -> None:
    path, chosen = times.path, times.columns
    seconds, is_time = whole_seconds(rows.frame[chosen.time], chosen.unit)
    refuse_mixed(rows, seconds, is_time, times)
    is_whole = pl.Series(is_time & ~((seconds == 0) & bool(times.good)))  # 0 stands for no time among others of today
    for column in (chosen.user, chosen.item):
        is_whole &= are_ids(rows.frame[column])
    for row in (~is_whole).arg_true().to_list():
        found = dict(zip(rows.frame.columns, rows.frame.row(row), strict=True))
        unit = chosen.unit.removeprefix(FORMAT)
        reading.bad_row(path, int(rows.lines[row]), f"must have a user, an item and a time ({unit})", str(found))
    kept, mask = rows.keep(is_whole), is_whole.to_numpy()
    negative = np.flatnonzero(seconds[mask] < 0)
    if len(negative):
        row = int(negative[0])
        value = kept.frame[chosen.time][row]
        where, remedy = f"{path} line {kept.lines[row]}: {brief(chosen.time)}", "Repair or remove that line"
        raise DataError(where, "must not be before 1970", clipped(value), remedy)
    builder.add(kept.frame[chosen.user], kept.frame[chosen.item], seconds[mask], part=part)


def _choose(table: Table, options: PrepareOptions, found: Detected) -> Columns | None:
    """The columns and the unit to read; None where the table has no rows."""
    user, item = (
        _column(table, name, role) for name, role in ((options.user_column, "user"), (options.item_column, "item"))
    )
    if options.time_column is not None:
        candidates = [_column(table, options.time_column, "time")]
    else:
        candidates = find_columns(table.columns, "time") or like_times(table.columns)
        if not candidates:
            _column(table, None, "time")
    sample = table.sample([user, item, *candidates])
    if not len(sample):
        return None
    guesses = {name: _guess(table, name, sample, options, found) for name in candidates}
    if options.time_column is None and not any(guess.is_plausible for guess in guesses.values()):
        others = [name for name in like_times(table.columns) if name not in guesses]
        sample = table.sample([user, item, *candidates, *others])
        guesses |= {name: _guess(table, name, sample, options, found) for name in others}
    time = best_time(guesses)
    if time is None:
        raise no_times(table.path, candidates[0], sample[candidates[0]], guesses[candidates[0]])
    chosen = Columns(user, item, time, str(guesses[time].unit))
    if guesses[time].median > YEAR_5138:
        rule = f"must hold times; half of them are after the year 5138 when read in {chosen.unit}"
        remedy = "Name another --time-unit, or another --time-column"
        raise DataError(f"{table.path}: column {brief(time)}", rule, remedy=remedy)
    if not guesses[time].is_plausible:
        day = np.datetime64(guesses[time].median, "s").astype("datetime64[D]")
        found.question(
            f"{table.path.name}: half of the times in {time} are before {day} when read in {chosen.unit}. "
            "Is that right? If not, name --time-unit or --time-column"
        )
    clocks = [sample[name] for name in guesses if guesses[name].unit is None]
    for question in doubts_about_times(table.path, sample[time], chosen.unit, clocks):
        found.question(question)
    return chosen


def _guess(table: Table, name: str, sample: pl.DataFrame, options: PrepareOptions, found: Detected) -> TimeGuess:
    """What a column would mean as times: by its type, else as options say, else by its values."""
    unit = (
        "us" if table.is_dated(name) else f"{FORMAT}{options.time_format}" if options.time_format else options.time_unit
    )
    guess = guess_time(sample[name]) if unit == "auto" else None
    if guess is not None and found.columns is not None and found.columns.unit in guess.choices:
        unit = found.columns.unit  # days above 12 in a file before tell
    elif guess is not None:
        return guess
    seconds, is_time = whole_seconds(sample[name], unit)
    if not is_time.any():
        return TimeGuess(None)
    return TimeGuess(unit, int(np.median(seconds[is_time])), len(np.unique(seconds[is_time])))


def _column(table: Table, given: str | None, role: str) -> str:
    """The column that is named, or that has a role by its name. Raises DataError."""
    option = f"--{role.split(maxsplit=1)[0]}-column"
    likely = find_columns(table.columns, role)
    if given in table.columns or (given is None and likely):
        return given or likely[0]
    table.read_all_keys()
    likely = find_columns(table.columns, role)
    if given in table.columns or (given is None and likely):
        return given or likely[0]
    if given is not None:
        rule = f"has no column {given}; its columns are {table.listed_columns}"
        raise DataError(table.header_place, rule, remedy=f"Name another with {option}")
    rule = f"has no column that is surely the {role}; its columns are {table.listed_columns}"
    raise DataError(table.header_place, rule, remedy=f"Name it with {option}")


def _read_items(
    path: Path, interactions: Columns, options: PrepareOptions, reading: Reading
) -> tuple[ItemTable, list[str]]:
    try:
        table = Table(path, reading, quotes=options.quotes)
    except HeaderMissingError as error:
        raise DataError(error.name, error.rule, remedy="Put a line with the names of the columns before it") from None
    table.read_all_keys()
    wanted = options.item_column or interactions.item
    column = _column(table, wanted if wanted in table.columns else None, "item id")
    named = {options.category_column, options.image_column, *(options.text_columns or ())} - {None}
    return read_item_table(table, column, {name for name in named if name})
