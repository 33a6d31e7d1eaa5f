"""What a prepared version consists of, and whether its files keep to it: they are read as if anybody had written them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from athwe_core.errors import DataError
from athwe_core.messages import reason

FORMAT = 1  # raise when the meaning of a prepared file changes
MANIFEST = "manifest.json"
REQUIRED_ARRAYS = {"offsets": np.int64, "item_ids": np.int32, "timestamps": np.int64}
SPLIT_ARRAYS = {"training_ends": np.int64, "validation_rows": np.int64, "test_rows": np.int64}
"""Of a split that is not leave-one-out."""
ITEM_ARRAYS = {
    "text_features": np.float32,
    "image_features": np.float32,
    "categories": np.uint8,
    "text_clusters": np.int32,
    "image_clusters": np.int32,
}
OPTIONAL_ARRAYS = {**ITEM_ARRAYS, **SPLIT_ARRAYS}
SIDE_ARRAYS = {"file_rows": np.int64}
"""Read by the audit only: no part of the content that runs depend on."""
VECTORS = ("text_features", "image_features")
"""Half precision where `prepare` was told so."""
MAX_HALF = float(np.finfo(np.float16).max)
TABLES = ("text_features", "image_features", "categories")
_MAGIC = b"\x93NUMPY"
_KINDS = {**REQUIRED_ARRAYS, **OPTIONAL_ARRAYS, **SIDE_ARRAYS}
_STATISTICS = {"users": int, "items": int, "interactions": int, "tie_order": str, "features": dict, "notes": list}
_FACTS = {"version": str, "content_hash": str, "options": dict, "arrays": dict, "notes": list, "category_names": list}
"""What a manifest always has, with its kind."""
_LATER = {
    "tables": dict,
    "item_rows": list,
    "item_columns": dict,
    "vector_notes": dict,
    "clusters_made": dict,
    "refreshed": list,
}
"""What older manifests may lack."""


def read_version(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read one version's manifest and map its arrays.

    Args:
        path: `PREPARED/NAME/<version>`.
        name: Of the data set, for messages.
    Returns:
        The manifest, and read-only memory maps by name.
    Raises:
        DataError: A file is missing, damaged, or does not fit to the others; or a later athwe wrote them.
    """
    try:
        manifest = _read_manifest(path, name)
        arrays = {stem: _map(path, stem) for stem in manifest["arrays"] if stem in _KINDS}
        _check_shapes(path, manifest, arrays)
        _check_rows(manifest, arrays)
    except DataError:
        raise
    except Exception as error:  # numpy and json raise many kinds over damaged files; all mean the same
        raise damaged(path, name, reason(error)) from None
    return manifest, arrays


def _read_manifest(path: Path, name: str) -> dict[str, Any]:
    """The manifest, with all that is read from it later. Raises DataError, ValueError."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(found, int) and found > FORMAT:
        rule = f"has format {found}, and this version of athwe reads up to {FORMAT}"
        remedy = f"Update athwe, or run: athwe prepare --dataset {name}"
        raise DataError(f"prepared data set {path}", rule, remedy=remedy)
    for facts, wanted in ((manifest, _FACTS), (manifest["statistics"], _STATISTICS)):
        for key, kind in wanted.items():
            if type(facts[key]) is not kind:
                raise ValueError(f"{MANIFEST}: {key} is a {type(facts[key]).__name__}")
    for key, kind in _LATER.items():
        if key in manifest and type(manifest[key]) is not kind:
            raise ValueError(f"{MANIFEST}: {key} is a {type(manifest[key]).__name__}")
    if found != FORMAT or manifest["version"] != path.name:
        raise ValueError(f"{MANIFEST} is of format {found!r} and version {manifest['version']!r}")
    return manifest


def _check_shapes(path: Path, manifest: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Compare the arrays with the manifest and with each other. Raises ValueError."""
    there = {stem for stem in _KINDS if (path / f"{stem}.npy").exists()}
    if there != set(arrays) or not set(REQUIRED_ARRAYS) <= there:
        names = ", ".join(sorted(there ^ set(arrays) | set(REQUIRED_ARRAYS) - there))
        raise ValueError(f"of the arrays in {MANIFEST} and on disk, one lacks {names}")
    num_rows = manifest["statistics"]["items"] + 1
    for stem, array in arrays.items():
        length = num_rows if stem in ITEM_ARRAYS else len(arrays["offsets"]) - 1 if stem in SPLIT_ARRAYS else len(array)
        shape = list(array.shape)
        ndim = 2 if stem in TABLES else 1
        kinds = (np.float32, np.float16) if stem in VECTORS else (_KINDS[stem],)
        if array.dtype not in kinds or shape != manifest["arrays"][stem] or len(shape) != ndim or shape[0] != length:
            raise ValueError(f"{stem}.npy is {array.dtype} {array.shape}")


def _check_rows(manifest: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Whether users, items and split are within their bounds; the vectors are not read. Raises ValueError."""
    offsets, items, times = (arrays[stem] for stem in REQUIRED_ARRAYS)
    count, num_items = len(items), manifest["statistics"]["items"]
    if not len(times) == count == offsets[-1] or offsets[0] != 0 or len(offsets) < 2 or (np.diff(offsets) < 1).any():
        raise ValueError("offsets, item_ids and timestamps do not fit together")
    if items.min() < 1 or items.max() > num_items:
        raise ValueError(f"item_ids.npy holds {items.min()} to {items.max()}, and there are {num_items} items")
    if times.min() < 0:
        raise ValueError(f"timestamps.npy holds {times.min()}")
    start, end = offsets[:-1], offsets[1:]
    for stem in SPLIT_ARRAYS.keys() & arrays.keys():
        rows = arrays[stem]
        is_end = stem == "training_ends"  # else rows that are asked for, which have one before them, or -1
        fits = (start <= rows) & (rows <= end) if is_end else (rows == -1) | ((start < rows) & (rows < end))
        if not fits.all():
            raise ValueError(f"{stem}.npy does not fit to offsets.npy")


def save_arrays(folder: Path, arrays: dict[str, Any], *, half_features: bool) -> None:
    """Write arrays as `folder/NAME.npy`. Raises DataError for a vector that half precision cannot hold."""
    for stem, array in arrays.items():
        kept = _half(stem, array) if half_features and stem in VECTORS else array
        np.save(folder / f"{stem}.npy", np.ascontiguousarray(kept), allow_pickle=False)


def _half(stem: str, vectors: Any) -> Any:
    largest = float(np.abs(vectors).max(initial=0))
    if largest > MAX_HALF:
        rule = f"must be at most {MAX_HALF:g} in size for half precision"
        raise DataError(stem, rule, largest, "Scale them, or leave --half-features out")
    return vectors.astype(np.float16)


def damaged(path: Path, name: str, why: str) -> DataError:
    """The error for a version that cannot be used."""
    remedy = f"Delete that folder and run: athwe prepare --dataset {name}"
    return DataError(f"prepared data set {path}", f"is damaged ({why})", remedy=remedy)


def _map(path: Path, stem: str) -> Any:
    file = path / f"{stem}.npy"
    with file.open("rb") as opened:  # np.load takes archives for arrays, and leaves a damaged one open
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{stem}.npy is no array")
    with warnings.catch_warnings():  # of Python 2's headers
        warnings.simplefilter("ignore")
        return np.load(file, mmap_mode="r", allow_pickle=False)
