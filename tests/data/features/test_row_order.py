"""Which item each row of a feature file belongs to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.features.from_files import find_feature_files, has_given, read_vectors
from athwe_core.data.features.row_order import MAPPING_FILE, ORDER_FILE
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import DataError

LETTERS = ["", "x", "y", "z"]
NUMBERS = ["", "2", "0", "3"]


def coded(count: int) -> np.ndarray:
    """Row k says k + 1, so that no row is zero."""
    return np.arange(1, count + 1, dtype=np.float32)[:, None]


def rows(folder: Path, tokens: list[str], *, stem: str = "img_emb", **option: str) -> list[int]:
    """The row in the file that each item got, -1 = none."""
    found = read_vectors(folder, stem, tokens, **option)  # type: ignore[arg-type]
    assert found is not None
    return [int(value) - 1 for value in found.vectors[1:, 0]]


@pytest.mark.parametrize("name", ["image_feat.npy", "visual_feat.npy", "v_feat.npy", "image_features.npy"])
def test_under_another_tools_name_row_k_is_item_k(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / name, coded(5))
    assert rows(tmp_path, NUMBERS) == [2, 0, 3]
    assert has_given(tmp_path, "img_emb")
    assert find_feature_files(tmp_path) == [tmp_path / name]
    found = read_vectors(tmp_path, "img_emb", NUMBERS)
    assert found is not None
    assert found.source == f"{name}, rows by item number from 0"


def test_texts_have_other_names_too(tmp_path: Path) -> None:
    np.save(tmp_path / "text_feat.npy", coded(4))
    assert rows(tmp_path, NUMBERS, stem="txt_emb") == [2, 0, 3]
    assert read_vectors(tmp_path, "img_emb", NUMBERS) is None


def test_a_row_of_padding_before_items_from_1_changes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", coded(4))
    assert rows(tmp_path, ["", "3", "1", "2"]) == [3, 1, 2]


@pytest.mark.parametrize("tokens", [LETTERS, ["", "1", "2", "3"], ["", "0", "01", "2"], ["", "0", "1", "-2"]])
def test_without_numbers_below_the_rows_the_order_is_not_known(tmp_path: Path, tokens: list[str]) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    rule = r"image_feat\.npy has 3 rows of unknown order: .*Name the order: --feature-rows number .*number-from-1"
    with pytest.raises(DataError, match=rule):
        read_vectors(tmp_path, "img_emb", tokens)


def test_the_option_says_the_order(tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    assert rows(tmp_path, LETTERS, feature_rows="appearance") == [0, 1, 2]
    assert rows(tmp_path, ["", "3", "1", "2"], feature_rows="number-from-1") == [2, 0, 1]
    assert rows(tmp_path, ["", "2", "0"], feature_rows="number") == [2, 0]
    np.save(tmp_path / "image_feat.npy", coded(4))
    assert rows(tmp_path, LETTERS, feature_rows="appearance") == [1, 2, 3]  # row 0 is padding


def test_the_option_holds_for_the_published_names_and_before_an_order_file(tmp_path: Path) -> None:
    np.save(tmp_path / "img_emb.npy", coded(4))
    assert rows(tmp_path, NUMBERS) == [1, 2, 3]
    assert rows(tmp_path, NUMBERS, feature_rows="number") == [2, 0, 3]
    (tmp_path / ORDER_FILE).write_text("0\n2\n3\n7\n")
    assert rows(tmp_path, NUMBERS) == [1, 0, 2]
    assert rows(tmp_path, NUMBERS, feature_rows="number") == [2, 0, 3]


@pytest.mark.parametrize(
    ("option", "tokens", "message"),
    [
        ("number", ["", "0", "3"], r"item ids must be whole numbers from 0 to 2 to be rows of .*, got '3'"),
        ("number-from-1", ["", "1", "0"], r"item ids must be whole numbers from 1 to 3 to be rows of .*, got '0'"),
        ("number", ["", "0", "x"], r"item ids must be whole numbers from 0 to 2 .*, got 'x'"),
        ("appearance", ["", "x"], r"must be 1, one for each item, or 2 with a padding row .*, got 3"),
    ],
)
def test_an_option_that_does_not_fit(tmp_path: Path, option: str, tokens: list[str], message: str) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path, "img_emb", tokens, feature_rows=option)  # type: ignore[arg-type]


def test_ids_in_the_order_file_are_cleaned_like_all_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "img_emb.npy", coded(4))
    (tmp_path / ORDER_FILE).write_text(" 3\n2.0\nb'0'\n11 \n")
    assert rows(tmp_path, NUMBERS) == [1, 2, 0]


def test_two_lines_of_one_id_in_two_spellings_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "img_emb.npy", coded(3))
    (tmp_path / ORDER_FILE).write_text("7\n8\n7.0\n")
    with pytest.raises(DataError, match=r"line 3 must be an item id that no other line has, got '7\.0'"):
        read_vectors(tmp_path, "img_emb", ["", "7", "8"])


def test_an_order_file_beside_another_tools_name(tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    (tmp_path / ORDER_FILE).write_text("z\nx\ny\n")
    assert rows(tmp_path, LETTERS) == [1, 2, 0]
    assert find_feature_files(tmp_path) == [tmp_path / ORDER_FILE, tmp_path / "image_feat.npy"]


@pytest.mark.parametrize("separator", ["\t", ","])
def test_mmrecs_mapping_names_the_rows(tmp_path: Path, separator: str) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    pairs = [("asin", "itemID"), ("z", "0"), ("x", "1"), ("q", "2")]
    (tmp_path / MAPPING_FILE).write_text("".join(f"{raw}{separator}{row}\n" for raw, row in pairs))
    assert rows(tmp_path, LETTERS) == [1, -1, 0]
    assert rows(tmp_path, ["", "2", "0"]) == [2, 0]  # the interactions hold the numbers already
    assert find_feature_files(tmp_path) == [tmp_path / MAPPING_FILE, tmp_path / "image_feat.npy"]


def test_ids_that_are_numbers_and_mapped_to_others_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    (tmp_path / MAPPING_FILE).write_text("raw\titemID\n0\t2\n1\t1\n2\t0\n")
    with pytest.raises(DataError, match=r"item ids are both numbers and ids of i_id_mapping\.csv.*--feature-rows"):
        read_vectors(tmp_path, "img_emb", ["", "0", "1"])
    assert rows(tmp_path, ["", "0", "1"], feature_rows="number") == [0, 1]


@pytest.mark.parametrize("line", ["z", "z\tx", "z\t3", "z\t1\t2"])
def test_lines_of_the_mapping_that_name_no_row(tmp_path: Path, line: str) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    (tmp_path / MAPPING_FILE).write_text(f"raw\titemID\nx\t1\n{line}\n")
    with pytest.raises(DataError, match=r"i_id_mapping\.csv line 3 must hold a raw item id and its row"):
        read_vectors(tmp_path, "img_emb", LETTERS)


def test_the_same_features_under_two_names_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "image_feat.npy", coded(3))
    np.save(tmp_path / "img_emb.npy", coded(3))
    with pytest.raises(
        DataError, match=r"holds img_emb\.npy and image_feat\.npy, which are features of one kind\. Keep"
    ):
        read_vectors(tmp_path, "img_emb", NUMBERS)


def test_a_folder_of_mmrec_is_prepared_as_it_is(
    data_dir: Path, prepare_toy: Callable[..., PreparedDataset], toy_rows: list[tuple[str, str, int]]
) -> None:
    """Untyped header, numbered ids, a column with their own split, vectors by number."""
    folder = data_dir / "toy"
    folder.mkdir(parents=True)
    lines = [f"{user[1:]}\t{item[1:]}\t5.0\t{time}\t0" for user, item, time in toy_rows]
    (folder / "toy.inter").write_text("\n".join(["userID\titemID\trating\ttimestamp\tx_label", *lines]) + "\n")
    (folder / "u_id_mapping.csv").write_text("user\tuserID\n")
    (folder / MAPPING_FILE).write_text("asin\titemID\n" + "".join(f"A{item}\t{item}\n" for item in range(6)))
    for name in ("image_feat", "text_feat"):
        np.save(folder / f"{name}.npy", np.repeat(coded(6), 3, axis=1))
    notes: list[str] = []
    found = prepare_toy(notify=notes.append, keep_feature_scale=True)
    assert any("users userID, items itemID, times timestamp" in note for note in notes)
    for array in (found.text_features, found.image_features):
        assert array is not None
        assert [int(value) - 1 for value in array[1:, 0]] == [int(token) for token in found.item_tokens[1:]]
