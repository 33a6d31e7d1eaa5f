"""A long table in one file, written part by part: in bounded memory, and resumable.

Parts lie in a hidden folder beside the file. The same table continues with the parts that are missing. In the end the parts
become the file, which is replaced whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import IO

import polars as pl

from athwe_core.errors import ConfigError, DataError
from athwe_core.host_process import require_polars
from athwe_core.locks import HeldError, held
from athwe_core.safe_write import reason, remove_abandoned, replace_text, replacing
from athwe_core.serving.recommendations import Rows

FORMATS = (".parquet", ".csv", ".jsonl")
PART_ROWS = 500_000
PART_ENTRIES = 16_384
SAMPLE_ENTRIES = 512
"""Entries that are computed for an estimate."""
ESTIMATE_FROM = 20 * SAMPLE_ENTRIES
"""A table with more entries is estimated before it is computed."""
PLAN, LOCK = "plan.json", ".lock"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        bytes: Of the file.
        kept_entries: Entries of the parts that an earlier call had finished.
    """

    bytes: int
    kept_entries: int


def require_format(path: Path) -> None:
    """Raise ConfigError where the suffix of a file names no format that can be written, or its folder does not exist."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError("--to", f"must end with {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", str(path))
    if not path.absolute().parent.is_dir():
        raise ConfigError("--to", "must be in a folder that exists", str(path), f"Type: mkdir -p {path.parent}")
    if path.is_dir():
        raise ConfigError("--to", "must be a file", str(path))


def write_table(
    table: Rows,
    path: Path,
    *,
    rows_per_entry: int,
    progress: Callable[[int, int, float], None] = lambda *_: None,
    notify: Callable[[str], None] = lambda _: None,
) -> Written:
    """Write a table to `path`, which appears whole, or replaces what was there.

    Args:
        table: what to write.
        path: ends with .parquet, .csv or .jsonl. Until the end a hidden folder beside it, `.NAME.parts`, holds finished
            parts.
        rows_per_entry: most rows of one entry of the table, >= 1.
        progress: called after each part with the entries done, all entries, and the entries of a second.
        notify: called with one sentence: an estimate before a long table, and what is kept of an earlier call.
    Raises:
        ConfigError: The file has another ending, or the disk has no room for it.
        DataError: Another process writes the same file, or the disk refuses. Finished parts are kept.
    """
    require_format(path)
    require_polars()
    folder = path.with_name(f".{path.name}.parts")
    entries = max(min(PART_ENTRIES, PART_ROWS // rows_per_entry), 1)
    ending = path.suffix.lower()
    plan: dict[str, str | int] = {
        "table": table.identity,
        "entries": table.size,
        "entries_per_part": entries,
        "format": ending,
    }
    spans = [(first, min(first + entries, table.size)) for first in range(0, max(table.size, 1), entries)]
    with _written(path), _alone(folder, path):
        _begin(folder, plan, notify)
        parts = [folder / f"{first:012}{ending}" for first, _ in spans]
        kept = sum(end - first for part, (first, end) in zip(parts, spans, strict=True) if part.exists())
        if kept:
            notify(f"{kept:,} of {table.size:,} are done already and are kept")
        if table.size - kept > ESTIMATE_FROM:
            notify(_estimate(table, table.size - kept, path))
        began, computed = perf_counter(), 0
        for part, (first, end) in zip(parts, spans, strict=True):
            if not part.exists():
                frame = table.rows(first, end)
                with replacing(part) as temporary, temporary.open("wb") as file:
                    _write(frame, file, ending, has_header=first == 0)
                computed += end - first
                progress(kept + computed, table.size, computed / max(perf_counter() - began, 1e-9))
        with replacing(path) as temporary:
            _join(parts, temporary)
        for part in parts:
            part.unlink()
    return Written(path.stat().st_size, kept)


def _begin(folder: Path, plan: dict[str, str | int], notify: Callable[[str], None]) -> None:
    """Keep the finished parts of the same table; remove those of another one."""
    remove_abandoned(folder)
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if found == plan:
        return
    others = [part for part in folder.glob("[0-9]*") if part.suffix in FORMATS]
    for part in others:
        part.unlink()
    if others:
        notify("the finished parts of another table are removed: the model, the users or the options have changed")
    replace_text(folder / PLAN, json.dumps(plan))


def _estimate(table: Rows, entries: int, path: Path) -> str:
    """Time and size by a sample from the middle. Raises ConfigError where the disk has no room."""
    middle = table.size // 2
    table.rows(middle, middle + 1)  # what the first call prepares does not count
    began = perf_counter()
    frame = table.rows(middle, min(middle + SAMPLE_ENTRIES, table.size))
    seconds = (perf_counter() - began) / SAMPLE_ENTRIES * entries
    file = BytesIO()
    _write(frame, file, path.suffix.lower(), has_header=False)
    size = round(len(file.getvalue()) / SAMPLE_ENTRIES * entries)
    free = shutil.disk_usage(path.absolute().parent).free
    if free < 2 * size:  # the parts and the file
        rule = f"must be on a disk with room for {_megabytes(2 * size)}"
        raise ConfigError("--to", rule, f"{_megabytes(free)} free", "Free some, or choose another disk")
    duration = f"{seconds / 60:.0f} min" if seconds > 100 else f"{seconds:.0f} s"
    return f"estimate: {duration} and {_megabytes(size)} for {entries:,}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _write(frame: pl.DataFrame, file: IO[bytes], ending: str, *, has_header: bool) -> None:
    if ending == ".parquet":
        frame.write_parquet(file)
    elif ending == ".csv":
        frame.write_csv(file, include_header=has_header)
    else:
        frame.write_ndjson(file)


def _join(parts: list[Path], path: Path) -> None:
    """The parts one after another, in bounded memory."""
    if parts[0].suffix == ".parquet":
        pl.scan_parquet(parts, glob=False).sink_parquet(path)
        return
    with path.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)


@contextmanager
def _alone(folder: Path, path: Path) -> Iterator[None]:
    """Hold the folder of parts for this process; it stays where it has finished parts."""
    folder.mkdir(exist_ok=True)
    try:
        with held(folder / LOCK):
            try:
                yield
            finally:
                if not any(part.suffix in FORMATS for part in folder.glob("[0-9]*")):
                    shutil.rmtree(folder, ignore_errors=True)
    except HeldError as error:
        raise DataError(str(path), f"is being written by {error}", remedy=error.remedy) from None


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """What the disk refuses, as a DataError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        remedy = "Finished parts are kept: correct that, then run the same command again"
        raise DataError(str(path), f"could not be written ({reason(error)})", remedy=remedy) from None
