"""Which files a data set comes from, of which kind they are, and the reader that fits: by content, with names as a help."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.amazon import RELEASES, read_amazon
from athwe_core.data.readers.atomic import find_atomic, read_atomic
from athwe_core.data.readers.lines import Reading, first_lines
from athwe_core.data.readers.records import Records
from athwe_core.data.readers.table_file import PARQUET_MAGIC
from athwe_core.data.readers.user_table import read_tables
from athwe_core.errors import ConfigError, DataError
from athwe_core.messages import near_miss

DEMO = "demo"
ATOMIC, TABLE, AMAZON = "atomic", "table", "amazon"
INTERACTIONS, ITEMS = "interactions", "items"
_SUFFIX = re.compile(r"\.(json|jsonl|ndjson|csv|tsv|txt|parquet|inter|item)(\.(gz|bz2|xz|zst))?$")
_PARTS = ("train", "valid", "test")  # of the 2023 benchmark, in the order of time
_USER_ID = re.compile(r"A[0-9A-Z]{9,27}")
_ITEM_ID = re.compile(r"[0-9A-Z]{10}")
_FOR_TABLES = {"user_column": None, "item_column": None, "time_column": None, "time_unit": "auto"}
_JSON_KEY = re.compile(r"""["'](\w+)["']\s*:""")


@dataclass(frozen=True)
class Source:
    """Files of one data set.

    Attributes:
        name: Of the data set.
        kind: `atomic`, a key of `RELEASES`, `table` or `demo`.
        interactions, items: Files, in the order of reading.
        folder: Where feature files may lie.
        why: One line about what was found; empty where nothing was chosen.
    """

    name: str
    kind: str
    interactions: tuple[Path, ...]
    items: tuple[Path, ...]
    folder: Path
    why: str = ""

    @property
    def paths(self) -> list[Path]:
        return [*self.interactions, *self.items]


def find_source(
    name: str,
    *,
    data_dir: Path,
    raw: Sequence[Path] = (),
    item_file: Path | None = None,
    options: PrepareOptions | None = None,
) -> Source:
    """Find the files of a data set.

    Args:
        name: A folder of `data_dir`, `demo`, or any plain name where `raw` says where the files are.
        data_dir: Folder of data sets.
        raw: Files and folders; they win over `data_dir/NAME`.
        item_file: The item table of a `table`.
        options: `source` says which kind is meant; `auto` looks at the files.
    Raises:
        ConfigError: Options that do not fit together.
        DataError: Nothing is found, a named file is missing, or more than one data set is found.
    """
    options = options or PrepareOptions()
    found = _find(name, data_dir, raw, item_file, options.source)
    for_tables = {**{name: getattr(options, name) for name in _FOR_TABLES}, "item_file": item_file}
    for option, value in for_tables.items():
        if found.kind != TABLE and value != _FOR_TABLES.get(option):
            raise ConfigError(option, f"is for tables, and this is {found.kind}", str(value))
    return found


def _find(name: str, data_dir: Path, raw: Sequence[Path], item_file: Path | None, wanted: str) -> Source:
    folder = data_dir / name
    if wanted == DEMO or (name == DEMO and wanted == "auto" and not raw):
        if name != DEMO or raw:
            raise ConfigError("source", "demo is the data set named demo and reads no files", name)
        return Source(name, DEMO, (), (), folder)
    for path in (*raw, *([item_file] if item_file else [])):
        if not path.exists():
            raise DataError(str(path), "does not exist", remedy="Check the path")
        if not path.is_file() and (path == item_file or not path.is_dir()):
            kind = "a file" if path == item_file else "a file or a folder"
            raise DataError(str(path), f"must be {kind}", remedy="Copy what it gives to a file first")
    if not raw and not folder.is_dir():
        clause = near_miss(name, available_datasets(data_dir))
        rule = f"is unknown: no folder {folder}{clause}"
        raise DataError(f"data set {name!r}", rule, remedy="Put its files there, or name them with raw")
    if not raw and wanted in ("auto", ATOMIC) and (inter := find_atomic(folder, name, "inter")):
        item = find_atomic(folder, name, "item")
        found = Source(name, ATOMIC, (inter,), (item,) if item else (), folder)
    else:
        found = _look(name, folder, raw or [folder], wanted, item_file)
    if item_file is None or found.kind != TABLE:
        return found
    return replace(found, items=(item_file,), why=_why(TABLE, (*found.interactions, item_file)))


def read_source(source: Source, options: PrepareOptions, reading: Reading) -> Records:
    """Read the files of any kind but `demo`. Raises DataError, see the readers."""
    if source.kind == ATOMIC:
        return read_atomic(source.interactions[0], next(iter(source.items), None), reading)
    if source.kind in RELEASES:
        return read_amazon(source.kind, source.interactions, source.items, reading)
    return read_tables(source.interactions, next(iter(source.items), None), options, reading)


def available_datasets(data_dir: Path) -> list[str]:
    """Names that can be prepared: folders of `data_dir` with a file that is named as interactions are, and `demo`."""
    folders = sorted(path for path in Path(data_dir).glob("*") if path.is_dir())
    found = [path.name for path in folders if any(map(_may_hold_interactions, _named_files(path, path.name)))]
    return sorted({*found, DEMO})


def _may_hold_interactions(path: Path) -> bool:
    return not path.name.startswith("meta_") and not {".item", ".items"} & set(path.suffixes)


def _look(name: str, folder: Path, places: Sequence[Path], wanted: str, item_file: Path | None) -> Source:
    """Sort the files at `places` by what they hold."""
    files = [path for place in places for path in (_files(place, name) if place.is_dir() else [place])]
    by_content: dict[tuple[str | None, str], list[Path]] = {}
    for path in files:
        if item_file is None or not path.samefile(item_file):
            kind, role = _as_wanted(*sniff(path), wanted)
            role = ITEMS if kind == TABLE and _is_item_table(path) else role
            by_content.setdefault((kind, role), []).append(path)
    kinds = sorted(str(kind) for kind, role in by_content if role == INTERACTIONS and kind and wanted in ("auto", kind))
    if not kinds:
        raise _nothing_found(name, folder, places, wanted)
    if len(kinds) > 1:
        rule = f"must be of one kind, and {' and '.join(kinds)} are there ({_listed(files)})"
        raise DataError(f"files of data set {name!r}", rule, remedy="Choose with source, or name files with raw")
    (kind,) = kinds
    interactions = _one_data_set(name, kind, by_content[kind, INTERACTIONS], named=places)
    items = by_content.get((AMAZON if kind in RELEASES else kind, ITEMS), [])
    if len(items) > 1 and not (kind in RELEASES and all(path in places for path in items)):
        rule = f"must have one file of items, and there are {_listed(items)}"
        raise DataError(f"data set {name!r}", rule, remedy="Name the files with raw")
    home = folder if folder.is_dir() else next((place for place in places if place.is_dir()), folder)
    return Source(name, kind, tuple(interactions), tuple(items), home, _why(kind, (*interactions, *items)))


def _why(kind: str, paths: Iterable[Path]) -> str:
    return f"source {kind}: {', '.join(path.name for path in paths)}"


def _as_wanted(kind: str | None, role: str, wanted: str) -> tuple[str | None, str]:
    """What a file is, given what the user says: any table is a `table`; reviews of 2014 and 2018 have the same keys."""
    same = ("amazon-2014", "amazon-2018")
    if role == INTERACTIONS and kind in same and wanted in same:
        return wanted, role
    if wanted == TABLE and kind not in (None, ATOMIC):
        return TABLE, INTERACTIONS
    return kind, role


def _is_item_table(path: Path) -> bool:
    """`items.csv`, `NAME.items.csv` and the like."""
    return ITEMS in path.name.split(".")[:-1]


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(path.name for path in paths))


