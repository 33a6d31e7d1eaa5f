"""Vectors in half precision: prepared, refreshed, trained on, and refused where they would not fit."""

from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.options import PrepareOptions
from athwe_core.data.prepare import prepare
from athwe_core.data.refresh import refresh
from athwe_core.errors import DataError

SMALL = {"demo_users": 100, "demo_items": 100}


def test_vectors_are_rounded_and_nothing_else_changes(tmp_path: Path) -> None:
    full = prepare("demo", data_dir=tmp_path, prepared_dir=tmp_path / "p", options=PrepareOptions(**SMALL))
    options = PrepareOptions(**SMALL, half_features=True, clusters=5)
    half = prepare("demo", data_dir=tmp_path, prepared_dir=tmp_path / "p", options=options)
    assert full.text_features is not None
    assert half.text_features is not None
    assert half.text_features.dtype == np.float16
    np.testing.assert_array_equal(half.text_features, full.text_features.astype(np.float16))
    np.testing.assert_array_equal(half.item_ids, full.item_ids)
    assert half.version != full.version
    again = refresh("demo", "clusters", data_dir=tmp_path, prepared_dir=tmp_path / "p", options=options)
    assert again.text_features is not None
    assert again.text_features.dtype == np.float16


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    rows = [f"u{u}\ti{(u + k) % 6}\t{1000 * u + k}" for u in range(6) for k in range(6)]
    (folder / "toy.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")
    np.save(folder / "txt_emb.npy", np.full((7, 2), 7e4, np.float32), allow_pickle=False)
    with pytest.raises(DataError, match=r"text_features must be at most 65504 in size for half precision, got 70000"):
        prepare(
            "toy",
            data_dir=tmp_path,
            prepared_dir=tmp_path / "p",
            options=PrepareOptions(half_features=True, keep_feature_scale=True),
        )
    assert not list((tmp_path / "p").glob("*/*"))
