"""Item vectors, categories and cluster labels found beside the interactions.

Two layouts. Published: row 0 is padding and row k >= 1 is the k-th item by first appearance in the filtered
interactions (`txt_emb.pt`, `.safetensors` or `.npy`). Ordered: a `.npy` beside `emb_item_order.txt` (one raw id a line,
no padding row), where row k belongs to line k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64, UInt8

from athwe_core.data.features.arrays import read_array
from athwe_core.data.features.scale import VectorScale, measure_scale, multiply
from athwe_core.errors import DataError
from athwe_core.messages import clipped

ORDER_FILE = "emb_item_order.txt"
SUFFIXES = (".pt", ".safetensors", ".npy")
VECTOR_STEMS = ("txt_emb", "img_emb")
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
    paths = [folder / f"{stem}{suffix}" for stem in STEMS for suffix in SUFFIXES]
    return sorted(path for path in [*paths, folder / ORDER_FILE] if path.is_file())


def has_given(folder: Path, stem: str) -> bool:
    """Whether `read_vectors` would find a file."""
    return any((folder / f"{stem}{suffix}").is_file() for suffix in SUFFIXES)


def read_vectors(folder: Path, stem: str, item_tokens: list[str]) -> ItemVectors | None:
    """Read `txt_emb` or `img_emb`, None when there is no such file.

    Args:
        folder: Where the files lie.
        stem: File name without suffix.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
    Returns:
        (V, F) float32 vectors; items absent from the order file get a zero row.
    Raises:
        DataError: The file is unreadable, not a 2-D array of numbers, has another number of rows than items,
            or holds NaN or infinity (the item and row are named).
    """
    rows = _read_rows(folder, stem, item_tokens)
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


def read_multi_hot(folder: Path, item_tokens: list[str]) -> tuple[UInt8[np.ndarray, "V C"], str] | None:
    """Read `cat`, a 0/1 table of categories, with its source; None when there is no such file. Raises DataError."""
    rows = _read_rows(folder, "cat", item_tokens)
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


def read_clusters(folder: Path, stem: str, item_tokens: list[str]) -> Int32[np.ndarray, "V"] | None:
    """Read `txt_clusters` or `img_clusters`: labels >= 0, -1 = none; None without such a file. Raises DataError."""
    rows = _read_rows(folder, stem, item_tokens)
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


def rows_by_order(item_tokens: list[str], order: list[str]) -> Int64[np.ndarray, "V"]:
    """Row of `order` that belongs to each internal id, (V,) int64; -1 for padding and items that `order` lacks."""
    row_of = {token: row for row, token in enumerate(order)}
    return np.array([-1, *(row_of.get(token, -1) for token in item_tokens[1:])], dtype=np.int64)


def _read_rows(folder: Path, stem: str, item_tokens: list[str]) -> _Rows | None:
    paths = [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    if not paths:
        return None
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise DataError(str(folder), f"holds {names}, which say the same thing twice", remedy="Keep one of them")
    path = paths[0]
    array = read_array(path, stem)
    order_path = folder / ORDER_FILE
    num_rows = len(array) if array.ndim else 0
    if path.suffix == ".npy" and order_path.is_file():
        order = _read_order(order_path)
        if num_rows != len(order):
            rule, remedy = f"must be {len(order)}, one for each line of {ORDER_FILE}", "Do both come from one run?"
            raise DataError(f"rows of {path}", rule, num_rows, remedy)
        source_rows = rows_by_order(item_tokens, order)
        if (source_rows < 0).all():
            rule = f"must name items of the interactions, and none of its {len(order)} lines does"
            raise DataError(str(order_path), rule, clipped(order[0]), "Is it of another data set?")
        return _Rows(array[source_rows], path, f"rows by {ORDER_FILE}", source_rows)
    if num_rows != len(item_tokens):
        rule = f"must be {len(item_tokens)}: padding and {len(item_tokens) - 1} items in order of first appearance"
        remedy = f"Save the vectors as .npy beside {ORDER_FILE} (one raw item id a line) to match them by id"
        raise DataError(f"rows of {path}", rule, num_rows, remedy)
    return _Rows(array, path, "rows by first appearance", np.arange(len(item_tokens)))


def _read_order(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        order = content.decode("utf-8-sig").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        where = f"{path} line {content.count(10, 0, error.start) + 1}"
        encoding = "UTF-16" if b"\0" in content else "LATIN1"
        remedy = f"Convert it: iconv -f {encoding} -t UTF-8 {path.name}"
        raise DataError(where, "must be UTF-8 text", content[error.start : error.start + 1], remedy) from None
    order = [line.removesuffix("\r") for line in order]
    seen: set[str] = set()
    for number, token in enumerate(order, start=1):
        if not token or token in seen:
            remedy = "Write one raw item id a line, in the order of the rows"
            raise DataError(
                f"{path} line {number}", "must be an item id that no other line has", clipped(token), remedy
            )
        seen.add(token)
    return order
