"""Data sets in several files: patterns, folders of part files, hive folders (`day=2020-09-14/`), parts of a benchmark."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from athwe_core.errors import DataError

SUFFIX = re.compile(
    r"\.(json|jsonl|ndjson|csv|tsv|txt|dat|data|parquet|pq|feather|ipc|arrow|inter|item)(\.(gz|bz2|xz|zst|zip))?$"
)
PARTS = ("train", "valid", "test")
"""Of a benchmark, in the order of time."""
_PART_NAME = re.compile(r"part-[\w.-]+|\d{6}_\d+")  # of Spark and Hive, which may have no suffix
_NOT_TABLES = {"emb_item_order.txt", "img_missing.txt"}
_HIVE_FOLDER = re.compile(r"(\w+)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def expand(places: Iterable[Path]) -> list[Path]:
    """Replace patterns such as `logs/*.csv` by the files that they match, sorted. Raises DataError where none does."""
    found: list[Path] = []
    for place in places:
        if place.exists() or not glob.has_magic(str(place)):
            found.append(place)
            continue
        matches = sorted(Path(path) for path in glob.glob(str(place), recursive=True))
        files = [path for path in matches if path.is_dir() or not _is_aside(path)]
        if not files:
            raise DataError(f"--raw {place}", "must match a file", remedy="Check the pattern, and put it in quotes")
        found += files
    return found


def table_files(folder: Path) -> list[Path]:
    """Files of a folder that may hold a table, sorted; where it has none, those of its folders, at any depth."""
    here = sorted(path for path in folder.iterdir() if path.is_file() and may_be_table(path))
    if here:
        return here
    inner = (path for path in folder.rglob("*") if path.is_file() and may_be_table(path))
    return sorted(path for path in inner if not any(_is_aside(Path(part)) for part in path.relative_to(folder).parts))


def may_be_table(path: Path) -> bool:
    """Whether a file is named like a table: not `_SUCCESS`, `.part-0.crc` and other files that go with one."""
    is_named = SUFFIX.search(path.name) or _PART_NAME.fullmatch(path.name)
    return bool(is_named) and not _is_aside(path) and path.name not in _NOT_TABLES


def hive_columns(path: Path, folder: Path) -> dict[str, str]:
    """Columns with one value by the names of the folders between `folder` and a file: `day=2020-09-14`."""
    found = {}
    for part in path.relative_to(folder).parent.parts if path.is_relative_to(folder) else ():
        if match := _HIVE_FOLDER.fullmatch(part):
            found[match[1]] = "" if match[2] == _HIVE_NULL else _unescaped(match[2])
    return found


def are_parts(paths: Sequence[Path]) -> bool:
    """Whether names differ in numbers only (`part-0.csv`, `part-1.csv`; `log_2019.csv`, `log_2020.csv.gz`)."""
    stems = {re.sub(r"[0-9a-f]{8,}|\d+", "#", SUFFIX.sub("", path.name)) for path in paths}
    return len(stems) == 1


def benchmark_parts(paths: Iterable[Path]) -> list[Path]:
    """The three parts of a benchmark in the order of time; none where the paths are not just these."""
    paths = list(paths)
    parts = [[path for path in paths if f".{part}." in path.name] for part in PARTS]
    is_benchmark = len(paths) == len(PARTS) and all(len(part) == 1 for part in parts)
    return [path for part in parts for path in part] if is_benchmark else []


def constants_of(paths: Iterable[Path], folders: Iterable[Path]) -> Mapping[Path, dict[str, str]]:
    """The hive columns of each file that has some; `folders` are those that were searched."""
    searched = [folder for folder in folders if folder.is_dir()]
    found = {
        path: next((hive_columns(path, place) for place in searched if path.is_relative_to(place)), {})
        for path in paths
    }
    return {path: columns for path, columns in found.items() if columns}


def _unescaped(value: str) -> str:
    """A value with `%3A` and the like as characters."""
    escaped = re.compile(rb"%([0-9A-Fa-f]{2})")
    return escaped.sub(lambda match: bytes.fromhex(match[1].decode()), value.encode()).decode("utf-8", "replace")


def _is_aside(path: Path) -> bool:
    return path.name.startswith((".", "_"))
