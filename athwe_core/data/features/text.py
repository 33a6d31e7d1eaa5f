"""Built-in text features: TF-IDF of hashed word and character n-grams, then truncated SVD (scikit-learn); no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from scipy import sparse

from athwe_core.data.features.categories import column_missing
from athwe_core.data.features.from_files import ItemVectors
from athwe_core.data.readers.records import ItemTable, split_sequence

DEFAULT_COLUMNS = ("title", "brand", "categories")
FEW_DIMENSIONS = 16
"""Text features of fewer dimensions can hardly tell items apart."""
_COUNTS: dict[str, Any] = {
    "n_features": 2**18,
    "lowercase": False,
    "norm": None,
    "alternate_sign": False,
    "dtype": np.float32,
}
_NO_WEIGHT = 1e-5
"""Of the largest singular value: the rest is the rounding of float32."""


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
    from sklearn.feature_extraction.text import TfidfTransformer  # noqa: PLC0415 - loads seconds of libraries

    found = item_texts(items, item_tokens, columns=columns, between_names=" ")
    if found is None:
        return None
    texts = [text.lower() for text in found.texts]
    has_text = np.array([bool(text) for text in texts])
    counts = ngram_counts([text for text in texts if text])
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    scores = reduced(weights, rank=min(width, *weights.shape), seed=seed)
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    vectors = np.zeros((len(item_tokens), width), dtype=np.float32)
    vectors[np.flatnonzero(has_text), : scores.shape[1]] = scores * (np.sqrt(width) / np.maximum(length, 1e-12))
    notes = []
    found_width = scores.shape[1]
    if found_width < min(width, FEW_DIMENSIONS):
        notes.append(
            f"text features come from almost nothing: the texts give {found_width} dimensions; name columns with more text "
            "with --text-columns"
        )
    elif found_width < width:
        notes.append(f"the item texts give {found_width} dimensions; text features beyond, up to {width}, are zero")
    return ItemVectors(vectors, f"built-in from {found.source}", notes=tuple(notes))


def ngram_counts(texts: list[str]) -> sparse.csr_matrix:
    """Count words, pairs of neighbouring words and runs of four characters in hash buckets.

    Args:
        texts: N texts, lower case, single blanks.
    Returns:
        (N, buckets) float32 counts; buckets that occur in fewer than two texts are left out (all kept if none is shared).
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415 - loads seconds of libraries

    words = HashingVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), **_COUNTS)
    characters = HashingVectorizer(analyzer="char", ngram_range=(4, 4), **_COUNTS)
    bounded = (f" {text} " for text in texts)  # so that the starts and ends of words count
    counts = sparse.hstack([words.transform(texts), characters.transform(bounded)], format="csr")
    in_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    kept = np.flatnonzero(in_texts >= 2)
    return counts[:, kept if len(kept) else np.flatnonzero(in_texts)]


def reduced(weights: sparse.csr_matrix, *, rank: int, seed: int) -> Float32[np.ndarray, "N R"]:
    """Left singular vectors times singular values, largest first, by randomised subspace iteration.

    Args:
        weights: (N, M).
        rank: Largest R, 1..min(N, M); directions of no weight are left out.
        seed: Of the random start.
    Source: Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithm 4.4, as in scikit-learn.
    """
    from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415 - loads seconds of libraries

    left, values, _ = randomized_svd(weights, rank, n_iter=4, n_oversamples=16, random_state=seed)
    has_weight = values > _NO_WEIGHT * values[0]
    return left[:, has_weight] * values[has_weight]
