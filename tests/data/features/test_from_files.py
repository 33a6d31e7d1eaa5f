from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from athwe_core.data.features.from_files import (
    ORDER_FILE,
    find_feature_files,
    read_clusters,
    read_multi_hot,
    read_vectors,
)
from athwe_core.errors import DataError

TOKENS = ["", "x", "y", "z"]
CODED = np.array([[0, 0], [1, 10], [2, 20], [3, 30]], dtype=np.float32)  # row k says k


def save(folder: Path, name: str, array: np.ndarray) -> None:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".safetensors":
        save_file({"anything": torch.from_numpy(array)}, path)
    else:
        torch.save(torch.from_numpy(array), path)


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_published_layout(tmp_path: Path, suffix: str, dtype: str) -> None:
    save(tmp_path, f"txt_emb{suffix}", CODED.astype(dtype))
    found = read_vectors(tmp_path, "txt_emb", TOKENS)
    assert found is not None
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, CODED)
    assert found.source == f"txt_emb{suffix}, rows by first appearance"
    assert found.missing == 0


def test_bfloat16_is_read(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(CODED).bfloat16(), tmp_path / "img_emb.pt")
    found = read_vectors(tmp_path, "img_emb", TOKENS)
    assert found is not None
    np.testing.assert_array_equal(found.vectors, CODED)


@pytest.mark.parametrize("order", ["z\nq\nx\n", "\ufeffz\r\nq\r\nx"])
def test_order_file_matches_rows_by_id_and_absent_items_are_missing(tmp_path: Path, order: str) -> None:
    np.save(tmp_path / "img_emb.npy", np.array([[3, 30], [9, 90], [1, 10]], dtype=np.float16))
    (tmp_path / ORDER_FILE).write_bytes(order.encode())
    found = read_vectors(tmp_path, "img_emb", TOKENS)
    assert found is not None
    np.testing.assert_array_equal(found.vectors, [[0, 0], [1, 10], [0, 0], [3, 30]])
    assert found.missing == 1
    assert found.source_rows is not None
    assert found.source_rows.tolist() == [-1, 2, -1, 0]


def test_padding_row_is_zeroed_and_zero_rows_count_as_missing(tmp_path: Path) -> None:
    save(tmp_path, "txt_emb.npy", np.array([[5, 5], [1, 1], [0, 0], [2, 2]]))
    found = read_vectors(tmp_path, "txt_emb", TOKENS)
    assert found is not None
    assert not found.vectors[0].any()
    assert found.missing == 1
    assert found.notes == ("txt_emb.npy: row 0 is the padding and is not zero in the file; it was set to zero",)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ordered", [False, True])
def test_values_that_are_not_finite_name_row_and_item(tmp_path: Path, value: float, ordered: bool) -> None:
    bad = CODED.copy()
    bad[2, 1] = value
    if ordered:
        (tmp_path / ORDER_FILE).write_text("x\nz\ny\nq\n")
    np.save(tmp_path / "txt_emb.npy", bad)
    item = "y"
    message = rf"txt_emb\.npy row 2 \(item '{item}'\) must hold finite numbers, got {value}. 1 of 3 items"
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_float64_beyond_float32_is_reported(tmp_path: Path) -> None:
    save(tmp_path, "txt_emb.npy", CODED.astype(np.float64) * 1e300)
    with pytest.raises(DataError, match=r"row 1 \(item 'x'\) must hold finite numbers, got inf"):
        read_vectors(tmp_path, "txt_emb", TOKENS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            CODED[:3],
            r"rows of .*txt_emb\.npy must be 4: padding and 3 items in order .*, got 3\. Save .* emb_item_order",
        ),
        (np.zeros(4), r"must be of shape \(items, width\), got \(4,\)"),
        (np.zeros((4, 2, 1)), r"must be of shape \(items, width\), got \(4, 2, 1\)"),
        (np.zeros((4, 0)), r"must be of shape \(items, width\), got \(4, 0\)"),
        (np.float32(1), r"must be 4: .*, got 0"),
        (np.array([["a"]] * 4), r"must hold real numbers, got '<U1'"),
        (np.zeros((4, 2), dtype=complex), r"must hold real numbers, got 'complex128'"),
        (np.array([[None]] * 4), r"cannot be read without unpickling objects .*Save it again as a plain numeric array"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "txt_emb.npy", array)
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_rows_must_match_the_order_file(tmp_path: Path) -> None:
    np.save(tmp_path / "txt_emb.npy", CODED)
    (tmp_path / ORDER_FILE).write_text("x\ny\n")
    with pytest.raises(DataError, match=r"must be 2, one for each line of emb_item_order\.txt, got 4"):
        read_vectors(tmp_path, "txt_emb", TOKENS)


