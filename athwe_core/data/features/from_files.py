"""Item vectors, categories and cluster labels found beside the interactions.

`txt_emb`, `img_emb`, `cat`, `txt_clusters` and `img_clusters` as `.pt`, `.safetensors` or `.npy`, and vectors under the
names that other tools use (`image_feat.npy`, `text_feat.npy`). `row_order` finds which row belongs to which item.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64, UInt8

from athwe_core.data.features.arrays import read_array
from athwe_core.data.features.row_order import MAPPING_FILE, ORDER_FILE, find_row_order
from athwe_core.data.features.scale import VectorScale, measure_scale, multiply
from athwe_core.data.options import FeatureRows
from athwe_core.errors import DataError
from athwe_core.messages import clipped

SUFFIXES = (".pt", ".safetensors", ".npy")
OTHER_NAMES = {
    "txt_emb": ("text_feat", "txt_feat", "text_features", "text_emb", "t_feat"),
    "img_emb": ("image_feat", "img_feat", "image_features", "image_emb", "visual_feat", "vision_feat", "v_feat"),
}
"""Stem -> names of the same vectors in other tools (MMRec and those that share its files)."""
VECTOR_STEMS = tuple(name for stem, others in OTHER_NAMES.items() for name in (stem, *others))
STEMS = (*VECTOR_STEMS, "cat", "txt_clusters", "img_clusters")
MAX_CLUSTERS = 100_000
"""The cluster loss has a weight row for every label up to the largest."""


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of one modality by internal item id.

    Attributes:
        vectors: (V, F) float32, row 0 (padding) zero; a zero row elsewhere is a missing vector.
        source: Where they came from, as a phrase.
        source_rows: (V,) row of each item in the file they came from, -1 where absent; None when not from a file.
        notes: What the user should know, one sentence each.
        encoder: Model, revision, pooling and so on, where an encoder made them.
        problems: Raw item id and what is wrong with its picture, for those that have none.
        scale: Lengths of the rows as they were given, and what was done about them; None for vectors that are made with
            the usual scale.
        layers: (V, S, F) states of the encoder's layers, zero where a vector is; None = none.
    """

    vectors: Float32[np.ndarray, "V F"]
    source: str
    source_rows: Int64[np.ndarray, "V"] | None = None
    notes: tuple[str, ...] = ()
    encoder: dict[str, Any] | None = None
    problems: tuple[tuple[str, str], ...] = ()
    scale: VectorScale | None = None
    layers: Float[np.ndarray, "V S F"] | None = None

    def scaled(self, kind: str, *, keep: bool) -> ItemVectors:
        """The same vectors, normalised in place unless `keep`, with a note; `kind` is `text` or `image`."""
        scale = measure_scale(self.vectors, keep=keep)
        if scale is None:
            return self
        if scale.factor != 1:
            multiply(self.vectors, scale.factor)
        notes = (*self.notes, scale.note(kind, self.vectors.shape[1])) if keep or scale.factor != 1 else self.notes
        return replace(self, scale=scale, notes=notes)

    @property
    def missing(self) -> int:
        """Number of items without a vector."""
        return int(np.count_nonzero(~self.vectors[1:].any(axis=1)))


_SHAPE = "Save one row an item"


@dataclass(frozen=True)
class _Rows:
    """An array of a feature file in internal item order, row 0 still as found, with the file's row of each item."""

    array: Any
    path: Path
    rule: str
    source_rows: Int64[np.ndarray, "V"]  # row in the file, -1 where the item is absent

    def place(self, row: int, item_tokens: list[str]) -> str:
        """An item's row, for messages."""
        return f"{self.path} row {self.source_rows[row]} (item {clipped(item_tokens[row])!r})"


def find_feature_files(folder: Path) -> list[Path]:
    """All files of `folder` that the functions below would read, sorted by name."""
    found = [path for stem in STEMS for path in _paths(folder, stem)]
    has_others = any(path.stem in names for path in found for names in OTHER_NAMES.values())
    order_files = [ORDER_FILE, *([MAPPING_FILE] if has_others else [])]
    return sorted([*found, *(folder / name for name in order_files if (folder / name).is_file())])


def has_given(folder: Path, stem: str) -> bool:
    """Whether `read_vectors` would find a file."""
    return bool(_all_paths(folder, stem))


