"""Whatever has become of a prepared data set: it opens and can be used, or one error names its folder and the remedy."""

import gc
import io
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fuzz_cases import few_and_many, fuzz, mutated
from fuzz_inputs import GOOD_ITEM, INTER_HEADER, ROWS, START, assert_both, outcome, table
from hypothesis import strategies as st

from athwe_core.data.features.arrays import read_array
from athwe_core.data.packing import pack
from athwe_core.data.prepare import PrepareOptions, open_prepared, prepare
from athwe_core.data.rows import packed_rows
from athwe_core.errors import DataError

NAMES = (
    *(
        "manifest.json",
        "current",
        "offsets.npy",
        "item_ids.npy",
        "timestamps.npy",
        "text_features.npy",
        "categories.npy",
    ),
    *("training_ends.npy", "validation_rows.npy", "test_rows.npy", "file_rows.npy", "users.parquet", "items.parquet"),
)


@pytest.fixture(scope="module", params=["leave-one-out", "global-time"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of each split."""
    place = tmp_path_factory.mktemp("good")
    (place / "data" / "toy").mkdir(parents=True)
    rows = [(user, item, START + 10 * (time - START) % 1000) for user, item, time in ROWS]  # all users at once
    (place / "data" / "toy" / "toy.inter").write_bytes(table(rows, INTER_HEADER, "\t"))
    (place / "data" / "toy" / "toy.item").write_bytes(GOOD_ITEM)
    options = PrepareOptions(min_interactions=3, text_width=3, split=request.param, held_out_share=0.3)
    prepare("toy", data_dir=place / "data", prepared_dir=place / "prepared", options=options)
    return place / "prepared"


def use(place: Path) -> str:
    """Open, and touch all that is there."""

    def read() -> str:
        prepared = open_prepared("toy", prepared_dir=place)
        assert len(prepared.user_tokens) == prepared.num_users
        assert len(prepared.item_tokens) == prepared.item_table().height == prepared.num_item_rows
        assert prepared.split_rule in prepared.rules
        assert prepared.item_ids[prepared.split.held_out("test").clip(0)].max() <= prepared.num_items
        assert prepared.split.is_training(len(prepared.item_ids)).shape == prepared.item_ids.shape
        for array in (prepared.text_features, prepared.categories):
            assert array is None or array[prepared.item_ids].shape[0] == len(prepared.item_ids)
        rows = packed_rows(prepared.split, max_length=4)
        pack(prepared, rows, np.arange(len(rows)), max_length=4)
        return "accepted"

    return outcome(read, place="toy")


@st.composite
def changed_trees(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one value, somewhere in it, replaced, removed or put in."""
    if isinstance(tree, dict) and tree and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(tree)))
        if not draw(st.integers(0, 4)):
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: draw(changed_trees(tree[key]))}
    if isinstance(tree, list) and tree and draw(st.booleans()):
        index = draw(st.integers(0, len(tree) - 1))
        return [*tree[:index], draw(changed_trees(tree[index])), *tree[index + 1 :]]
    odd = [None, True, 0, 1, -1, 2, 7, 10**30, 1.5, float("nan"), "", "x", "../../x", [], [[]], {}, {"a": {}}]
    return draw(st.sampled_from(odd))


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@st.composite
def changed_arrays(draw: st.DrawFn, content: bytes) -> bytes:
    """The array with another length, shape, type or value."""
    array = np.load(io.BytesIO(content))
    kind = draw(st.sampled_from(["value", "length", "shape", "type", "order"]))
    if kind == "value":
        array.flat[draw(st.integers(0, array.size - 1))] = draw(
            st.sampled_from([0, 1, 2, 5, 6, 7, 29, 30, 31, 100, 127])
        )
    elif kind == "length":
        array = array[: draw(st.integers(0, len(array)))] if draw(st.booleans()) else np.concatenate([array, array])
    elif kind == "shape":
        array = draw(st.sampled_from([array.ravel(), array[None], array[:, None], array.ravel()[0]]))
    elif kind == "type":
        array = array.astype(draw(st.sampled_from(["i1", "i4", "u4", "i8", "f4", "f8", ">i8", ">i4", "U3"])))
    else:
        array = np.asfortranarray(array[::-1])
    return npy(array)


