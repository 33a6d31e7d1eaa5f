"""Prepared data sets on disk: `PREPARED/NAME/<version>/` with arrays and a manifest; `current` names one version."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from athwe_core.data.split import LEAVE_ONE_OUT, Split, leave_one_out
from athwe_core.durable import sync
from athwe_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1  # raise when the meaning of a prepared file changes
MANIFEST = "manifest.json"
CURRENT = "current"
UNFINISHED = ".unfinished-"
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
_VERSION = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, eq=False)
class PreparedDataset:
    """One prepared version; its arrays are read-only memory maps. U users, I interactions, V items with padding.

    Attributes:
        name, path, version: Data set, its folder, and the 12 hex digits that name the version.
        manifest: Content hash, options, sources, statistics, features, category names, notes and item-to-row pairs.
        offsets: (U + 1,) int64; interactions `offsets[u]:offsets[u + 1]` are user u's, in time order.
        item_ids: (I,) int32, 1..num_items; 0 is padding and never occurs.
        timestamps: (I,) int64 seconds since 1970 UTC.
        text_features, image_features: (V, F) float32, zero rows for padding and missing; None = modality off.
        categories: (V, C) uint8 multi-hot; None = no categories.
        text_clusters, image_clusters: (V,) int32 labels, -1 = none; None = no labels.
        training_ends, validation_rows, test_rows: (U,) int64, see `Split`; None = leave-one-out.
        file_rows: (I,) int64, increasing in the order of the source file; None in versions older than the audit.
    """

    name: str
    path: Path
    version: str
    manifest: dict[str, Any]
    offsets: Int64[np.ndarray, "U_plus_1"]
    item_ids: Int32[np.ndarray, "I"]
    timestamps: Int64[np.ndarray, "I"]
    text_features: Float32[np.ndarray, "V F_text"] | None = None
    image_features: Float32[np.ndarray, "V F_image"] | None = None
    categories: UInt8[np.ndarray, "V C"] | None = None
    text_clusters: Int32[np.ndarray, "V"] | None = None
    image_clusters: Int32[np.ndarray, "V"] | None = None
    training_ends: Int64[np.ndarray, "U"] | None = None
    validation_rows: Int64[np.ndarray, "U"] | None = None
    test_rows: Int64[np.ndarray, "U"] | None = None
    file_rows: Int64[np.ndarray, "I"] | None = None

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """Items without the padding."""
        return int(self.manifest["statistics"]["items"])

    @property
    def num_rows(self) -> int:
        """Rows of every item table: the items and the padding row 0."""
        return self.num_items + 1

    @property
    def statistics(self) -> dict[str, Any]:
        """What `prepare --json` prints."""
        return dict(self.manifest["statistics"])

    @cached_property
    def split(self) -> Split:
        """Which rows are training, and which are asked for."""
        if self.training_ends is None or self.validation_rows is None or self.test_rows is None:
            return leave_one_out(np.asarray(self.offsets))
        arrays = (self.offsets[:-1], self.training_ends, self.validation_rows, self.test_rows)
        return Split(*(np.asarray(array) for array in arrays))

    @property
    def split_rule(self) -> str:
        """`leave-one-out` or `global-time`."""
        return str(self.manifest["statistics"].get("split", LEAVE_ONE_OUT))

    @property
    def rules(self) -> str:
        """What every result depends on beside the network, in words."""
        return f"{self.split_rule} split, ties in {self.manifest['statistics']['tie_order']} order"

    @cached_property
    def user_tokens(self) -> list[str]:
        """Raw user ids by user number, 0-based."""
        return _read_parquet(self.path / "users.parquet")["user_id"].to_list()

    @cached_property
    def item_tokens(self) -> list[str]:
        """Raw item ids by internal id; `item_tokens[0]` is the padding's empty string."""
        return self.item_table()["item_id"].to_list()

    def item_table(self) -> pl.DataFrame:
        """Text columns of the items; row k is internal id k, row 0 (padding) holds empty strings."""
        return _read_parquet(self.path / "items.parquet")


def prepared_folder(prepared_dir: Path, name: str) -> Path:
    """Return `prepared_dir/NAME`. Raises ConfigError when NAME is no plain folder name."""
    if not re.fullmatch(r"[^/\\\0]+", name) or name.startswith(".") or Path(name).is_absolute():
        raise ConfigError("data set name", "must be a plain name without path separators or a leading dot", name)
    return Path(prepared_dir) / name


def list_versions(name: str, *, prepared_dir: Path) -> list[str]:
    """Versions of `name` on disk, oldest first; empty when there is none."""
    folder = prepared_folder(prepared_dir, name)
    found = [path for path in folder.glob("*") if _VERSION.fullmatch(path.name) and (path / MANIFEST).is_file()]
    return [path.name for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))]


