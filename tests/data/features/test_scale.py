"""Vectors of any scale are brought to one, with one number for all rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.features import scale as scale_module
from athwe_core.data.features.scale import measure_scale, multiply, row_lengths
from athwe_core.data.prepare import PreparedDataset

VECTORS = np.array([[0, 0], [3, 4], [0, 0], [6, 8], [0, 1]], np.float32)  # lengths 5, 10, 1; two rows missing
Write, Prepare = Callable[..., Path], Callable[..., PreparedDataset]
Rows = list[tuple[str, str, object]]


def test_the_median_length_becomes_the_square_root_of_the_width() -> None:
    found = measure_scale(VECTORS, keep=False)
    assert found is not None
    assert (found.median, found.least, found.most) == (5, 1, 10)
    assert found.factor == pytest.approx(np.sqrt(2) / 5)
    scaled = VECTORS.copy()
    multiply(scaled, found.factor)
    np.testing.assert_allclose(row_lengths(scaled), np.sqrt(2) / 5 * np.array([0, 5, 0, 10, 1]), rtol=1e-6)
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("factor", [1e-30, 0.03, 100, 1e30])
def test_the_scale_of_the_input_does_not_matter(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_module, "_ROWS_A_BLOCK", 3)
    vectors = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    results = []
    for given in (vectors.copy(), (vectors.astype(np.float64) * factor).astype(np.float32)):
        found = measure_scale(given, keep=False)
        assert found is not None
        multiply(given, found.factor)
        results.append(given)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_what_is_kept_or_has_the_usual_scale_is_not_touched() -> None:
    kept = measure_scale(VECTORS, keep=True)
    assert kept is not None
    assert kept.factor == 1
    assert kept.note("text", 2) == (
        "text vectors have lengths of 1 to 10, median 5, kept as they are; the usual median is 1.41"
    )
    usual = (VECTORS * np.float32(np.sqrt(2) / 5)).astype(np.float16)
    found = measure_scale(usual, keep=False)
    assert found is not None
    assert found.factor == 1


def test_no_vectors_have_no_scale() -> None:
    assert measure_scale(np.zeros((3, 2), np.float32), keep=False) is None


class TestPrepared:
    @pytest.fixture
    def given(self, write_inter: Write, toy_rows: Rows) -> Callable[..., Path]:
        def write(factor: float) -> Path:
            folder = write_inter(toy_rows)
            vectors = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
            np.save(folder / "txt_emb.npy", vectors * np.float32(factor))
            return folder

        return write

    def test_given_vectors_times_a_number_give_the_same_features(
        self, given: Callable[..., Path], prepare_toy: Prepare
    ) -> None:
        found = []
        for factor in (1.0, 0.03, 100.0):
            given(factor)
            notes: list[str] = []
            found.append(prepare_toy(notes.append))
            assert any(
                "text vectors have lengths of" in note and "normalised to a median of 2.24" in note for note in notes
            )
        for other in found[1:]:
            np.testing.assert_allclose(other.text_features, found[0].text_features, rtol=1e-5)
        facts = [prepared.statistics["features"]["text"]["scale"] for prepared in found]
        assert facts[2]["median"] == pytest.approx(100 * facts[0]["median"])
        assert facts[2]["factor"] == pytest.approx(facts[0]["factor"] / 100)

    def test_the_scale_is_kept_on_demand_in_a_version_of_its_own(
        self, given: Callable[..., Path], prepare_toy: Prepare
    ) -> None:
        folder = given(100.0)
        normalised, kept = prepare_toy(), prepare_toy(keep_feature_scale=True)
        assert kept.version != normalised.version
        assert kept.manifest["options"]["keep_feature_scale"] is True
        np.testing.assert_array_equal(kept.text_features[1:], np.load(folder / "txt_emb.npy")[1:])  # type: ignore[index]
        assert kept.statistics["features"]["text"]["scale"]["factor"] == 1

    def test_without_vectors_the_switch_changes_no_version(
        self, write_inter: Write, toy_rows: Rows, prepare_toy: Prepare
    ) -> None:
        write_inter(toy_rows)
        assert prepare_toy(keep_feature_scale=True).version == prepare_toy().version
