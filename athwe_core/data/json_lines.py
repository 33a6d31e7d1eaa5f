"""JSON lines in blocks: the wanted keys of each object as strings."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from athwe_core.data.delimited import Rows
from athwe_core.data.lines import Block, Reading, blocks

_FEW_LINES = 64  # below, lines are read one at a time to find the bad one


def read_json_lines(path: Path, keys: Sequence[str], reading: Reading) -> Iterator[Rows]:
    """Yield the values of `keys`, null where absent or null; numbers as their decimal text.

    Blank lines mean nothing; lines that are no JSON object are counted as bad and left out.

    Args:
        keys: Top-level keys; others are ignored.
        reading: Told how far it is and of bad lines.
    Raises:
        DataError: See `blocks`.
    """
    for block in blocks(path, reading):
        yield from _parse(block, path, keys, reading)


def _parse(block: Block, path: Path, keys: Sequence[str], reading: Reading) -> Iterator[Rows]:
    """Parse at once; where that fails, the halves, down to single lines."""
    num_lines = block.num_lines
    try:
        frame = pl.read_ndjson(io.BytesIO(block.content), schema=dict.fromkeys(keys, pl.String))
    except pl.exceptions.PolarsError:
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
        else:
            lines.append(number)
            values.append([_text(found.get(key)) for key in keys])
    frame = pl.DataFrame(values, schema=dict.fromkeys(keys, pl.String), orient="row")
    return Rows(np.array(lines, dtype=np.int64), frame)


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, None where it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(value: object) -> str | None:
    """As polars writes it: 1.0 is the id 1."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