def _files(folder: Path, name: str) -> list[Path]:
    """Files of a folder that are named after the data set, and `items`; where none is so named, all that might hold one."""
    every = sorted(path for path in folder.iterdir() if path.is_file() and _SUFFIX.search(path.name))
    named = _named_files(folder, name)
    return [*named, *(path for path in every if path.name.startswith("items."))] if named else every


def _named_files(folder: Path, name: str) -> list[Path]:
    stem = re.compile(rf"(reviews_|ratings_|meta_)?{re.escape(name)}(_5)?(\.({'|'.join((*_PARTS, ITEMS))}))?")
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and (suffix := _SUFFIX.search(path.name)) and stem.fullmatch(path.name[: suffix.start()])
    )


def _one_data_set(name: str, kind: str, paths: list[Path], *, named: Sequence[Path]) -> list[Path]:
    """The interaction files in order: one, all that were named, or the three parts of a benchmark."""
    if len(paths) == 1:
        return paths
    if kind != ATOMIC:
        parts = [[path for path in paths if f".{part}." in path.name] for part in _PARTS]
        if len(paths) == len(_PARTS) and all(len(part) == 1 for part in parts):
            return [path for part in parts for path in part]
        if all(path in named for path in paths):
            return paths
    raise DataError(
        f"data set {name!r}", f"must be one, and there are {_listed(paths)}", remedy="Name its file with raw"
    )


