"""Rows that take long to compute, kept in shards on disk: after a kill, the next run goes on where this one stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from athwe_core.data.features.arrays import read_array
from athwe_core.errors import DataError
from athwe_core.safe_write import replacing

WorkProgress = Callable[[str, int, int, float], None]
"""Told what is being done, how many items are done, how many there are, and items per second of this run."""
SHARD_ROWS = 1024


def say_nothing(_what: str, _done: int, _total: int, _per_second: float) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True)
class Shards:
    """Where the parts of one computation lie.

    Attributes:
        folder: `PREPARED/NAME/.shards-<key>`; does not exist before the first part.
    """

    folder: Path

    @classmethod
    def of(cls, prepared_folder: Path, identity: dict[str, Any]) -> Shards:
        """The place for what `identity` describes; anything that changes a row must be in it."""
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return cls(prepared_folder / f".shards-{key}")

    def rows(
        self,
        count: int,
        width: int,
        compute: Callable[[slice], Iterator[Float32[np.ndarray, "n F"]]],
        *,
        what: str,
        progress: WorkProgress = say_nothing,
    ) -> Float32[np.ndarray, "N F"]:
        """All rows, those of finished shards from disk.

        Args:
            count: N.
            width: F.
            compute: Yields the rows of a slice in batches, in order.
            what: Of the progress, e.g. `encoding texts`.
            progress: Called after every batch.
        """
        rows = np.empty((count, width), dtype=np.float32)
        self.folder.mkdir(parents=True, exist_ok=True)
        began, computed = time.monotonic(), 0
        for number, start in enumerate(range(0, count, SHARD_ROWS)):
            part = slice(start, min(start + SHARD_ROWS, count))
            path = self.folder / f"{number:06}.npy"
            found = _read(path, (part.stop - part.start, width))
            if found is not None:
                rows[part] = found
                progress(what, part.stop, count, computed / max(time.monotonic() - began, 1e-9))
                continue
            done = start
            for batch in compute(part):
                rows[done : done + len(batch)] = batch
                done += len(batch)
                computed += len(batch)
                progress(what, done, count, computed / max(time.monotonic() - began, 1e-9))
            _write(path, rows[part])
        return rows

    def remove(self) -> None:
        """Forget the parts: what they were for is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path, shape: tuple[int, int]) -> Any:
    """A finished shard; None where there is none, or it is not what was expected."""
    try:
        found = read_array(path, path.stem)
    except DataError:
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _write(path: Path, rows: Float32[np.ndarray, "n F"]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
