"""Whether the files of a prepared version are the ones that were written.

The manifest holds the SHA-256 of every file. Reading all of them at each opening would take seconds for large vectors, so
`checked.json` keeps what a cheap look found when they were last read whole: size, time of change, and a hash of blocks
spread over the file. While a cheap look finds the same again, the files count as unchanged; otherwise all are read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from athwe_core.safe_write import file_hash, replace_text

CHECKED = "checked.json"
_NUM_BLOCKS = 16
_BLOCK_BYTES = 4096

Stamp = list[int | str]
"""Bytes, time of change in ns, and hash of sampled blocks of one file."""


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files by name, sorted. Raises OSError where one cannot be read."""
    return {name: file_hash(folder / name) for name in sorted(names)}


def content_hash(hashes: Mapping[str, str], stems: Iterable[str]) -> str:
    """SHA-256 over the arrays that training reads: runs name their data by it.

    Args:
        hashes: SHA-256 by file name.
        stems: Names of the arrays without their ending, in a fixed order; those without a file are left out.
    """
    digest = hashlib.sha256()
    for stem in stems:
        if (found := hashes.get(f"{stem}.npy")) is not None:
            digest.update(f"{stem}:{found}\n".encode())
    return digest.hexdigest()


def own_hash(manifest: Mapping[str, Any], name: str) -> str:
    """SHA-256 of a manifest without the entry `name` of its `files`, which holds this hash."""
    files = {file: digest for file, digest in manifest["files"].items() if file != name}
    return hashlib.sha256(json.dumps({**manifest, "files": files}, sort_keys=True).encode()).hexdigest()


def remember(folder: Path, names: Iterable[str]) -> None:
    """Write what a cheap look finds now, after the files were read whole or just written. Raises OSError."""
    replace_text(folder / CHECKED, json.dumps(_stamps(folder, names), indent=1) + "\n")


def changed_files(folder: Path, hashes: Mapping[str, str], *, everything: bool) -> list[str]:
    """Names of the files that are not the ones that were written.

    Args:
        folder: Of the version.
        hashes: SHA-256 by file name, as the manifest has it.
        everything: Read every file whole. Otherwise they are read only where a cheap look finds a change.
    Raises:
        OSError: A file is missing or cannot be read.
    """
    if not everything and looks_unchanged(folder, hashes):
        return []
    changed = [name for name, digest in hashes.items() if file_hash(folder / name) != digest]
    if not changed and not looks_unchanged(folder, hashes):
        with suppress(OSError):  # a read-only folder is read whole each time
            remember(folder, hashes)
    return changed


def looks_unchanged(folder: Path, names: Iterable[str]) -> bool:
    """Whether a cheap look finds what it found when the files were last read whole. Raises OSError for a missing file."""
    found = _stamps(folder, names)
    try:
        known = json.loads((folder / CHECKED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(known == found)


def _stamps(folder: Path, names: Iterable[str]) -> dict[str, Stamp]:
    return {name: _stamp(folder / name) for name in sorted(names)}


def _stamp(path: Path) -> Stamp:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256()
        last = max(status.st_size - _BLOCK_BYTES, 0)
        for number in range(_NUM_BLOCKS):
            file.seek(last * number // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]
