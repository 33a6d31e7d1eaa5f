"""JSON lines in blocks: the wanted keys of each object as strings.

polars parses a block at once. Where it fails, the halves are tried, down to few lines, which are then read one at a time:
that finds the bad ones, and the lines that hold a Python literal in place of JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from athwe_core.data.readers.delimited import RowBlock
from athwe_core.data.readers.header import MAX_COLUMNS
from athwe_core.data.readers.lines import Block, blocks
from athwe_core.data.readers.literals import parse_literal
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.text_cleaning import without_halves
from athwe_core.messages import brief

_KEY = re.compile(rb"""["']([^"'\\]{0,200})["']\s*:""")
_TYPED = r"""^\{\s*"\$(?:oid|date|uuid|number\w+)"\s*:\s*"?([^"{}]*|\{[^{}]*\})"?\s*\}$"""
_FEW_LINES = 64  # below, lines are read one at a time to find the bad one


def read_json_lines(path: Path, keys: Sequence[str], reading: Reading) -> Iterator[RowBlock]:
    """Yield the values of `keys`, null where absent or null; numbers as their decimal text.

    A line may hold a Python literal in place of JSON. Blank lines mean nothing; lines that are no object, or have one of the
    keys twice, are counted as bad and dropped. Half a surrogate pair, which JSON can write and UTF-8 cannot, becomes NUL.

    Args:
        path: The file.
        keys: Top-level keys; others are ignored.
        reading: Gets the progress, the counts and the bad lines.
    Returns:
        Rows in blocks, with a column for each of `keys`.
    Raises:
        DataError: See `blocks`.
    """
    for block in blocks(path, reading):
        yield from _parse(block, path, keys, reading)


def _parse(block: Block, path: Path, keys: Sequence[str], reading: Reading) -> Iterator[RowBlock]:
    """Parse at once; where that fails, or a key may be there twice, the halves, down to single lines."""
    num_lines = block.num_lines
    frame = None
    if all(block.content.count(json.dumps(key, ensure_ascii=False).encode()) <= num_lines for key in keys):
        try:
            frame = pl.read_ndjson(io.BytesIO(block.content), schema=dict.fromkeys(keys, pl.String))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            frame = None
    if frame is not None and len(frame) == num_lines:
        reading.add_rows(path, num_lines, num_lines)
        lines = np.arange(block.first_line, block.first_line + num_lines, dtype=np.int64)
        yield RowBlock(lines, frame.with_columns(_unwrapped(pl.all())))
    elif num_lines > _FEW_LINES:
        for half in block.halves():
            yield from _parse(half, path, keys, reading)
    else:
        yield _one_at_a_time(block, path, keys, reading)


def _one_at_a_time(block: Block, path: Path, keys: Sequence[str], reading: Reading) -> RowBlock:
    lines, values = [], []
    for number, line in block.lines():
        if not line.strip():
            reading.skip_lines(path)
            continue
        found = parse_object(line)
        if found is None:
            reading.bad_line(path, number, "is neither a JSON object nor a Python literal of one", line)
        elif isinstance(found, _Repeated) and (twice := next((key for key in keys if key in found.repeated), None)):
            reading.bad_line(path, number, f"has the key {brief(twice)} twice", line)
        else:
            lines.append(number)
            values.append([_text(found.get(key)) for key in keys])
    frame = pl.DataFrame(values, schema=dict.fromkeys(keys, pl.String), orient="row")
    reading.add_rows(path, len(lines), len(lines))
    return RowBlock(np.array(lines, dtype=np.int64), frame.with_columns(_unwrapped(pl.all())))


def _unwrapped(column: pl.Expr) -> pl.Expr:
    """Values of MongoDB's extended JSON without their types: `{"$oid": "5f"}` is 5f; a date may hold a `$numberLong`."""
    return column.str.replace(_TYPED, "$1").str.replace(_TYPED, "$1")


class _Repeated(dict[str, Any]):
    """An object with some keys more than once; the last value counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The object of a line of UTF-8 that holds JSON or a Python literal; None where it holds none."""
    try:
        found = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        found = parse_literal(line) if line.lstrip().startswith(b"{") else None
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if isinstance(key, str)}
    return found if isinstance(found, dict) else None


def all_keys(path: Path) -> tuple[list[str], int]:
    """Every top-level key in a file of JSON lines, in order of first appearance, and the line with one too many (0 = none).

    Only lines with a key that no line before has are parsed. Stops above `MAX_COLUMNS` keys. Raises DataError, see `blocks`.
    """
    found: dict[str, None] = {}
    seen: set[bytes] = set()
    for block in blocks(path, Reading()):
        if set(_KEY.findall(block.content)) <= seen:
            continue
        for number, line in block.lines():
            keys = set(_KEY.findall(line))
            if not keys <= seen:
                seen |= keys if len(seen) < MAX_COLUMNS else set()
                found |= dict.fromkeys(parse_object(line) or ())
                if len(found) > MAX_COLUMNS:
                    return list(found), number
    return list(found), 0


def _text(value: object) -> str | None:
    """As polars writes it: 1.0 is the id 1."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    if isinstance(value, bytes | set | complex) or value is ...:  # in a Python literal
        value = str(value)
    return without_halves(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