@pytest.mark.parametrize(("order", "line", "value"), [("x\ny\nx\n", 3, "x"), ("x\n\ny\n", 2, "")])
def test_order_file_lines_must_be_ids_that_occur_once(tmp_path: Path, order: str, line: int, value: str) -> None:
    np.save(tmp_path / "txt_emb.npy", CODED)
    (tmp_path / ORDER_FILE).write_text(order)
    with pytest.raises(DataError, match=rf"emb_item_order\.txt line {line} must be an item id .*, got '{value}'"):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_a_pt_file_that_holds_objects_is_refused(tmp_path: Path) -> None:
    torch.save(CODED, tmp_path / "txt_emb.pt")  # a numpy array is pickled, which weights_only refuses
    with pytest.raises(DataError, match=r"txt_emb\.pt cannot be read without unpickling objects .*torch\.as_tensor"):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_a_pt_file_that_holds_a_dict_or_is_broken_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(4, 2)}, tmp_path / "txt_emb.pt")
    with pytest.raises(DataError, match=r"must hold one tensor, got 'dict'\. Save it with torch\.save\(tensor, path\)"):
        read_vectors(tmp_path, "txt_emb", TOKENS)
    (tmp_path / "txt_emb.pt").write_bytes(b"not a tensor")
    with pytest.raises(DataError, match=r"txt_emb\.pt cannot be read"):
        read_vectors(tmp_path, "txt_emb", TOKENS)
    torch.save(torch.zeros(4, 2).to_sparse(), tmp_path / "txt_emb.pt")
    with pytest.raises(DataError, match=r"must hold a dense tensor of real numbers, got 'torch\.float32'"):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_safetensors_with_several_tensors_needs_the_name(tmp_path: Path) -> None:
    both = {"txt_emb": torch.from_numpy(CODED), "other": torch.zeros(1)}
    save_file(both, tmp_path / "txt_emb.safetensors")
    assert read_vectors(tmp_path, "txt_emb", TOKENS) is not None
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "txt_emb.safetensors")
    with pytest.raises(
        DataError, match=r"must hold one tensor or one called txt_emb, and holds a, b\. Name it txt_emb"
    ):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_two_files_of_one_kind_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "txt_emb.npy", CODED)
    save(tmp_path, "txt_emb.pt", CODED)
    with pytest.raises(DataError, match=r"holds txt_emb\.pt and txt_emb\.npy, .* Keep one"):
        read_vectors(tmp_path, "txt_emb", TOKENS)


def test_no_files_is_none(tmp_path: Path) -> None:
    assert read_vectors(tmp_path, "txt_emb", TOKENS) is None
    assert read_multi_hot(tmp_path, TOKENS) is None
    assert read_clusters(tmp_path, "txt_clusters", TOKENS) is None
    assert find_feature_files(tmp_path) == []


def test_multi_hot(tmp_path: Path) -> None:
    save(tmp_path, "cat.pt", np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32))
    found = read_multi_hot(tmp_path, TOKENS)
    assert found is not None
    assert found[0].dtype == np.uint8
    assert found[0].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    save(tmp_path, "cat.pt", np.array([[0], [1], [2], [1]]))
    with pytest.raises(DataError, match=r"cat\.pt row 2 \(item 'y'\) must hold 0 and 1 only, got 2"):
        read_multi_hot(tmp_path, TOKENS)
    save(tmp_path, "cat.pt", np.zeros(4))
    with pytest.raises(DataError, match=r"must be of shape \(items, categories\), got \(4,\)"):
        read_multi_hot(tmp_path, TOKENS)


def test_clusters(tmp_path: Path) -> None:
    save(tmp_path, "txt_clusters.npy", np.array([7, 0, -1, 2]))
    labels = read_clusters(tmp_path, "txt_clusters", TOKENS)
    assert labels is not None
    assert labels.dtype == np.int32
    assert labels.tolist() == [-1, 0, -1, 2]  # the padding has none
    save(tmp_path, "txt_clusters.npy", np.array([0, 0.5, 1, 1]))
    with pytest.raises(
        DataError, match=r"row 1 \(item 'x'\) must hold whole labels >= 0, or -1 for none, .*, got 0\.5"
    ):
        read_clusters(tmp_path, "txt_clusters", TOKENS)
    save(tmp_path, "txt_clusters.npy", CODED)
    with pytest.raises(DataError, match=r"must be of shape \(items,\), got \(4, 2\)"):
        read_clusters(tmp_path, "txt_clusters", TOKENS)


def test_clusters_follow_the_order_file(tmp_path: Path) -> None:
    save(tmp_path, "img_clusters.npy", np.array([3, 9, 1]))
    (tmp_path / ORDER_FILE).write_text("z\nq\nx\n")
    labels = read_clusters(tmp_path, "img_clusters", TOKENS)
    assert labels is not None
    assert labels.tolist() == [-1, 1, -1, 3]