def current_version(name: str, *, prepared_dir: Path) -> str | None:
    """The version marked current, None when nothing is prepared."""
    marker = prepared_folder(prepared_dir, name) / CURRENT
    return marker.read_text(encoding="utf-8").strip() if marker.is_file() else None


def open_prepared(name: str, *, prepared_dir: Path, version: str | None = None) -> PreparedDataset:
    """Open a prepared version, by default the current one.

    Raises:
        ConfigError: NAME is no plain folder name.
        DataError: NAME is not prepared, has no such version, or its files are damaged.
    """
    folder = prepared_folder(prepared_dir, name)
    versions = list_versions(name, prepared_dir=prepared_dir)
    if not versions:
        raise DataError(
            f"data set {name!r}",
            f"is not prepared in {prepared_dir}{near_miss(name, _prepared_names(Path(prepared_dir)))}",
            remedy=f"Run: athwe prepare --dataset {name}",
        )
    if version is None:
        version = current_version(name, prepared_dir=prepared_dir) or versions[-1]
    if version not in versions:
        rule = f"must be one of {', '.join(versions)}"
        raise DataError(f"prepared version of {name!r}", rule, version, f"Or run: athwe prepare --dataset {name}")
    return _open_folder(folder / version, name)


def near_miss(name: str, names: list[str]) -> str:
    """A clause that lists the names there are and the one that was probably meant; empty without any."""
    if not names:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return f" (there: {', '.join(names)}{hint})"


def content_hash(folder: Path) -> str:
    """SHA-256 over the arrays that training reads, as stored: changed data shows even under an unchanged manifest."""
    digest = hashlib.sha256()
    for stem in (*REQUIRED_ARRAYS, *OPTIONAL_ARRAYS):
        path = folder / f"{stem}.npy"
        if path.is_file():
            digest.update(f"{stem}:{file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_version(folder: Path, version: str) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes `folder/version` in one rename, on failure it goes.

    What a killed process left unfinished in `folder` goes too. Nothing is left of `folder` where it stays empty.
    """
    try:
        with held_folder(folder) as temporary:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp makes it private
            for path in (*temporary.iterdir(), temporary):
                sync(path)
            try:
                temporary.rename(folder / version)
            except OSError:
                if not (folder / version / MANIFEST).is_file():  # else another process was faster: same content
                    raise
            sync(folder)
    finally:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def held_folder(parent: Path) -> Iterator[Path]:
    """A new folder of this process, gone in the end. The lock on it ends with the process, however that ends."""
    while True:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        try:
            path = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # another process tidied up just now
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                break
        except BlockingIOError:  # taken for abandoned between its creation and its lock
            pass
        os.close(lock)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    """Remove unfinished folders that no living process holds."""
    for path in parent.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _open_folder(path: Path, name: str) -> PreparedDataset:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        arrays = {stem: _map(path, stem) for stem in REQUIRED_ARRAYS}
        arrays |= {stem: _map(path, stem) for stem in manifest["arrays"] if stem in OPTIONAL_ARRAYS | SIDE_ARRAYS}
        num_rows = manifest["statistics"]["items"] + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, name, str(error)) from None
    wanted = {**REQUIRED_ARRAYS, **OPTIONAL_ARRAYS, **SIDE_ARRAYS}
    for stem, array in arrays.items():
        length = num_rows if stem in ITEM_ARRAYS else len(arrays["offsets"]) - 1 if stem in SPLIT_ARRAYS else len(array)
        if array.dtype != wanted[stem] or len(array) != length:
            raise _damaged(path, name, f"{stem}.npy is {array.dtype} {array.shape}")
    if not len(arrays["item_ids"]) == len(arrays["timestamps"]) == arrays["offsets"][-1]:
        raise _damaged(path, name, "offsets, item_ids and timestamps do not fit together")
    return PreparedDataset(name=name, path=path, version=path.name, manifest=manifest, **arrays)


def _damaged(path: Path, name: str, reason: str) -> DataError:
    remedy = f"Delete that folder and run: athwe prepare --dataset {name}"
    return DataError(f"prepared data set {path}", f"is damaged ({reason})", remedy=remedy)


def _map(path: Path, stem: str) -> Any:
    return np.load(path / f"{stem}.npy", mmap_mode="r", allow_pickle=False)


def _prepared_names(prepared_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in prepared_dir.glob(f"*/{CURRENT}"))


def _read_parquet(path: Path) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415  (training opens data sets without it)

    return pl.read_parquet(path)
