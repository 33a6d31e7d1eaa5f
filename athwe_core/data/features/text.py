"""Built-in text features: TF-IDF of hashed word and character n-grams, then truncated SVD; no download."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt64
from scipy import sparse

from athwe_core.data.features.categories import column_missing
from athwe_core.data.features.from_files import ItemVectors
from athwe_core.data.readers.records import ItemTable, split_sequence

DEFAULT_COLUMNS = ("title", "brand", "categories")
CHARACTER_SIZES = (4,)
NUM_BUCKETS = 2**18
_SPACE = ord(" ")
_POWER = np.uint64(0x100000001B3)  # the FNV prime
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class ItemTexts:
    """What a data set says about its items.

    Attributes:
        texts: (V,) by internal id, single blanks; empty for the padding and for items without text.
        source: Columns and table they came from, as a phrase.
    """

    texts: list[str]
    source: str


def item_texts(
    items: ItemTable | None, item_tokens: list[str], *, columns: tuple[str, ...] | None, between_names: str
) -> ItemTexts | None:
    """Join text columns of the item table; None when there is no text at all.

    Args:
        items: The item table, None when the source has none.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        columns: Columns to join; None takes those of title, brand and categories that exist.
        between_names: What stands between the names of one cell.
    Raises:
        DataError: A named column does not exist.
    """
    for column in columns or ():
        if items is None or column not in items.types:
            raise column_missing(items, column)
    if items is None:
        return None
    chosen = columns or tuple(column for column in DEFAULT_COLUMNS if column in items.types)
    parts = [_cells(items, column, between_names) for column in chosen]
    joined = (" ".join(" ".join(row).split()) for row in zip(*parts, strict=True))
    by_token = dict(zip(items.frame["item_id"].to_list(), joined, strict=False))
    texts = ["", *(by_token.get(token, "") for token in item_tokens[1:])]
    return ItemTexts(texts, f"{', '.join(chosen)} of {items.source}") if any(texts) else None


def _cells(items: ItemTable, column: str, between_names: str) -> list[str]:
    cells = items.frame[column].to_list()
    if items.types[column] != "name_seq":
        return cells
    return [between_names.join(split_sequence(cell, "name_seq")) for cell in cells]


def text_features(
    items: ItemTable | None, item_tokens: list[str], *, columns: tuple[str, ...] | None, width: int, seed: int = 0
) -> ItemVectors | None:
    """Make vectors from text columns of the item table.

    Args:
        items: The item table, None when the source has none.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        columns: Columns to join; None takes those of title, brand and categories that exist.
        width: F, >= 1; a catalogue of lower rank gets zero columns for the rest, and a note.
        seed: Of the start vectors of the SVD.
    Returns:
        (V, F) float32, rows of length sqrt(F) so that one element is about 1 like those of a neural encoder;
        zero rows for padding and for items without text. None when there is no text at all.
    Raises:
        DataError: A named column does not exist.
    """
    found = item_texts(items, item_tokens, columns=columns, between_names=" ")
    if found is None:
        return None
    texts = [text.lower() for text in found.texts]
    has_text = np.array([bool(text) for text in texts])
    weights = tf_idf(ngram_counts([text for text in texts if text]))
    scores = truncated_svd(weights, rank=min(width, *weights.shape), seed=seed)
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    vectors = np.zeros((len(item_tokens), width), dtype=np.float32)
    vectors[np.flatnonzero(has_text), : scores.shape[1]] = scores * (np.sqrt(width) / np.maximum(length, 1e-12))
    notes = []
    if scores.shape[1] < width:
        notes.append(f"the item texts give {scores.shape[1]} dimensions; text features beyond, up to {width}, are zero")
    return ItemVectors(vectors, f"built-in from {found.source}", notes=tuple(notes))


def ngram_counts(texts: list[str]) -> sparse.csr_matrix:
    """Count words, pairs of neighbouring words and runs of characters in hash buckets.

    Args:
        texts: N texts, lower case, single blanks.
    Returns:
        (N, buckets) counts; buckets that occur in fewer than two texts are left out (all kept if none is shared).
    """
    padded = [f" {text} ".encode() for text in texts]
    content = np.frombuffer(b"".join(padded), dtype=np.uint8)
    lengths = np.array([len(text) for text in padded])
    document = np.repeat(np.arange(len(texts)), lengths)
    pieces = [_word_ngrams(content, document)]
    pieces += [_character_ngrams(content, document, size) for size in CHARACTER_SIZES]
    rows = np.concatenate([rows for rows, _ in pieces])
    columns = np.concatenate([(hashes * _MIX) >> np.uint64(46) for _, hashes in pieces]).astype(np.int64)
    counts = sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(texts), NUM_BUCKETS))
    in_texts = np.bincount(counts.indices, minlength=NUM_BUCKETS)
    kept = np.flatnonzero(in_texts >= 2)
    return counts[:, kept if len(kept) else np.flatnonzero(in_texts)]


def _word_ngrams(
    content: UInt8[np.ndarray, "n"], document: Int64[np.ndarray, "n"]
) -> tuple[Int64[np.ndarray, "k"], UInt64[np.ndarray, "k"]]:
    """Hash each run of bytes between blanks, and each two neighbours in one text."""
    blanks = np.flatnonzero(content == _SPACE)
    starts, ends = blanks[:-1] + 1, blanks[1:]
    is_word = ends > starts
    starts, ends = starts[is_word], ends[is_word]
    raw = content.tobytes()
    words = [zlib.crc32(raw[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    hashes = np.array(words, dtype=np.uint64)
    rows = document[starts]
    pairs = rows[1:] == rows[:-1]
    pair_hashes = hashes[:-1][pairs] * _POWER + hashes[1:][pairs]
    return np.concatenate([rows, rows[1:][pairs]]), np.concatenate([hashes, pair_hashes])


def _character_ngrams(
    content: UInt8[np.ndarray, "n"], document: Int64[np.ndarray, "n"], size: int
) -> tuple[Int64[np.ndarray, "k"], UInt64[np.ndarray, "k"]]:
    """Hash each `size` neighbouring bytes of one text, blanks included so that word starts and ends count."""
    count = max(len(content) - size + 1, 0)
    hashes = np.full(count, size, dtype=np.uint64)
    for offset in range(size):
        hashes = hashes * _POWER + content[offset : offset + count].astype(np.uint64)
    inside = document[:count] == document[len(document) - count :]
    return document[:count][inside], hashes[inside]


def tf_idf(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weight counts by (1 + ln count) * (1 + ln((1 + N) / (1 + texts with it))) and scale rows to length 1."""
    in_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    inverse = 1 + np.log((1 + counts.shape[0]) / (1 + in_texts))
    data = (1 + np.log(counts.data)) * inverse[counts.indices]
    weights = sparse.csr_matrix((data.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)
    length = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags_array(1 / np.maximum(length, 1e-12)).astype(np.float32) @ weights)


