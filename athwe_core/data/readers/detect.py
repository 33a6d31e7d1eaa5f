"""Which files a data set comes from, of which kind they are, and the reader that fits: by content, helped by the names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from athwe_core.data.options import DEMO, PrepareOptions, typed
from athwe_core.data.readers.amazon import RELEASES, read_amazon
from athwe_core.data.readers.atomic import find_atomic, is_typed, read_atomic
from athwe_core.data.readers.movielens import MOVIELENS, find_movielens, read_movielens
from athwe_core.data.readers.parts import (
    PARTS,
    SUFFIX,
    are_parts,
    benchmark_parts,
    constants_of,
    expand,
    table_files,
)
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.data.readers.sniff import AMAZON, ATOMIC, INTERACTIONS, ITEMS, TABLE, sniff
from athwe_core.data.readers.user_table import TableFiles, read_tables
from athwe_core.data.sources.table import commands, known_sources
from athwe_core.errors import ConfigError, DataError
from athwe_core.messages import near_miss

GIVEN = "given"
_FOR_TABLES = ("user_column", "item_column", "time_column", "time_unit", "time_format", "columns", "quotes")
_LISTED = 20
_PUT_FILES = "Put its files there, or name them with --raw"


@dataclass(frozen=True)
class Source:
    """Files of one data set.

    Attributes:
        name: Of the data set.
        kind: `atomic`, a key of `RELEASES`, `movielens`, `table` or `demo`.
        interactions, items: Files, in the order of reading.
        folder: Where feature files may lie.
        why: One line about what was found; empty where nothing was chosen.
        has_parts: The interactions are the training, validation and test part of a given split.
        constants: File -> columns with one value, by the names of its folders (`day=2020-09-14`).
    """

    name: str
    kind: str
    interactions: tuple[Path, ...]
    items: tuple[Path, ...]
    folder: Path
    why: str = ""
    has_parts: bool = False
    constants: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """All files."""
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
        name: A folder of `data_dir`, `demo`, or any plain name where `raw` names the files.
        data_dir: Folder of data sets.
        raw: Files, folders and patterns such as `logs/*.csv`; they take precedence over `data_dir/NAME`.
        item_file: The item table of a `table`.
        options: `source` is the kind of the files, `auto` detects it; `split` whether parts of a benchmark are a split.
    Returns:
        The files, sorted by what they hold.
    Raises:
        ConfigError: Options that do not fit together.
        DataError: Nothing is found, a named file is missing, or more than one data set is found.
    """
    options = options or PrepareOptions()
    found = _find(name, data_dir, expand(raw), item_file, options)
    if found.kind != TABLE and (option := _table_option(options)):
        value = getattr(options, option)
        raise ConfigError(typed(option), f"is for tables, and this is {found.kind}", str(value))
    if found.kind != TABLE and item_file is not None:
        raise ConfigError("--item-file", f"is for tables, and this is {found.kind}", str(item_file))
    if options.split == GIVEN and not found.has_parts:
        parts = ", ".join(f"{name}.{part}.inter" for part in PARTS)
        raise ConfigError("--split", "given needs the parts of a benchmark", GIVEN, f"Put {parts} into one folder")
    return found


def _table_option(options: PrepareOptions) -> str | None:
    """An option about tables that is given; None without any."""
    defaults = PrepareOptions()
    return next((each for each in _FOR_TABLES if getattr(options, each) != getattr(defaults, each)), None)


def _find(name: str, data_dir: Path, raw: Sequence[Path], item_file: Path | None, options: PrepareOptions) -> Source:
    folder, wanted = data_dir / name, options.source
    if wanted == DEMO or (name == DEMO and wanted == "auto" and not raw):
        if name != DEMO or raw:
            raise ConfigError("--source", "demo is the data set named demo and reads no files", name)
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
        raise DataError(f"data set {name!r}", rule, remedy=_remedy(name, data_dir, _PUT_FILES))
    inter = None if raw or wanted not in ("auto", ATOMIC) else find_atomic(folder, name, "inter")
    if (
        inter is None
        and item_file is None
        and (wanted == MOVIELENS or (wanted == "auto" and not _table_option(options)))
    ):
        ratings, movies = find_movielens(raw or [folder])
        if ratings is not None:
            files = (ratings, *([movies] if movies else []))
            return Source(name, MOVIELENS, files[:1], files[1:], folder, _why(MOVIELENS, files))
    if inter is None or options.split == GIVEN:
        return _look(name, folder, raw or [folder], item_file, options)
    item = item_file or find_atomic(folder, name, "item")
    items = (item,) if item else ()
    if wanted == ATOMIC or (wanted == "auto" and item_file is None and is_typed(inter)):
        return Source(name, ATOMIC, (inter,), items, folder)
    return Source(name, TABLE, (inter,), items, folder, _why(TABLE, (inter, *items)))


