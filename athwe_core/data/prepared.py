"""Source files to a prepared data set on disk: read, filter, number, order, split, add features, write one version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64

import athwe_core
from athwe_core.data import demo
from athwe_core.data.atomic import atomic_paths, find_atomic, read_records
from athwe_core.data.features.collect import ItemFeatures, collect_features
from athwe_core.data.features.given import find_feature_files
from athwe_core.data.filtering import first_occurrences, k_core, refuse_too_few
from athwe_core.data.options import PrepareOptions
from athwe_core.data.records import Records, number_by_first_appearance
from athwe_core.data.split import (
    GLOBAL_TIME,
    Split,
    global_time,
    leave_one_out,
    order_by_time,
    tied_test_share,
    user_offsets,
)
from athwe_core.data.store import (
    CURRENT,
    FORMAT,
    MANIFEST,
    PreparedDataset,
    content_hash,
    current_version,
    file_hash,
    list_versions,
    near_miss,
    new_version,
    open_prepared,
    prepared_folder,
    write_text_atomically,
)
from athwe_core.errors import DataError

__all__ = ["PrepareOptions", "PreparedDataset", "available_datasets", "list_versions", "open_prepared", "prepare"]

DEMO = "demo"


def _ignore(_message: str) -> None:
    """Hear nothing."""


@dataclass(frozen=True)
class _Interactions:
    """Filtered interactions in user and time order; items are internal ids, `item_tokens[0]` is the padding."""

    offsets: Int64[np.ndarray, "U_plus_1"]
    item_ids: Int32[np.ndarray, "I"]
    timestamps: Int64[np.ndarray, "I"]
    user_tokens: list[str]
    item_tokens: list[str]
    file_rows: Int64[np.ndarray, "I"]
    split: Split
    notes: tuple[str, ...]


def prepare(
    name: str,
    *,
    data_dir: Path,
    prepared_dir: Path,
    options: PrepareOptions | None = None,
    notify: Callable[[str], None] = _ignore,
) -> PreparedDataset:
    """Turn the source of `name` into a prepared version, mark it current and open it.

    Args:
        name: Folder `data_dir/NAME` with `NAME.inter`, or `demo`, which is generated.
        data_dir: Only read.
        prepared_dir: The version goes to `prepared_dir/NAME/<version>/`. The same input with the same options is the
            same version, which is then left as it is.
        options: Defaults where None.
        notify: Called with one sentence for each thing the user should know.
    Raises:
        ConfigError: NAME is no plain folder name.
        DataError: The data set is unknown, malformed, too small after filtering, or its features do not fit.
    """
    options = options or PrepareOptions()
    folder = prepared_folder(prepared_dir, name)
    sources = _source_files(name, Path(data_dir))
    version = _version(name, sources, options)
    if version in list_versions(name, prepared_dir=prepared_dir):
        notify(f"{name} is already prepared with these files and options: version {version}")
    else:
        with new_version(folder, version) as temporary:
            manifest = _write(temporary, name, sources=sources, folder=Path(data_dir) / name, options=options)
            _write_manifest(temporary, {"name": name, "version": version, **manifest})
    prepared = open_prepared(name, prepared_dir=prepared_dir, version=version)
    if current_version(name, prepared_dir=prepared_dir) != version:
        write_text_atomically(folder / CURRENT, version + "\n")
    for note in prepared.manifest["notes"]:
        notify(note)
    return prepared


def available_datasets(data_dir: Path) -> list[str]:
    """Names that `prepare` accepts: folders of `data_dir` with interactions, and `demo`."""
    folders = sorted(path for path in Path(data_dir).glob("*") if path.is_dir())
    found = [path.name for path in folders if any(file.is_file() for file in atomic_paths(path, path.name, "inter"))]
    return sorted({*found, DEMO})


def _source_files(name: str, data_dir: Path) -> list[Path]:
    if name == DEMO:
        return []
    folder = data_dir / name
    if not folder.is_dir():
        clause = near_miss(name, available_datasets(data_dir))
        raise DataError(f"data set {name!r}", f"is unknown: no folder {folder}{clause}")
    atomic = [find_atomic(folder, name, kind) for kind in ("inter", "item")]
    return [*(path for path in atomic if path is not None), *find_feature_files(folder)]


def _version(name: str, sources: list[Path], options: PrepareOptions) -> str:
    """First 12 hex digits of a hash of format, name, every option and every source file's content."""
    inputs = {path.name: file_hash(path) for path in sources}
    generator = demo.FORMAT if name == DEMO else 0
    identity = [FORMAT, generator, name, options.identity(), inputs]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _write(path: Path, name: str, *, sources: list[Path], folder: Path, options: PrepareOptions) -> dict[str, Any]:
    """Write arrays and tables to `path` and return what the manifest says about them."""
    records, features_of = _read_source(name, folder, options)
    interactions = _number_and_order(records, name, options)
    features = features_of(interactions.item_tokens)
    arrays = {
        "offsets": interactions.offsets,
        "item_ids": interactions.item_ids,
        "timestamps": interactions.timestamps,
        "file_rows": interactions.file_rows,
        **features.arrays(),
        **_split_arrays(interactions.split, options),
    }
    for stem, array in arrays.items():
        np.save(path / f"{stem}.npy", np.ascontiguousarray(array), allow_pickle=False)
    pl.DataFrame({"user_id": interactions.user_tokens}).write_parquet(path / "users.parquet")
    _item_frame(records, interactions.item_tokens).write_parquet(path / "items.parquet")
    return {
        "content_hash": content_hash(path),
        "options": asdict(options),
        "sources": [
            {"file": source.name, "bytes": source.stat().st_size, "sha256": file_hash(source)} for source in sources
        ],
        "arrays": {stem: list(array.shape) for stem, array in arrays.items()},
        "statistics": {**_statistics(interactions, features), "tie_order": options.tie_order, "split": options.split},
        "category_names": features.categories.names if features.categories else [],
        "item_rows": _three_pairs(interactions.item_tokens, features),
        "notes": [*interactions.notes, *features.notes()],
    }


