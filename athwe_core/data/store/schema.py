"""What a prepared version consists of. Its files are validated when they are read: anybody may have written them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import athwe_core
from athwe_core.data.store.checksums import (
    CHECKED,
    changed_files,
    content_hash,
    file_hashes,
    looks_unchanged,
    own_hash,
    remember,
)
from athwe_core.errors import DataError
from athwe_core.messages import reason
from athwe_core.warning_filters import warnings_as

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
    "text_layers": np.float16,
    "image_layers": np.float16,
}
OPTIONAL_ARRAYS = {**ITEM_ARRAYS, **SPLIT_ARRAYS}
SIDE_ARRAYS = {"file_rows": np.int64}
"""Read by the audit only: no part of the content that runs depend on."""
CONTENT_ARRAYS = (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS)
"""What runs depend on, in the order of the content hash."""
PARQUET = ("users.parquet", "items.parquet")
VECTORS = ("text_features", "image_features")
"""In half precision with `--half-features`."""
LAYERS = ("text_layers", "image_layers")
"""States of encoders' layers, always in half precision."""
MAX_HALF = float(np.finfo(np.float16).max)
TABLES = ("text_features", "image_features", "categories")
_MAGIC = b"\x93NUMPY"
_KINDS = {**REQUIRED_ARRAYS, **OPTIONAL_ARRAYS, **SIDE_ARRAYS}
_STATISTICS = {"users": int, "items": int, "interactions": int, "tie_order": str, "features": dict, "notes": list}
_FACTS = {"version": str, "content_hash": str, "options": dict, "arrays": dict, "notes": list, "category_names": list}
"""What a manifest always has, with its kind."""
_LATER = {
    "files": dict,
    "tables": dict,
    "item_rows": list,
    "item_columns": dict,
    "vector_notes": dict,
    "clusters_made": dict,
    "refreshed": list,
}
"""What older manifests may lack."""


def read_version(path: Path, name: str, *, check_all: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read one version's manifest and map its arrays.

    Args:
        path: `PREPARED/NAME/<version>`.
        name: Name of the data set, for messages.
        check_all: Read every file whole and compare it with its checksum, instead of only where a cheap look finds a change.
    Returns:
        The manifest, and read-only memory maps by name.
    Raises:
        DataError: A file is missing, damaged, changed, or does not fit to the others; or a later athwe wrote them.
    """
    try:
        manifest = _read_manifest(path, name)
        arrays = {stem: _map(path, stem) for stem in manifest["arrays"] if stem in _KINDS}
        _check_shapes(path, manifest, arrays)
        _check_rows(manifest, arrays)
        _check_content(path, manifest, check_all=check_all)
    except DataError:
        raise
    except Exception as error:  # numpy and json raise many kinds over damaged files; all mean the same
        raise damaged(path, name, reason(error)) from None
    return manifest, arrays


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a version whose other files are all in `folder`, with the checksum of each.

    Args:
        folder: Of the version, which is not visible under its name yet.
        facts: Everything but format, program version, content hash and checksums, which are added. Checksums of files
            that are known already may be in `files`.
    """
    names = [file.name for file in folder.iterdir() if file.name not in (MANIFEST, CHECKED)]
    known = {name: digest for name, digest in facts.get("files", {}).items() if name in names}
    files = known | file_hashes(folder, set(names) - known.keys())
    manifest = {
        **facts,
        "format": FORMAT,
        "athwe_version": athwe_core.__version__,
        "content_hash": content_hash(files, CONTENT_ARRAYS),
        "files": files,
    }
    manifest = json.loads(json.dumps(manifest))  # as it will be read
    manifest["files"][MANIFEST] = own_hash(manifest, MANIFEST)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    remember(folder, names)


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
        ndim = 3 if stem in LAYERS else 2 if stem in TABLES else 1
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


def _check_content(path: Path, manifest: dict[str, Any], *, check_all: bool) -> None:
    """Compare the files with their checksums. Raises ValueError."""
    try:
        _compare(path, manifest, check_all=check_all)
    except OSError as error:
        raise ValueError(f"{Path(error.filename or path).name}: {error.strerror or error}") from None


def _compare(path: Path, manifest: dict[str, Any], *, check_all: bool) -> None:
    wanted = {f"{stem}.npy" for stem in manifest["arrays"]} | set(PARQUET)
    if "files" not in manifest:
        _compare_of_0_1(path, manifest, check_all=check_all)
        return
    hashes = dict(manifest["files"])
    if hashes.pop(MANIFEST, None) != own_hash(manifest, MANIFEST):
        raise ValueError(f"{MANIFEST} is not what was written")
    if not wanted <= hashes.keys() or not all(Path(name).name == name for name in hashes):
        raise ValueError(f"{MANIFEST}: files must list every file of this folder")
    if changed := changed_files(path, hashes, everything=check_all):
        raise ValueError(f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what was written")


def _compare_of_0_1(path: Path, manifest: dict[str, Any], *, check_all: bool) -> None:
    """Version 0.1.0 wrote one hash for all arrays that training reads, and later one for each table."""
    tables: dict[str, str] = {f"{stem}.parquet": digest for stem, digest in manifest.get("tables", {}).items()}
    arrays = [f"{stem}.npy" for stem in CONTENT_ARRAYS if stem in manifest["arrays"]]
    names = [*arrays, *tables]
    if not all(Path(name).name == name for name in names):
        raise ValueError(f"{MANIFEST}: tables must name files of this folder")
    if not check_all and looks_unchanged(path, names):
        return
    if content_hash(file_hashes(path, arrays), CONTENT_ARRAYS) != manifest["content_hash"]:
        raise ValueError("an array is not what was written")
    if changed := changed_files(path, tables, everything=True):
        raise ValueError(f"{', '.join(changed)} is not what was written")
    with suppress(OSError):  # a read-only folder is read whole each time
        remember(path, names)


def save_arrays(folder: Path, arrays: dict[str, Any], *, half_features: bool) -> None:
    """Write arrays as `folder/NAME.npy`. Raises DataError for a vector that half precision cannot hold."""
    for stem, array in arrays.items():
        is_half = stem in LAYERS or (half_features and stem in VECTORS)
        kept = _half(stem, array) if is_half else array
        np.save(folder / f"{stem}.npy", np.ascontiguousarray(kept), allow_pickle=False)


def _half(stem: str, vectors: Any) -> Any:
    largest = float(np.abs(vectors).max(initial=0))
    if largest > MAX_HALF:
        rule = f"must be at most {MAX_HALF:g} in size for half precision"
        option = f"--{stem.replace('_', '-')}" if stem in LAYERS else "--half-features"
        raise DataError(stem, rule, largest, f"Leave {option} out")
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
    with warnings_as("ignore"):  # of Python 2's headers
        return np.load(file, mmap_mode="r", allow_pickle=False)