def _nothing_found(name: str, folder: Path, places: Sequence[Path], wanted: str) -> DataError:
    where = ", ".join(str(place) for place in places)
    kinds = "Amazon reviews, csv, tsv, parquet, jsonl" if wanted == "auto" else f"files of source {wanted}"
    return DataError(
        f"data set {name!r}",
        f"has no interactions: looked for {name}.inter and {name}.inter.gz in {folder}, and for {kinds} in {where}",
        remedy="Put a RecBole atomic file with user_id, item_id and timestamp there, or name files with raw",
    )


def sniff(path: Path) -> tuple[str | None, str]:
    """Kind and role of a file by its first lines; the kind is None where it is no table at all.

    Raises:
        DataError: A damaged or foreign archive.
    """
    with path.open("rb") as file:
        if file.read(4) == PARQUET_MAGIC:
            return TABLE, INTERACTIONS
    lines = [line.decode("utf-8", "replace") for line in first_lines(path)]
    if not lines:
        return None, INTERACTIONS
    if lines[0].lstrip().startswith("{"):
        return _sniff_json(path, lines[0])
    if re.match(r"[^\t:]+:(token|float)", lines[0]):
        return ATOMIC, ITEMS if "user_id:" not in lines[0] else INTERACTIONS
    fields = lines[0].split(",")
    if "parent_asin" in fields and "user_id" in fields:
        return "amazon-2023", INTERACTIONS
    if len(fields) == 4 and _is_number(fields[2]) and _is_number(fields[3]):
        if _ITEM_ID.fullmatch(fields[1]) and _USER_ID.fullmatch(fields[0]):
            return "amazon-2014", INTERACTIONS
        if _ITEM_ID.fullmatch(fields[0]) and _USER_ID.fullmatch(fields[1]):
            return "amazon-2018", INTERACTIONS
    return TABLE, INTERACTIONS


def _sniff_json(path: Path, line: str) -> tuple[str, str]:
    keys: Iterable[str]
    try:
        keys = json.loads(line).keys()
    except (ValueError, RecursionError):
        keys = _JSON_KEY.findall(line)
    found = set(keys)
    if {"user_id", "parent_asin"} <= found:
        return "amazon-2023", INTERACTIONS
    if {"reviewerID", "asin"} <= found:
        return "amazon-2014" if "helpful" in found or path.name.startswith("reviews_") else "amazon-2018", INTERACTIONS
    if "parent_asin" in found or "asin" in found:
        return AMAZON, ITEMS
    return TABLE, INTERACTIONS


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", text) is not None