def read_source(source: Source, options: PrepareOptions, reading: Reading) -> Records:
    """Read the files of any kind but `demo`. Raises DataError, see the readers."""
    item = next(iter(source.items), None)
    most = options.max_missing_ids
    if source.kind == ATOMIC:
        has_parts = source.has_parts
        return read_atomic(source.interactions, item, reading, has_parts=has_parts, max_missing_ids=most)
    if source.kind == MOVIELENS:
        return read_movielens(source.interactions[0], item, options, reading)
    if source.kind in RELEASES:
        keep = options.keep_items
        return read_amazon(
            source.kind, source.interactions, source.items, reading, keep_items=keep, max_missing_ids=most
        )
    parts = {path: part for part, path in enumerate(source.interactions)} if source.has_parts else None
    files = TableFiles(source.interactions, item, source.constants, parts)
    return read_tables(files, options, reading)


def available_datasets(data_dir: Path) -> list[str]:
    """Names that can be prepared: folders of `data_dir` with a file that is named as interactions are, and `demo`."""
    folders = sorted(path for path in Path(data_dir).glob("*") if path.is_dir())
    found = [path.name for path in folders if any(map(_may_hold_interactions, _named_files(path, path.name)))]
    return sorted({*found, DEMO})


def _may_hold_interactions(path: Path) -> bool:
    return not path.name.startswith("meta_") and not {".item", ".items"} & set(path.suffixes)


def _look(name: str, folder: Path, places: Sequence[Path], item_file: Path | None, options: PrepareOptions) -> Source:
    """Sort the files at `places` by what they hold."""
    wanted = options.source
    files = [path for place in places for path in (_files(place, name) if place.is_dir() else [place])]
    by_content: dict[tuple[str | None, str], list[Path]] = {}
    sniffed = {path: sniff(path) for path in files if item_file is None or not path.samefile(item_file)}
    only_atomic = all(kind in (None, ATOMIC) for kind, _ in sniffed.values())
    for path, (found, role_found) in sniffed.items():
        is_table = wanted == TABLE and only_atomic and found is not None
        kind, role = _as_wanted(TABLE if is_table else found, role_found, wanted)
        if kind == TABLE and _is_item_table(path):
            role = ITEMS
        by_content.setdefault((kind, role), []).append(path)
    kinds = sorted(str(kind) for kind, role in by_content if role == INTERACTIONS and kind and wanted in ("auto", kind))
    if not kinds:
        raise _nothing_found(name, folder, places, wanted)
    if len(kinds) > 1:
        rule = f"must be of one kind, and {' and '.join(kinds)} are there ({_listed(files)})"
        remedy = f"Choose one: {' or '.join(f'--source {kind}' for kind in kinds)}"
        raise DataError(f"files of data set {name!r}", rule, remedy=remedy)
    (kind,) = kinds
    blank = by_content.get((None, INTERACTIONS), []) if kind == TABLE else []  # parts without a row
    interactions = _one_data_set(name, kind, sorted({*by_content[kind, INTERACTIONS], *blank}, key=files.index), places)
    items = by_content.get((AMAZON if kind in RELEASES else kind, ITEMS), [])
    items = items or by_content.get((ATOMIC, ITEMS), []) if kind == TABLE else items
    if item_file is not None and kind == TABLE:
        items = [item_file]
    if len(items) > 1 and not (kind in RELEASES and all(path in places for path in items)):
        rule = f"must have one file of items, and there are {_listed(items)}"
        raise DataError(f"data set {name!r}", rule, remedy=f"Name the files: {_raw([*interactions, items[0]])}")
    home = folder if folder.is_dir() else next((place for place in places if place.is_dir()), folder)
    is_benchmark = interactions == benchmark_parts(interactions) and (
        options.split == GIVEN or all(".inter" in path.suffixes for path in interactions)
    )
    return Source(
        name,
        kind,
        tuple(interactions),
        tuple(items),
        home,
        _why(kind, (*interactions, *items)),
        has_parts=is_benchmark and options.split in ("auto", GIVEN),
        constants=constants_of(interactions, places) if kind == TABLE else {},
    )


