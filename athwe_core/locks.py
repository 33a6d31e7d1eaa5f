"""One process at a time: a lock file, and a text beside it that tells who holds it and since when.

The system releases the lock when its holder ends, however it ends. On a file system without locks (some network file
systems) the file itself is the lock. It is taken over where its holder ran on this host and is dead. Nothing can be known
about a holder on another host, so the error names the file to delete. Whoever does know that such a holder is gone removes
its file with `remove_lost`.

Where the host of a holder has died, a network file system with locks releases them itself, NFS 4 after its lease (90 s by
default).
"""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from athwe_core.warning_filters import warnings_as

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""Errors of a file system that has no locks."""
OWNER = ".owner"
"""Ending of the text beside a lock file."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        process: Process number on its host.
        host: Name of the machine.
        since: Time of acquisition, with its time zone.
    """

    process: int
    host: str
    since: datetime

    def __str__(self) -> str:
        seconds = max(0, round((datetime.now(UTC) - self.since).total_seconds()))
        where = "" if self.host == platform.node() else f" on {self.host}"
        return f"process {self.process}{where}, for {_age(seconds)} (since {self.since:%Y-%m-%d %H:%M:%S} UTC)"


class HeldError(Exception):
    """Another process holds the lock.

    Attributes:
        owner: Who holds it, None where that is unknown.
        remedy: What to do about it, a sentence without its full stop.
    """

    def __init__(self, owner: Owner | None, remedy: str) -> None:
        super().__init__(str(owner or "another process"))
        self.owner = owner
        self.remedy = remedy


@contextmanager
def held(path: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`, which exists while the lock is held, as does `path` + `.owner`.

    Args:
        path: Its folder must exist.
        wait_seconds: How long to wait for another holder, >= 0.
    Raises:
        HeldError: Another process, or another part of this one, still holds the lock.
        OSError: The file cannot be made.
    """
    lock = _acquire(path, wait_seconds)
    owner = path.with_name(path.name + OWNER)
    identity = None
    try:
        identity = os.stat(path)
        _sign(owner)
        yield
    finally:
        with suppress(OSError):  # the folder may be gone by now, or read-only
            if identity is not None and os.path.samestat(os.stat(path), identity):
                owner.unlink(missing_ok=True)
                if not isinstance(lock, SoftFileLock):  # that one removes its file itself
                    path.unlink()  # while it is held: whoever waits for this file notices, and makes a new one
        lock.release()


def read_owner(path: Path) -> Owner | None:
    """Read who holds the lock file `path`; None where that is not known, or not yet."""
    try:
        facts = json.loads(path.with_name(path.name + OWNER).read_text(encoding="utf-8"))
        owner = Owner(int(facts["process"]), str(facts["host"]), datetime.fromisoformat(facts["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_sound = 0 < owner.process < 2**31 and owner.host.isprintable() and owner.since.tzinfo is not None
    return owner if is_sound else None


def remove_lost(path: Path, *, process: int, host: str) -> None:
    """Remove the lock file of a holder that is known to be gone, where the file itself is the lock.

    Changes nothing where the file system has locks, or where somebody else holds this one.

    Args:
        path: The lock file.
        process, host: The holder that is gone.
    Raises:
        OSError: The file cannot be removed.
    """
    owner = read_owner(path)
    if owner is not None and (owner.process, owner.host) == (process, host) and not _has_locks(path):
        path.with_name(path.name + OWNER).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _acquire(path: Path, wait_seconds: float) -> BaseFileLock:
    has_locks = _has_locks(path)
    lock: BaseFileLock = FileLock(path) if has_locks else SoftFileLock(path)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        remedy = "Wait for it, or end it first"
        if not has_locks:
            remedy = f"Wait for it, or delete {path} if that process is gone"
        raise HeldError(read_owner(path), remedy) from None
    return lock


def _has_locks(path: Path) -> bool:
    """Whether the file system has locks, found out with a file of our own beside `path`."""
    probe = path.with_name(f"{path.name}.probe-{secrets.token_hex(4)}")
    try:
        with warnings_as("error"):  # filelock warns before it takes the file itself for the lock
            FileLock(probe).acquire(timeout=0).lock.release()
    except UserWarning:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


def _sign(owner: Path) -> None:
    facts = {"process": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "milliseconds")}
    owner.write_text(json.dumps(facts), encoding="utf-8")


def _age(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
