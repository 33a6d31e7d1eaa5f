"""Ranks of users as plain parquet. The run's manifest holds the SHA-256 of the file, so that damage is noticed.

Parquet has no checksum of its own here: a damaged file may give other numbers without an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from athwe_core.errors import CheckpointError
from athwe_core.host_process import require_polars
from athwe_core.safe_write import reason

if TYPE_CHECKING:
    import polars as pl

COLUMNS = {"user_id", "split", "target_item_id", "rank", "history_length", "target_popularity", "same_day"}
_KEY, _MARK, _EMPTY = b"athwe_sha256", b"athwe_sealed", b"0" * 64
"""Version 0.1.0 wrote the checksum into the file, in place of 64 zeros."""


def read_ranks(path: Path, *, digests: Collection[str] | None, remedy: str) -> pl.DataFrame:
    """Read lines of `per_user_frame`.

    Args:
        path: The parquet file.
        digests: SHA-256 that the file may have; None for a run of version 0.1.0.
        remedy: Of the errors.
    Raises:
        CheckpointError: The file is missing, damaged or of another kind.
    """
    import polars as pl  # noqa: PLC0415 - training does without

    require_polars()
    try:
        content = path.read_bytes()
        is_whole = _is_whole_of_0_1(content) if digests is None else hashlib.sha256(content).hexdigest() in digests
        if not is_whole:
            raise CheckpointError(str(path), "is damaged: its content is not the one that was written", remedy=remedy)
        frame = pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        rule = f"must be readable parquet ({reason(error)})"
        raise CheckpointError(str(path), rule, remedy=remedy) from None
    ranks = frame["rank"] if set(frame.columns) >= COLUMNS and frame["rank"].dtype == pl.Float64 else None
    if ranks is None or ranks.null_count() or not (ranks.is_finite() & (ranks >= 1)).all():
        raise CheckpointError(str(path), "must hold one rank of at least 1 for each user", remedy=remedy)
    return frame


def _is_whole_of_0_1(content: bytes) -> bool:
    """Whether a file is as version 0.1.0 wrote it; its first files had no checksum and count as whole."""
    key = content.rfind(_KEY)
    if key < 0:
        return _MARK not in content
    begin = key + len(_KEY)
    place = next((i for i in range(begin, begin + 8) if content[i : i + 64].isalnum()), 0)
    digest = hashlib.sha256(content[:place] + _EMPTY + content[place + 64 :]).hexdigest()
    return digest.encode() == content[place : place + 64]