def read_vectors(
    folder: Path, stem: str, item_tokens: list[str], *, feature_rows: FeatureRows = "auto"
) -> ItemVectors | None:
    """Read `txt_emb` or `img_emb`, or the same vectors under another tool's name; None when there is no such file.

    Args:
        folder: Where the files lie.
        stem: File name without suffix.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        feature_rows: Order of the rows; `auto` finds it, see `row_order`.
    Returns:
        (V, F) float32 vectors; items without a row get a zero row.
    Raises:
        DataError: The file is unreadable, not a 2-D array of numbers, its rows have no known order or another number than
            the items, or it holds NaN or infinity (the item and row are named).
    """
    rows = _read_rows(folder, stem, item_tokens, feature_rows)
    if rows is None:
        return None
    if rows.array.ndim != 2 or rows.array.shape[1] == 0:
        raise DataError(str(rows.path), "must be of shape (items, width)", rows.array.shape, _SHAPE)
    with np.errstate(over="ignore"):  # what overflows float32 is reported as infinite below
        vectors = rows.array.astype(np.float32)
    vectors[rows.source_rows < 0] = 0
    notes = []
    if vectors[0].any():
        notes.append(f"{rows.path.name}: row 0 is the padding and is not zero in the file; it was set to zero")
        vectors[0] = 0
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        where = rows.place(int(bad[0]), item_tokens)
        value = float(vectors[bad[0]][~np.isfinite(vectors[bad[0]])][0])
        remedy = f"{len(bad)} of {len(vectors) - 1} items have such a vector; encode them again, zeros mean missing"
        raise DataError(where, "must hold finite numbers", value, remedy)
    return ItemVectors(vectors, f"{rows.path.name}, {rows.rule}", rows.source_rows, tuple(notes))


def read_multi_hot(
    folder: Path, item_tokens: list[str], *, feature_rows: FeatureRows = "auto"
) -> tuple[UInt8[np.ndarray, "V C"], str] | None:
    """Read `cat`, a 0/1 table of categories, with its source; None when there is no such file. Raises DataError."""
    rows = _read_rows(folder, "cat", item_tokens, feature_rows)
    if rows is None:
        return None
    if rows.array.ndim != 2 or rows.array.shape[1] == 0:
        raise DataError(str(rows.path), "must be of shape (items, categories)", rows.array.shape, _SHAPE)
    is_wrong = (rows.array != 0) & (rows.array != 1)
    if is_wrong.any():
        row, column = (int(place) for place in np.argwhere(is_wrong)[0])
        remedy = "1 where the item has the category, else 0"
        raise DataError(rows.place(row, item_tokens), "must hold 0 and 1 only", rows.array[row, column].item(), remedy)
    table = rows.array.astype(np.uint8)
    table[rows.source_rows < 0] = 0
    table[0] = 0
    return table, f"{rows.path.name}, {rows.rule}"


def read_clusters(
    folder: Path, stem: str, item_tokens: list[str], *, feature_rows: FeatureRows = "auto"
) -> Int32[np.ndarray, "V"] | None:
    """Read `txt_clusters` or `img_clusters`: labels >= 0, -1 = none; None without such a file. Raises DataError."""
    rows = _read_rows(folder, stem, item_tokens, feature_rows)
    if rows is None:
        return None
    if rows.array.ndim != 1:
        raise DataError(str(rows.path), "must be of shape (items,)", rows.array.shape, _SHAPE)
    values = rows.array.astype(np.float64) if rows.array.dtype.kind == "f" else rows.array  # float16 ends at 65504
    is_wrong = ~(values >= -1) | (values >= MAX_CLUSTERS) | (values != np.floor(values))
    is_wrong[0] = False
    if is_wrong.any():
        row, rule = (
            int(np.flatnonzero(is_wrong)[0]),
            f"must hold whole labels >= 0, or -1 for none, below {MAX_CLUSTERS:,}",
        )
        raise DataError(rows.place(row, item_tokens), rule, values[row].item(), "Number the clusters from 0")
    labels = np.full(len(item_tokens), -1, dtype=np.int32)
    has_label = rows.source_rows >= 0
    has_label[0] = False
    labels[has_label] = rows.array[has_label].astype(np.int32)
    return labels


def _paths(folder: Path, name: str) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def _all_paths(folder: Path, stem: str) -> list[Path]:
    """Files of one kind, under athwe's own name first."""
    return [path for name in (stem, *OTHER_NAMES.get(stem, ())) for path in _paths(folder, name)]


def _read_rows(folder: Path, stem: str, item_tokens: list[str], feature_rows: FeatureRows) -> _Rows | None:
    paths = _all_paths(folder, stem)
    if not paths:
        return None
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise DataError(str(folder), f"holds {names}, which are features of one kind", remedy="Keep one of them")
    path = paths[0]
    array = read_array(path, stem)
    num_rows = len(array) if array.ndim else 0
    is_published_name = path.stem == stem
    found = find_row_order(path, num_rows, item_tokens, option=feature_rows, is_published_name=is_published_name)
    return _Rows(array[found.rows], path, found.rule, found.rows)
