"""Prepared versions on disk: which there are, how large they are, and their removal."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athwe_core.data.store.dataset import (
    CURRENT,
    LOCK,
    current_version,
    list_versions,
    mark_current,
    open_prepared,
    prepared_folder,
    prepared_names,
    written_to,
)
from athwe_core.errors import ConfigError, DataError
from athwe_core.locks import HeldError, held
from athwe_core.messages import near_miss
from athwe_core.safe_write import unfinished_folder


@dataclass(frozen=True)
class PreparedVersion:
    """A prepared version on disk.

    Attributes:
        name, version: Of the data set.
        is_current: Whether it opens by default.
        bytes: Of its files.
        statistics: What `prepare --json` printed; None where it is damaged.
        damage: Why it cannot be opened; None where it can.
    """

    name: str
    version: str
    is_current: bool
    bytes: int
    statistics: dict[str, Any] | None
    damage: DataError | None


def list_prepared(prepared_dir: Path, *, name: str | None = None) -> list[PreparedVersion]:
    """Prepared versions by name and age, oldest first; of one data set where `name` is given."""
    names = prepared_names(prepared_dir) if name is None else [name]
    return [
        _look(each, version, prepared_dir)
        for each in names
        for version in list_versions(each, prepared_dir=prepared_dir)
    ]


def find_prepared(prepared_dir: Path, name: str, *, version: str | None = None) -> list[PreparedVersion]:
    """The versions of a data set, or the one that is named.

    Raises: ConfigError where there is none.
    """
    found = list_prepared(prepared_dir, name=name)
    if not found:
        rule = f"must be prepared in {prepared_dir}{near_miss(name, prepared_names(prepared_dir))}"
        raise ConfigError("data set name", rule, name, f"Run: athwe prepare --dataset {name}")
    chosen = [each for each in found if version in (None, each.version)]
    if not chosen:
        raise ConfigError("--version", f"must be one of {', '.join(each.version for each in found)}", version)
    return chosen


def remove_prepared(prepared_dir: Path, name: str, *, version: str | None = None) -> list[PreparedVersion]:
    """Remove the versions of a data set, or one. Where it was the current one, the newest that is left becomes it.

    A kill at any moment leaves each version whole or removed.

    Returns: what was removed.
    Raises:
        ConfigError: There is no such version.
        DataError: A process prepares the data set, or the disk refuses.
    """
    folder = prepared_folder(prepared_dir, name)
    removed = find_prepared(prepared_dir, name, version=version)
    with written_to(folder), ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK))
        except HeldError as error:
            raise DataError(f"data set {name!r}", f"is being prepared by {error}", remedy=error.remedy) from None
        kept = [each for each in list_versions(name, prepared_dir=prepared_dir) if version not in (None, each)]
        if not kept:
            (folder / CURRENT).unlink(missing_ok=True)
        elif current_version(name, prepared_dir=prepared_dir) not in kept:
            mark_current(folder, kept[-1])
        with unfinished_folder(folder) as bin_:
            for each in removed:
                (folder / each.version).rename(bin_ / each.version)
    with suppress(OSError):  # it may hold other files
        folder.rmdir()
    return removed


def folder_bytes(path: Path) -> int:
    """Bytes of all files in a folder; links are not followed."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):  # it was removed just now
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _look(name: str, version: str, prepared_dir: Path) -> PreparedVersion:
    statistics, damage = None, None
    try:
        statistics = open_prepared(name, prepared_dir=prepared_dir, version=version).statistics
    except DataError as error:
        damage = error
    is_current = current_version(name, prepared_dir=prepared_dir) == version
    size = folder_bytes(prepared_folder(prepared_dir, name) / version)
    return PreparedVersion(name, version, is_current, size, statistics, damage)
