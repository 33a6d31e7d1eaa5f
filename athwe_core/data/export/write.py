"""A prepared data set as files for other programs: the same interactions, split and features, validated by reading back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int64

import athwe_core
from athwe_core.data.export.csv import write_csv
from athwe_core.data.export.recbole import write_recbole
from athwe_core.data.features.from_files import read_clusters, read_multi_hot, read_vectors
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError, DataError
from athwe_core.safe_write import replacing_folder, settle_folder

ExportForm = Literal["recbole", "csv"]
MARKER = "export.json"
FEATURE_FILES = {
    "txt_emb": "text_features",
    "img_emb": "image_features",
    "cat": "categories",
    "txt_clusters": "text_clusters",
    "img_clusters": "image_clusters",
}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The folder of the data set.
        files: Name and bytes of each file.
        notes: What the user should know, one sentence each.
    """

    path: Path
    files: dict[str, int]
    notes: tuple[str, ...]


def export_dataset(prepared: PreparedDataset, to: Path, *, form: str, overwrite: bool = False) -> Exported:
    """Write `to/NAME/`, whole or not at all, after reading it back and comparing it with the prepared arrays.

    Args:
        prepared: What to write.
        to: Folder of data sets: `data_path` of RecBole, `--data` of athwe. Made where it is missing.
        form: `recbole`, see `write_recbole`, or `csv`, see `write_csv`.
        overwrite: Replace an earlier export, and nothing else.
    Returns:
        The folder, its files, and notes.
    Raises:
        ConfigError: `form` is unknown, or `to/NAME` exists and is no earlier export or must not be replaced.
        DataError: An id cannot be written in that form, or the files read back differ.
    """
    if form not in get_args(ExportForm):
        raise ConfigError("--export", f"must be one of {', '.join(get_args(ExportForm))}", form)
    target = Path(to) / prepared.name
    require_replaceable(target, marker=MARKER, overwrite=overwrite)
    with replacing_folder(target) as folder:
        writer: Callable[[PreparedDataset, Path], tuple[Int64[np.ndarray, "V"], list[str]]]
        writer = write_recbole if form == "recbole" else write_csv
        order, notes = writer(prepared, folder)
        _write_features(prepared, folder, order, form)
        _check_features(prepared, folder, order)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        facts = {
            "form": form,
            "name": prepared.name,
            "version": prepared.version,
            "content_hash": prepared.manifest["content_hash"],
            "split": prepared.split_rule,
            "tie_order": prepared.manifest["statistics"]["tie_order"],
            "athwe_version": athwe_core.__version__,
            "files": files,
        }
        (folder / MARKER).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(target, files, tuple(notes))


def require_replaceable(target: Path, *, marker: str, overwrite: bool) -> None:
    """Allow a new folder, or one that an earlier export wrote and nobody added to: a user's own files are never removed.

    Args:
        target: the folder that an export is about to write.
        marker: name of the JSON file that an export leaves there, with the names of its other files in `files`.
        overwrite: whether an earlier export may be replaced.
    Raises: ConfigError where it may not be written.
    """
    settle_folder(target)
    if not target.exists():
        return
    try:
        known = {*json.loads((target / marker).read_text(encoding="utf-8"))["files"], marker}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = set()
    strange = sorted(path.name for path in target.iterdir() if path.name not in known) if target.is_dir() else ["it"]
    if strange or not known:
        rule = f"must not hold {target.name} yet, or only an earlier export of it"
        remedy = f"Name another folder: no export wrote {', '.join(strange[:3]) or marker} there"
        raise ConfigError("--to", rule, str(target.parent), remedy)
    if not overwrite:
        rule = f"must not hold {target.name} yet"
        raise ConfigError("--to", rule, str(target.parent), "Add --overwrite to replace the earlier export")


def _write_features(prepared: PreparedDataset, folder: Path, order: Int64[np.ndarray, "V"], form: str) -> None:
    """Tensors in the published layout for RecBole, arrays without padding beside an order file for csv."""
    for stem, array in _features(prepared).items():
        if form == "csv":
            np.save(folder / f"{stem}.npy", np.asarray(array)[order[1:]], allow_pickle=False)
        elif array.ndim == 1:
            np.save(folder / f"{stem}.npy", np.asarray(array)[order], allow_pickle=False)
        else:
            import torch  # noqa: PLC0415  (seconds to import; needed for this form only)

            torch.save(torch.from_numpy(np.asarray(array)[order].astype(np.float32)), folder / f"{stem}.pt")


def _check_features(prepared: PreparedDataset, folder: Path, order: Int64[np.ndarray, "V"]) -> None:
    tokens = [prepared.item_tokens[item] for item in order]
    for stem, array in _features(prepared).items():
        found: Any
        if stem == "cat":
            given = read_multi_hot(folder, tokens)
            found = given and given[0]
        elif array.ndim == 1:
            found = read_clusters(folder, stem, tokens)
        else:
            vectors = read_vectors(folder, stem, tokens)
            found = vectors and vectors.vectors
        if not np.array_equal(found, np.asarray(array)[order]):
            raise DataError(
                f"{folder.name}: {stem}", "does not hold what was written to it", remedy="Is the disk full?"
            )


def _features(prepared: PreparedDataset) -> dict[str, Any]:
    found = {stem: getattr(prepared, name) for stem, name in FEATURE_FILES.items()}
    return {stem: array for stem, array in found.items() if array is not None}