def _write_manifest(path: Path, facts: dict[str, Any]) -> None:
    statistics = {**facts["statistics"], "version": facts["version"], "notes": facts["notes"]}
    manifest = {**facts, "format": FORMAT, "athwe_version": athwe_core.__version__, "statistics": statistics}
    (path / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_source(
    name: str, folder: Path, options: PrepareOptions
) -> tuple[Records, Callable[[list[str]], ItemFeatures]]:
    """The records, and what gives the item features once the items are numbered."""
    if name == DEMO:
        generated = demo.generate(options.demo_users, options.demo_items, seed=options.seed)
        return generated.records, partial(generated.features, options=options)
    records = read_records(folder, name)
    return records, partial(collect_features, folder, records.items, options=options)


def _number_and_order(records: Records, name: str, options: PrepareOptions) -> _Interactions:
    """Filter, number users and items by first appearance in what is left, order by user and time."""
    users, _ = number_by_first_appearance(records.user_tokens)
    items, _ = number_by_first_appearance(records.item_tokens)
    is_first = first_occurrences(users, items, records.timestamps)
    rows = np.flatnonzero(is_first)
    rows = rows[k_core(users[rows], items[rows], minimum=options.min_interactions)]
    kept = replace(
        records,
        user_tokens=records.user_tokens[rows],
        item_tokens=records.item_tokens[rows],
        timestamps=records.timestamps[rows],
    )
    users, user_tokens = number_by_first_appearance(kept.user_tokens)
    items, item_tokens = number_by_first_appearance(kept.item_tokens)
    refuse_too_few(len(user_tokens), len(item_tokens), name=name, minimum=options.min_interactions)
    order = order_by_time(users, item_tokens, items, kept.timestamps, tie_order=options.tie_order, seed=options.seed)
    num_first = int(np.count_nonzero(is_first))
    few = f"rows of users or items with fewer than {options.min_interactions} interactions were removed"
    counts = {
        "repeated rows (same user, item and time) were removed": len(records) - num_first,
        few: num_first - len(rows),
        "rows came after a later one of the same user in the file: sorted by time": _count_late(users, kept.timestamps),
    }
    offsets, timestamps = user_offsets(users, len(user_tokens)), kept.timestamps[order]
    return _Interactions(
        offsets=offsets,
        item_ids=(items[order] + 1).astype(np.int32),
        timestamps=timestamps,
        user_tokens=user_tokens,
        item_tokens=["", *item_tokens],
        file_rows=order,
        split=_split(offsets, timestamps, options),
        notes=(*records.notes, *(f"{count} {what}" for what, count in counts.items() if count)),
    )


def _split(
    offsets: Int64[np.ndarray, "U_plus_1"], timestamps: Int64[np.ndarray, "I"], options: PrepareOptions
) -> Split:
    if options.split != GLOBAL_TIME:
        return leave_one_out(offsets)
    by_time = np.sort(timestamps)
    at = [by_time[int(len(by_time) * (1 - periods * options.held_out_share))] for periods in (2, 1)]
    return global_time(offsets, timestamps, validation_from=int(at[0]), test_from=int(at[1]))


def _split_arrays(split: Split, options: PrepareOptions) -> dict[str, Int64[np.ndarray, "U"]]:
    if options.split != GLOBAL_TIME:
        return {}
    return {"training_ends": split.training_end, "validation_rows": split.validation, "test_rows": split.test}


def _count_late(users: Int64[np.ndarray, "I"], timestamps: Int64[np.ndarray, "I"]) -> int:
    """Rows earlier than the row before of the same user, in file order."""
    by_user = np.argsort(users, kind="stable")
    is_same_user = np.diff(users[by_user]) == 0
    return int(np.count_nonzero(is_same_user & (np.diff(timestamps[by_user]) < 0)))


def _item_frame(records: Records, item_tokens: list[str]) -> pl.DataFrame:
    """The item table by internal id; empty strings for the padding and for items that it lacks."""
    by_id = pl.DataFrame({"item_id": item_tokens})
    if records.items is None:
        return by_id
    return by_id.join(records.items.frame, on="item_id", how="left", maintain_order="left").fill_null("")


def _statistics(interactions: _Interactions, features: ItemFeatures) -> dict[str, Any]:
    num_users, num_items = len(interactions.user_tokens), len(interactions.item_tokens) - 1
    count = len(interactions.item_ids)
    return {
        "users": num_users,
        "items": num_items,
        "interactions": count,
        "asked": {name: len(interactions.split.users(name)) for name in ("validation", "test")},
        "sparsity": 1 - count / (num_users * num_items),
        "actions_per_user": count / num_users,
        "actions_per_item": count / num_items,
        "tied_test_share": tied_test_share(interactions.split, interactions.timestamps),
        "features": features.facts(),
        "clusters": {
            kind: None if labels is None else int(labels.max()) + 1
            for kind, labels in (("text", features.text_clusters), ("image", features.image_clusters))
        },
    }


def _three_pairs(item_tokens: list[str], features: ItemFeatures) -> list[dict[str, Any]]:
    """First, middle and last item with its row here and in the feature files, so that a mix-up of orders shows."""
    last = len(item_tokens) - 1
    pairs = []
    for row in sorted({1, (1 + last) // 2, last}):
        pair: dict[str, Any] = {"item": item_tokens[row], "row": row}
        for kind, found in (("text_file_row", features.text), ("image_file_row", features.image)):
            if found and found.source_rows is not None:
                pair[kind] = int(found.source_rows[row])
        pairs.append(pair)
    return pairs
