"""JSON lines in blocks: the wanted keys of each object as strings."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from athwe_core.data.readers.delimited import Rows
from athwe_core.data.readers.lines import Block, Reading, blocks
from athwe_core.data.readers.text_cleaning import without_halves
from athwe_core.messages import brief

_FEW_LINES = 64  # below, lines are read one at a time to find the bad one


def read_json_lines(path: Path, keys: Sequence[str], reading: Reading) -> Iterator[Rows]:
    """Yield the values of `keys`, null where absent or null; numbers as their decimal text.

    Blank lines mean nothing; lines that are no JSON object, or have one of the keys twice, are counted as bad and left out.
    Half a surrogate pair, which JSON can write and UTF-8 cannot, becomes NUL.

    Args:
        keys: Top-level keys; others are ignored.
        reading: Told how far it is and of bad lines.
    Raises:
        DataError: See `blocks`.
    """
    for block in blocks(path, reading):
        yield from _parse(block, path, keys, reading)


def _parse(block: Block, path: Path, keys: Sequence[str], reading: Reading) -> Iterator[Rows]:
    """Parse at once; where that fails, or a key may be there twice, the halves, down to single lines."""
    num_lines = block.num_lines
    frame = None
    if all(block.content.count(json.dumps(key, ensure_ascii=False).encode()) <= num_lines for key in keys):
        try:
            frame = pl.read_ndjson(io.BytesIO(block.content), schema=dict.fromkeys(keys, pl.String))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            frame = None
    if frame is not None and len(frame) == num_lines:
        yield Rows(np.arange(block.first_line, block.first_line + num_lines, dtype=np.int64), frame)
    elif num_lines > _FEW_LINES:
        for half in block.halves():
            yield from _parse(half, path, keys, reading)
    else:
        yield _one_at_a_time(block, path, keys, reading)


def _one_at_a_time(block: Block, path: Path, keys: Sequence[str], reading: Reading) -> Rows:
    lines, values = [], []
    for number, line in block.lines():
        if not line.strip():
            continue
        found = parse_object(line)
        if found is None:
            reading.bad_line(path, number, "is no JSON object", line)
        elif isinstance(found, _Repeated) and (twice := next((key for key in keys if key in found.repeated), None)):
            reading.bad_line(path, number, f"has the key {brief(twice)} twice", line)
        else:
            lines.append(number)
            values.append([_text(found.get(key)) for key in keys])
    frame = pl.DataFrame(values, schema=dict.fromkeys(keys, pl.String), orient="row")
    return Rows(np.array(lines, dtype=np.int64), frame)


class _Repeated(dict[str, Any]):
    """An object with some keys more than once; the last value counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line of UTF-8, None where it is none."""
    try:
        found = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: object) -> str | None:
    """As polars writes it: 1.0 is the id 1."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return without_halves(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