def truncated_svd(
    matrix: sparse.csr_matrix, *, rank: int, seed: int, oversampling: int = 16, iterations: int = 3
) -> Float32[np.ndarray, "N R"]:
    """Left singular vectors times singular values, by randomised subspace iteration.

    Args:
        matrix: (N, M).
        rank: Largest R, 1..min(N, M); directions of no weight are left out.
        seed: Of the random start; the sign of each column makes its largest element positive, not the solver's choice.
    Source: Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithm 4.4.
    """
    size = min(rank + oversampling, *matrix.shape)
    transposed = sparse.csr_matrix(matrix.T)
    start = np.random.default_rng(seed).standard_normal((matrix.shape[1], size), dtype=np.float32)
    basis, _ = _orthonormal(matrix @ start)
    for _ in range(iterations):
        basis, _ = _orthonormal(matrix @ (transposed @ basis))
    right, values = _orthonormal(transposed @ basis)  # A ~ basis (A' basis)' = (A right) right'
    scores = (matrix @ right)[:, : min(rank, len(values))]
    largest = np.abs(scores).argmax(axis=0)
    return scores * np.sign(scores[largest, np.arange(scores.shape[1])])


def _orthonormal(
    columns: Float32[np.ndarray, "n k"],
) -> tuple[Float32[np.ndarray, "n r"], Float64[np.ndarray, "r"]]:
    """Orthonormal left singular vectors and the singular values, largest first, without those of no weight.

    By the k x k Gram matrix in float64: few large products, where the many small steps of a QR factorisation crawl
    as soon as other processes hold the cores.
    """
    precise = columns.astype(np.float64)
    squares, rotation = np.linalg.eigh(precise.T @ precise)
    squares, rotation = squares[::-1], rotation[:, ::-1]
    kept = squares > 1e-11 * squares[0]  # the rest is float32 noise
    values = np.sqrt(squares[kept])
    return columns @ (rotation[:, kept] / values).astype(np.float32), values
