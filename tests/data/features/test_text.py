import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from athwe_core.data.features.text import ngram_counts, reduced, text_features
from athwe_core.data.readers.records import ItemTable
from athwe_core.errors import DataError

WORDS = ["red", "blue", "wooden", "metal", "train", "doll", "castle", "puzzle"]
TITLES = [f"{WORDS[i % 8]} {WORDS[(i // 8) % 8]} {WORDS[(i * 5) % 8]}" for i in range(40)]


def table(titles: list[str]) -> ItemTable:
    frame = pl.DataFrame({"item_id": [f"i{row}" for row in range(len(titles))], "title": titles})
    return ItemTable(frame, {"item_id": "token", "title": "token_seq"}, "toy.item")


def tokens(count: int) -> list[str]:
    return ["", *(f"i{row}" for row in range(count))]


def test_rows_have_length_sqrt_width_and_like_titles_are_near() -> None:
    found = text_features(table(TITLES), tokens(40), columns=None, width=16)
    assert found is not None
    assert found.vectors.shape == (41, 16)
    assert found.vectors.dtype == np.float32
    assert not found.vectors[0].any()
    np.testing.assert_allclose(np.linalg.norm(found.vectors[1:], axis=1), 4, rtol=1e-5)
    titles = ["red train", "red trains", "blue doll", "blue doll"]
    near = text_features(table(titles), tokens(4), columns=("title",), width=2)
    assert near is not None
    cosine = near.vectors[1:] @ near.vectors[1:].T / 2
    assert cosine[2, 3] == pytest.approx(1)
    assert cosine[0, 1] > 0.9
    assert cosine[0, 2] < 0.1


def test_same_vectors_in_a_process_with_other_string_hashes() -> None:
    code = (
        "import hashlib, polars as pl\n"
        "from athwe_core.data.features.text import ngram_counts\n"
        "counts = ngram_counts(['red train', 'blue train set'])\n"
        "print(counts.shape, counts.indices.tolist(), counts.data.tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    first, second = (text_features(table(TITLES), tokens(40), columns=None, width=8) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_item_order_and_absent_items() -> None:
    titles = ["red train", "", "blue doll", "red train doll"]
    found = text_features(table(titles), ["", "i3", "i1", "other", "i0"], columns=None, width=2)
    assert found is not None
    assert found.missing == 2
    assert found.vectors.any(axis=1).tolist() == [False, True, False, False, True]


def test_tiny_catalogue_gets_zero_columns_and_a_note() -> None:
    found = text_features(table(["red train", "blue doll", "red train"]), tokens(3), columns=None, width=8)
    assert found is not None
    used = found.vectors.any(axis=0).sum()
    assert 1 <= used <= 2  # two different titles
    (note,) = found.notes
    assert note.startswith(f"text features come from almost nothing: the texts give {used} dimensions; ")
    assert note.endswith("--text-columns")


def test_fewer_dimensions_than_asked_for_get_zero_columns_and_a_note() -> None:
    titles = [f"word{number} thing{number}" for number in range(20)] * 2
    found = text_features(table(titles), tokens(40), columns=None, width=64)
    assert found is not None
    used = int(found.vectors.any(axis=0).sum())
    assert 16 <= used <= 20  # that many different titles
    assert found.notes == (f"the item texts give {used} dimensions; text features beyond, up to 64, are zero",)


def test_one_text_alone() -> None:
    found = text_features(table(["a"]), tokens(1), columns=None, width=4)
    assert found is not None
    np.testing.assert_allclose(found.vectors[1], [2, 0, 0, 0], rtol=1e-6)


def test_no_text_is_none_and_a_named_column_must_exist() -> None:
    assert text_features(None, tokens(2), columns=None, width=4) is None
    assert text_features(table(["", " "]), tokens(2), columns=None, width=4) is None
    with pytest.raises(DataError, match=r"toy\.item has no column plot; its columns are item_id, title"):
        text_features(table(["a"]), tokens(1), columns=("plot",), width=4)


def test_ngrams_stay_within_one_text_and_count_by_hand() -> None:
    apart = ngram_counts(["ab", "ab"])  # " ab " once as four characters, "ab" once as a word
    assert apart.shape == (2, 2)
    assert apart.toarray().tolist() == [[1, 1], [1, 1]]
    pair = ngram_counts(["ab ab", "ab ab"]).toarray()  # the word twice, the pair once; " ab ", "ab a", "b ab", " ab "
    assert sorted(pair[0].tolist()) == [1, 1, 1, 2, 2]


def test_the_reduction_agrees_with_the_dense_decomposition() -> None:
    dense = np.random.default_rng(0).normal(size=(60, 8)) @ np.diag(2.0 ** -np.arange(8)) @ np.ones((8, 1))
    dense = dense + np.random.default_rng(1).normal(size=(60, 30)) * 0.5 ** np.arange(30)
    scores = reduced(sparse.csr_matrix(dense.astype(np.float32)), rank=4, seed=3)
    left, values, _ = np.linalg.svd(dense, full_matrices=False)
    expected = left[:, :4] * values[:4]
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), atol=1e-4 * values[0])
