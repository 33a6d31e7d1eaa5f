"""Ranks of users as parquet that notices its own damage: parquet itself would give other numbers without a word.

The checksum of the whole file, taken while 64 zeros stand in its place, is in the file's own metadata; so file and checksum
are replaced at once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from athwe_core.errors import CheckpointError
from athwe_core.safe_write import reason

if TYPE_CHECKING:
    import polars as pl

KEY, MARK = "athwe_sha256", "athwe_sealed"
"""Two names, so that damage of one does not make the file look like one of a version without checksum."""
EMPTY = b"0" * 64
COLUMNS = {"user_id", "split", "target_item_id", "rank", "history_length", "target_popularity", "same_day"}


def write_sealed(frame: pl.DataFrame, path: Path) -> None:
    """Write the frame with its checksum."""
    frame.write_parquet(path, metadata={KEY: EMPTY.decode(), MARK: "yes"})
    content = path.read_bytes()
    place = content.index(EMPTY, content.rindex(KEY.encode()))
    with path.open("r+b") as file:
        file.seek(place)
        file.write(hashlib.sha256(content).hexdigest().encode())


def read_sealed(path: Path, *, remedy: str) -> pl.DataFrame:
    """Lines of `per_user_frame`. Raises: CheckpointError where the file is missing, damaged or of another kind."""
    import polars as pl  # noqa: PLC0415 - training does without

    try:
        content = path.read_bytes()
        if not _is_whole(content):
            raise CheckpointError(str(path), "is damaged: its content is not the one that was written", remedy=remedy)
        frame = pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        rule = f"must be readable parquet ({reason(error)})"
        raise CheckpointError(str(path), rule, remedy=remedy) from None
    ranks = frame["rank"] if set(frame.columns) >= COLUMNS and frame["rank"].dtype == pl.Float64 else None
    if ranks is None or ranks.null_count() or not (ranks.is_finite() & (ranks >= 1)).all():
        raise CheckpointError(str(path), "must hold one rank of at least 1 for each user", remedy=remedy)
    return frame


def _is_whole(content: bytes) -> bool:
    """Whether it is as written; files of versions that knew no checksum are not told apart from whole ones."""
    key = content.rfind(KEY.encode())
    if key < 0:
        return MARK.encode() not in content
    place = next((i for i in range(key + len(KEY), key + len(KEY) + 8) if content[i : i + 64].isalnum()), 0)
    found = content[place : place + 64]
    return hashlib.sha256(content[:place] + EMPTY + content[place + 64 :]).hexdigest().encode() == found
