"""Files and folders that appear whole: written under another name, forced to the disk, then renamed.

A crash, a kill or a full disk leaves the old content. What a killed process left half-written is removed later: a lock file
beside it tells whether its writer is alive.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

UNFINISHED = ".unfinished-"
"""In the name of every file and folder that is still being written; followed by the process number and a random text."""
_LOCK = ".lock"
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_THIS_FOLDER = -100  # AT_FDCWD: paths are relative to the working folder


def sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk. Windows cannot do so for folders."""
    is_windows = os.name == "nt"
    if is_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; on success it replaces `path`, on failure it is removed.

    A reader sees the old file or the new one, never a part, also after a power failure.
    """
    temporary = path.with_name(f".{path.name}{_unfinished_name()}")
    with _in_use(temporary):
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Give a new folder in `parent`, which is made where it is missing; the new folder is removed in the end.

    What killed processes left unfinished in `parent` is removed first.
    """
    with ExitStack() as stack:
        while True:
            parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(parent)
            path = parent / _unfinished_name()
            try:
                stack.enter_context(_in_use(path))
                path.mkdir(mode=0o700)
                break
            except FileNotFoundError:  # another process removed the empty parent just now
                if parent.exists():
                    raise
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`; what a living process writes stays."""
    for name in {path.name.removesuffix(_LOCK) for path in folder.glob(f".*{UNFINISHED[1:]}*")}:
        path, lock = folder / name, folder / f"{name}{_LOCK}"
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, so that a kill at any moment leaves both contents under one of them.

    Returns: False, with nothing changed, where the system or the file system cannot do so.
    """
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_THIS_FOLDER, os.fsencode(first), _THIS_FOLDER, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(first))


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a new folder to fill; on success it takes the name `target`, in place of what was there, on failure it goes.

    A kill at any moment leaves the old folder or the new one, or what `settle_folder` puts back.
    """
    settle_folder(target)
    aside = _aside(target)
    with unfinished_folder(target.parent) as temporary:
        folder = temporary / target.name
        folder.mkdir()
        yield folder
        for path in (*folder.iterdir(), folder):
            sync(path)
        if not target.exists():
            folder.rename(target)
        elif not exchange(folder, target):
            target.rename(aside)
            folder.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
        sync(target.parent)


def settle_folder(target: Path) -> None:
    """Put back the folder that a killed process had set aside to replace it."""
    aside = _aside(target)
    if aside.is_dir() and not target.exists():
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


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
    return f"only a part was written: {text}" if "requested and" in text else text  # numpy's words


@contextmanager
def _in_use(path: Path) -> Iterator[None]:
    """Hold the lock file that tells `remove_abandoned` that the writer of `path` is alive."""
    lock_path = path.with_name(f"{path.name}{_LOCK}")
    lock = FileLock(lock_path)
    try:
        lock.acquire()
    except OSError:  # no lock, or no room for its file: the write itself shows what is wrong
        if not lock_path.parent.exists():
            raise
    try:
        yield
    finally:
        with suppress(OSError):
            lock_path.unlink(missing_ok=True)
        lock.release()


def _unfinished_name() -> str:
    return f"{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}"
