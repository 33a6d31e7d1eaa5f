"""One process at a time: a lock file that says who holds it and since when.

The system lets go of the lock when its holder ends, however it ends; what a dead process left is taken over. On a file system
without locks (some network file systems) the file itself is the lock: it is taken over where its holder ran on this host and
is dead; of another host's holder nothing can be known, so the error names the file to delete.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What flock answers where the file system has no locks."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    process: int
    host: str
    since: datetime

    def __str__(self) -> str:
        seconds = max(0, round((datetime.now(UTC) - self.since).total_seconds()))
        where = "" if self.host == _host() else f" on {self.host}"
        return f"process {self.process}{where}, for {_age(seconds)} (since {self.since:%Y-%m-%d %H:%M:%S} UTC)"

    def is_dead(self) -> bool:
        """True where it ran on this host and runs no more."""
        if self.host != _host():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            pass
        return False


class HeldError(Exception):
    """Another process holds the lock."""

    def __init__(self, owner: Owner | None, remedy: str) -> None:
        super().__init__(str(owner or "another process"))
        self.owner = owner
        self.remedy = remedy


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is there as long as the lock is held.

    Raises: HeldError when another process holds it; OSError when the file cannot be made.
    """
    handle = _take(path)
    try:
        yield
    finally:
        with suppress(OSError):  # its folder may be gone by now, or read-only
            if _is_at(path, handle):
                path.unlink()
        os.close(handle)


def _take(path: Path) -> int:
    """An open handle of the locked file."""
    while True:
        handle, is_new = _open(path)
        try:
            is_locked = _lock(handle, path, is_new=is_new) and _is_at(path, handle)
            if is_locked:
                _sign(handle, path)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder before removed the file just now, or a dead one's was put away


def _open(path: Path) -> tuple[int, bool]:
    """A handle, and whether the file was made for it."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            with suppress(FileNotFoundError):  # gone again
                return os.open(path, os.O_RDWR), False


def _lock(handle: int, path: Path, *, is_new: bool) -> bool:
    """Lock it; False where it must be opened again."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError(read_owner(path), "Wait for it, or end it first") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return is_new or _put_away(path)
    return True


def _put_away(path: Path) -> bool:
    """Remove the file of a dead holder, for a file system without locks; always False: open it again."""
    owner = read_owner(path)
    if owner is None or not owner.is_dead():
        raise HeldError(owner, f"Wait for it, or delete {path} if that process is gone")
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if read_owner(aside) != owner:  # another process took it over in between: that one's file goes back
            aside.rename(path)
        aside.unlink(missing_ok=True)
    return False


def read_owner(path: Path) -> Owner | None:
    """Who signed the lock file; None where it is not, or not yet, signed."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        owner = Owner(int(facts["process"]), str(facts["host"]), datetime.fromisoformat(facts["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_sound = 0 < owner.process < 2**31 and owner.host.isprintable() and owner.since.tzinfo is not None
    return owner if is_sound else None


def _sign(handle: int, path: Path) -> None:
    facts = {"process": os.getpid(), "host": _host(), "since": datetime.now(UTC).isoformat(timespec="milliseconds")}
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(facts).encode(), 0)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _is_at(path: Path, handle: int) -> bool:
    """Whether `path` still is the file of the handle."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _host() -> str:
    return os.uname().nodename


def _age(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