def _why(kind: str, paths: Sequence[Path]) -> str:
    names = [path.name for path in paths]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"source {kind}: {', '.join(names[:_LISTED])}{more}"


def _as_wanted(kind: str | None, role: str, wanted: str) -> tuple[str | None, str]:
    """What a file is under --source: any table is a `table`; reviews of 2014 and 2018 have the same keys."""
    same = ("amazon-2014", "amazon-2018")
    if role == INTERACTIONS and kind in same and wanted in same:
        return wanted, role
    if wanted == TABLE and kind not in (None, ATOMIC):
        return TABLE, INTERACTIONS
    return kind, role


def _is_item_table(path: Path) -> bool:
    """`items.csv`, `NAME.items.csv`, `NAME.item` and the like."""
    return bool({ITEMS, "item"} & {*path.name.split(".")[:-1], path.suffix[1:]})


def _listed(paths: Iterable[Path]) -> str:
    names = sorted(path.name for path in paths)
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _raw(paths: Iterable[Path]) -> str:
    return " ".join(f"--raw {path}" for path in paths)


def _files(folder: Path, name: str) -> list[Path]:
    """Files of a folder that are named after the data set, and `items`; where none is so named, all that may hold a table."""
    named = _named_files(folder, name)
    every = table_files(folder)
    return [*named, *(path for path in every if path.name.startswith("items."))] if named else every


def _named_files(folder: Path, name: str) -> list[Path]:
    stem = re.compile(rf"(reviews_|ratings_|meta_)?{re.escape(name)}(_5)?(\.({'|'.join((*PARTS, ITEMS))}))?")
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and (suffix := SUFFIX.search(path.name)) and stem.fullmatch(path.name[: suffix.start()])
    )


def _one_data_set(name: str, kind: str, paths: list[Path], places: Sequence[Path]) -> list[Path]:
    """The interaction files in order: one, all that were named, the parts of a benchmark, or parts of one table."""
    benchmark = benchmark_parts(paths)
    if len(paths) == 1 or benchmark:
        return benchmark or paths
    is_named = all(path in places for path in paths)
    is_hive = kind == TABLE and len(constants_of(paths, places)) == len(paths)
    if is_named or is_hive or (kind == TABLE and are_parts(paths)):
        return paths
    remedy = f"Name one: --raw {paths[0]}, or all that belong together: {_raw(paths[:2])}"
    raise DataError(f"data set {name!r}", f"must be one, and there are {_listed(paths)}", remedy=remedy)


def _nothing_found(name: str, folder: Path, places: Sequence[Path], wanted: str) -> DataError:
    where = ", ".join(str(place) for place in places)
    kinds = "Amazon reviews, csv, tsv, parquet, feather, jsonl" if wanted == "auto" else f"files of source {wanted}"
    put_files = "Put a RecBole atomic file with user_id, item_id and timestamp there, or name files with --raw"
    return DataError(
        f"data set {name!r}",
        f"has no interactions: looked for {name}.inter and {name}.inter.gz in {folder}, and for {kinds} in {where}",
        remedy=_remedy(name, folder.parent, put_files) if folder in places else put_files,
    )


def _remedy(name: str, data_dir: Path, otherwise: str) -> str:
    """The two commands that fetch and prepare a data set of the table of sources; `otherwise` for any other."""
    if name not in known_sources(data_dir):
        return otherwise
    download, prepare = commands(name, data_dir)
    return f"Get it: {download}, then prepare it: {prepare}"
