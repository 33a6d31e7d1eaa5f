"""JSON objects that training wrote, read back: anything else is a CheckpointError that names the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from athwe_core.errors import CheckpointError

MAX_BYTES = 2**20
"""Of one object; a manifest has some thousand."""


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """The one object of a file. Raises: CheckpointError where it is missing, too large, no JSON or no object."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(str(path), f"must be readable JSON ({error.strerror})", remedy=remedy) from None
    return _object(content, str(path), remedy)


def read_object_lines(path: Path, *, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line, and where it stands, for errors. Raises: as `read_object`."""
    try:
        with path.open("rb") as file:
            number = 0
            while content := file.readline(MAX_BYTES + 1):
                number += 1
                where = f"{path} line {number}"
                yield where, _object(content, where, remedy)
    except OSError as error:
        raise CheckpointError(str(path), f"must be readable ({error.strerror})", remedy=remedy) from None


def _object(content: bytes, name: str, remedy: str) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        raise CheckpointError(name, f"must be JSON of at most {MAX_BYTES:,} bytes", remedy=remedy)
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(name, f"must be readable JSON ({error})", remedy=remedy) from None
    if not isinstance(found, dict):
        raise CheckpointError(name, "must be a JSON object", type(found).__name__, remedy)
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Plain JSON would take the last of two values of one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
