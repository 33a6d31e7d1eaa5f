"""Facts about feature tables against counting by hand and against whole arrays."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from athwe_core.analysis.audit.features import PAIRS, feature_facts


def test_by_hand() -> None:
    table = np.zeros((11, 4), np.float32)
    table[1:5] = [[3, 4, 0, 0], [3, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
    found = feature_facts(table, 0)
    assert found is not None
    assert (found["width"], found["coverage"]) == (4, 4 / 10)
    assert found["duplicates"] == pytest.approx(1 / 4)
    assert (found["norm_mean"], found["norm_sd"]) == (5.0, 0.0)
    assert found["mean_cosine"] == pytest.approx(2 / 12, abs=0.02)  # of 12 ordered pairs two are equal


def test_a_table_of_zeros_and_no_table() -> None:
    found = feature_facts(np.zeros((4, 2), np.float32), 0)
    assert found == {
        "width": 2,
        "coverage": 0,
        "duplicates": 0,
        "norm_mean": 0,
        "norm_sd": 0,
        "norm_median": 0,
        "mean_cosine": 0,
    }
    assert feature_facts(None, 0) is None


def test_a_single_vector_has_no_pairs() -> None:
    found = feature_facts(np.array([[0, 0], [3, 4]], np.float32), 0)
    assert found is not None
    assert (found["duplicates"], found["mean_cosine"]) == (0.0, 1.0)


def test_a_mapped_table_gives_the_numbers_of_whole_arrays_in_little_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    table = np.lib.format.open_memmap(tmp_path / "table.npy", mode="w+", dtype=np.float16, shape=(60_001, 128))
    table[1:] = rng.normal(0.2, 1, (60_000, 128))
    table[40_000:40_500] = table[3:503]  # copies in other blocks
    table[50_000:50_010] = 0
    table[7, :2], table[8], table[8, :2] = [0.0, 1], table[7], [-0.0, 1]  # equal as numbers
    vectors = np.asarray(table[1:], np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    present = vectors[norms > 0]
    first, second = np.random.default_rng(9).integers(0, len(present), (2, PAIRS))
    unit = (present / norms[norms > 0, None])[[first[first != second], second[first != second]], :]
    tracemalloc.start()
    found = feature_facts(table, 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < vectors.nbytes / 2
    assert found == {
        "width": 128,
        "coverage": len(present) / 60_000,
        "duplicates": 1 - len(np.unique(present, axis=0)) / len(present),
        "norm_mean": norms[norms > 0].mean(),
        "norm_sd": norms[norms > 0].std(),
        "norm_median": np.median(norms[norms > 0]),
        "mean_cosine": pytest.approx(float((unit[0] * unit[1]).sum(1).mean()), abs=1e-6),
    }
