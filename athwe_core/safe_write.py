"""Files that a crash, a kill or a full disk leaves whole: written beside, forced to the disk, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".unfinished-"
"""What stands between the name of a file and a process number while the file is written."""


def sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on success it takes the place of `path`, on failure it goes.

    A reader sees the old file or the new one, never a part, also after the power fails.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # without locks nobody takes it for abandoned either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder`; what a living one writes stays."""
    for path in folder.glob(f".*{TEMPORARY}*"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> str:
    """Why a file could not be written, in a few words, from an error of the system, numpy, polars or safetensors."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = (str(error).splitlines() or [type(error).__name__])[0]
    if number := re.search(r"\(os error (\d{1,4})\)", text):  # the words of Rust libraries
        return os.strerror(int(number[1]))
    return f"the disk took a part only: {text}" if "requested and" in text else text  # numpy's words
