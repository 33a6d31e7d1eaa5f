"""The history of a new user, from a CSV file."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from pathlib import Path

from athwe_core.analysis.case_study.select_user import Case, near_ids
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import DataError

ITEM_COLUMNS, TIME_COLUMNS = ("item_id", "item"), ("timestamp", "time")
_SECONDS = re.compile(r"([0-9]{1,18})(\.[0-9]*)?")


def read_history(path: Path, prepared: PreparedDataset, *, split: str = "test") -> Case:
    """Read the history of a new user, sorted by time; equal times keep the order of the file.

    Args:
        path: CSV with a header; a column `item_id` (or `item`) with raw ids and `timestamp` (or `time`) with unix seconds or
            ISO dates, UTC unless they name a zone. Other columns are ignored.
        prepared: the data set whose items the history has.
        split: stored in the case; no item is held out.
    Raises:
        DataError: The file is unreadable or has no rows, lacks a column, or a row has an unknown item or no time.
            The message has file and line, and similar ids for an unknown item.
    """
    rows = _read_rows(path)
    header = [name.strip().lower() for name in rows[0][1]]
    item_column, time_column = (_column(path, header, names) for names in (ITEM_COLUMNS, TIME_COLUMNS))
    number = {token: index for index, token in enumerate(prepared.item_tokens) if index > 0}
    visits = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{path} line {line}", f"must have {len(header)} fields like the header", len(row))
        item = row[item_column].strip()
        if item not in number:
            rule = f"must be an item of {prepared.name}"
            raise DataError(f"{path} line {line}: item", rule, item, near_ids(item, prepared.item_tokens[1:]))
        visits.append((_seconds(path, line, row[time_column].strip()), number[item]))
    visits.sort(key=lambda visit: visit[0])
    return Case(None, split, [item for _, item in visits], [seconds for seconds, _ in visits])


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line, fields) of the header and of every row that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(str(path), f"must be a readable CSV file ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(str(path), "must be UTF-8 text", error.object[error.start : error.end]) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}", f"must be CSV ({error})") from None
    if len(rows) < 2:
        rule = "must have a header and at least one row"
        raise DataError(str(path), rule, f"{len(rows)} lines", "The header is: item_id,timestamp")
    return rows


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    found = [header.index(name) for name in names if name in header]
    if not found:
        rule = f"must have a column {' or '.join(names)} in its header"
        raise DataError(f"{path} line 1", rule, ",".join(header), "The header is: item_id,timestamp")
    return found[0]


def _seconds(path: Path, line: int, text: str) -> int:
    number = _SECONDS.fullmatch(text)
    if number:
        return int(number[1])
    try:
        moment = datetime.fromisoformat(text)
        seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        seconds = -1
    if seconds < 0:
        rule = "must be unix seconds >= 0 or an ISO date from 1970 on, such as 2014-03-01"
        raise DataError(f"{path} line {line}: time", rule, text)
    return seconds
