"""A file that is being fetched, and what is known about it, so that a part is only continued with more of the same file."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from athwe_core.errors import DataError

PART, KNOWN = ".part", ".part.json"
"""Endings of a file that is not complete, and of what is known about it."""


@dataclass(frozen=True)
class Known:
    """What the server said about a file when its first part was fetched.

    Attributes:
        url: Where it comes from.
        version: ETag or date of change; None where the server gave none that tells versions apart.
        total: Bytes of the whole file, None where unknown.
    """

    url: str
    version: str | None
    total: int | None


class FullDiskError(DataError):
    """A disk has too little room."""


class PartFile:
    """The part of a file that is on disk.

    Args:
        target: What the file will be called when it is complete.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + PART)
        self._known = target.with_name(target.name + KNOWN)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with suppress(OSError):
            return self.path.stat().st_size
        return 0

    def known(self, url: str) -> Known | None:
        """What is known; None where the part must not be continued: from another address, or of unknown length."""
        try:
            facts = json.loads(self._known.read_text(encoding="utf-8"))
            found = Known(str(facts["url"]), facts["version"], facts["total"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        is_sound = isinstance(found.version, str | None) and isinstance(found.total, int)
        return found if is_sound and found.url == url else None

    def begin(self, url: str, version: str | None, total: int | None) -> None:
        """Record what is known about the file whose first part follows."""
        self._known.write_text(json.dumps(asdict(Known(url, version, total))), encoding="utf-8")

    def remove(self) -> None:
        """Forget the part and what is known."""
        self.path.unlink(missing_ok=True)
        self._known.unlink(missing_ok=True)


def refuse_full_disk(folder: Path, num_bytes: int) -> None:
    """Raise FullDiskError where a folder's disk has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        rule = f"must have room for {num_bytes / 1e6:,.1f} MB"
        remedy = "Free some, or choose another disk with --data"
        raise FullDiskError(f"the disk of {folder}", rule, f"{free / 1e6:,.1f} MB", remedy)