@st.composite
def changed_frames(draw: st.DrawFn, content: bytes) -> bytes:
    """The table with other rows, columns or types."""
    frame = pl.read_parquet(content)
    name = frame.columns[0]
    frame = draw(
        st.sampled_from(
            [
                *(frame[1:], frame[:0], pl.concat([frame, frame]), frame.rename({name: "x"}), frame.drop(name), frame),
                *(frame.with_columns(pl.lit(kind).alias(name)) for kind in (None, 7, b"\xff", ["a"])),
            ]
        )
    )
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def changed(name: str, content: bytes) -> st.SearchStrategy[bytes | None]:
    """The file damaged, replaced by one that is well formed and wrong, or gone."""
    others = st.none() | mutated(content) | st.just(content)
    if name == "manifest.json":
        return others | changed_trees(json.loads(content)).map(lambda tree: json.dumps(tree).encode())
    if name == "current":
        return others | st.sampled_from([b"", b"../../x\n", b"0" * 12, b"\xff", b"0" * 10_000, b"\x1b[31m"])
    return others | (changed_frames(content) if name.endswith(".parquet") else changed_arrays(content))


@few_and_many
def test_prepared_data_sets(tmp_path: Path, cases: int, good: Path) -> None:
    (folder,) = (path.parent for path in good.glob("toy/*/manifest.json"))
    names = [name for name in NAMES if name == "current" or (folder / name).is_file()]
    place = shutil.copytree(good, tmp_path / "prepared")

    def path_of(name: str, place: Path) -> Path:
        return place / "toy" / name if name == "current" else place / "toy" / folder.name / name

    def run(drawn: tuple[str, bytes | None]) -> str:
        name, content = drawn
        path = path_of(name, place)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        try:
            return use(place)
        finally:
            path.unlink(missing_ok=True)
            path.write_bytes(path_of(name, good).read_bytes())

    made = {name: st.tuples(st.just(name), changed(name, path_of(name, good).read_bytes())) for name in names}
    assert_both(fuzz(run, st.sampled_from(names).flatmap(made.__getitem__), cases=cases))


@pytest.mark.parametrize("stem", ["validation_rows", "test_rows"])
@pytest.mark.parametrize("wrong", ["first", "of the next user", "behind the end", "-2"])
def test_a_row_to_ask_for_has_one_before_it_and_is_its_users(tmp_path: Path, good: Path, stem: str, wrong: str) -> None:
    path = next(shutil.copytree(good, tmp_path / "prepared").glob(f"toy/*/{stem}.npy"), None)
    if path is None:  # leave-one-out needs no list
        assert use(good) == "accepted"
        return
    rows, offsets = np.load(path), np.load(path.with_name("offsets.npy"))
    user = -1 if wrong == "behind the end" else 0
    rows[user] = -2 if wrong == "-2" else offsets[0] if wrong == "first" else offsets[1:][user]
    np.save(path, rows)
    with pytest.raises(DataError, match=rf"{stem}\.npy does not fit to offsets\.npy"):
        open_prepared("toy", prepared_dir=tmp_path / "prepared")


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(90), b"PK\x05\x06", b"PK\x03\x04"])
def test_a_damaged_archive_in_place_of_an_array_is_closed(tmp_path: Path, good: Path, content: bytes) -> None:
    (path,) = shutil.copytree(good, tmp_path / "prepared").glob("toy/*/timestamps.npy")
    path.write_bytes(content)
    (tmp_path / "vectors.npy").write_bytes(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match=r"timestamps\.npy is no array"):
            open_prepared("toy", prepared_dir=tmp_path / "prepared")
        with pytest.raises(DataError, match="is an archive"):
            read_array(tmp_path / "vectors.npy", "vectors")
        gc.collect()
    assert [str(each.message) for each in said] == []
