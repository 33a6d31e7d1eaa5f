import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from athwe_core.data import prepare as prepared_module
from athwe_core.data import prepared as former_module
from athwe_core.data.prepare import (
    PreparedDataset,
    PrepareOptions,
    available_datasets,
    list_versions,
    open_prepared,
    prepare,
)
from athwe_core.errors import ConfigError, DataError

Write = Callable[..., Path]
Prepare = Callable[..., PreparedDataset]
Rows = list[tuple[str, str, object]]
CODED = np.arange(7, dtype=np.float32)[:, None] * [1, 10]  # row k says k


def history(prepared: PreparedDataset, user: int) -> list[tuple[str, int]]:
    rows = slice(prepared.offsets[user], prepared.offsets[user + 1])
    items = [prepared.item_tokens[item] for item in prepared.item_ids[rows]]
    return list(zip(items, prepared.timestamps[rows].tolist(), strict=True))


def test_what_was_written_comes_back(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    write_inter(toy_rows)
    prepared = prepare_toy()
    assert (prepared.num_users, prepared.num_items, prepared.num_item_rows) == (7, 6, 7)
    assert prepared.user_tokens == [f"u{user}" for user in range(7)]
    for user in range(7):
        expected = [(item, time) for token, item, time in toy_rows if token == f"u{user}"]
        assert history(prepared, user) == expected  # odd seconds near 1.4e9: float32 would lose them
    assert prepared.offsets.dtype == prepared.timestamps.dtype == np.int64
    assert prepared.item_ids.dtype == np.int32
    assert prepared.item_ids.min() == 1
    assert not prepared.item_ids.flags.writeable


def test_ids_follow_first_appearance_in_the_filtered_file(write_inter: Write, prepare_toy: Prepare) -> None:
    rows: Rows = [("gone", "z", 0), ("v", "c", 9), ("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "a", 1)]
    write_inter([*rows, ("v", "b", 5), ("w", "a", 1), ("w", "b", 2), ("w", "c", 3)])
    prepared = prepare_toy(min_interactions=3)
    assert prepared.item_tokens == ["", "c", "a", "b"]
    assert prepared.user_tokens == ["v", "u", "w"]
    assert history(prepared, 0) == [("a", 1), ("b", 5), ("c", 9)]
    assert prepared.manifest["notes"][0] == "rows: 10 in the files, 10 read"
    assert prepared.manifest["notes"][2:4] == [
        "users and items with fewer than 3 interactions were removed: "
        "1 of 4 users (25.0%), 1 of 4 items (25.0%), 1 of 10 rows (10.0%)",
        "1 rows came after a later one of the same user in the file: sorted by time",
    ]


@pytest.mark.parametrize(("tie_order", "expected"), [("file", ["b", "a", "B"]), ("item", ["B", "a", "b"])])
def test_tie_orders_by_hand(write_inter: Write, prepare_toy: Prepare, tie_order: str, expected: list[str]) -> None:
    write_inter([(user, item, 5) for user in "uvw" for item in "baB"])
    prepared = prepare_toy(min_interactions=3, tie_order=tie_order)
    assert [item for item, _ in history(prepared, 1)] == expected
    assert prepared.statistics["tie_order"] == tie_order
    assert prepared.statistics["tied_test_share"] == 1


def test_statistics_by_hand(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    write_inter([*toy_rows, toy_rows[0], ("u0", "i0", 1_400_000_011)])  # a repeat, then a tie at u0's last item
    said: list[str] = []
    statistics = prepare_toy(notify=said.append).statistics
    assert set(statistics) == {
        *("users", "items", "interactions", "sparsity", "tied_test_share", "features", "tie_order", "version"),
        *("actions_per_user", "actions_per_item", "notes", "clusters", "split", "asked", "rows"),
    }
    assert statistics["rows"] == {"in_files": 44, "kept": 43, "dropped": {"were repeated": 1}}
    assert (statistics["users"], statistics["items"], statistics["interactions"]) == (7, 6, 43)
    assert statistics["sparsity"] == 1 - 43 / (7 * 6)
    assert (statistics["actions_per_user"], statistics["actions_per_item"]) == (43 / 7, 43 / 6)
    assert statistics["tied_test_share"] == 1 / 7
    assert statistics["features"] == {"text": None, "image": None, "categories": None}
    assert "1 repeated rows (same user, item and time) were removed" in said
    assert "no images found: the image modality is off" in said
    assert statistics["notes"] == said
    json.dumps(statistics)


def test_both_feature_layouts_give_each_item_its_own_vector(
    write_inter: Write, toy_rows: Rows, toy_tokens: list[str], prepare_toy: Prepare
) -> None:
    folder = write_inter([*reversed(toy_rows)])  # so first appearance is not the sorted order
    order = sorted(toy_tokens[1:])
    np.save(folder / "img_emb.npy", np.array([[int(token[1]) + 1, 0] for token in order], dtype=np.float16))
    (folder / "emb_item_order.txt").write_text("\n".join(order))
    first_seen = list(dict.fromkeys(item for _, item, _ in reversed(toy_rows)))
    torch.save(torch.tensor([[0.0]] + [[int(token[1]) + 1.0] for token in first_seen]), folder / "txt_emb.pt")
    prepared = prepare_toy(keep_feature_scale=True)
    assert prepared.item_tokens[1:] == first_seen != order
    assert prepared.image_features is not None
    assert prepared.text_features is not None
    codes = [0, *(int(token[1]) + 1 for token in first_seen)]
    assert prepared.image_features[:, 0].tolist() == codes
    assert prepared.text_features[:, 0].tolist() == codes
    first = prepared.manifest["item_rows"][0]
    assert first == {"item": first_seen[0], "row": 1, "text_file_row": 1, "image_file_row": order.index(first_seen[0])}


def test_text_categories_and_item_table_come_from_the_item_file(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare
) -> None:
    folder = write_inter(toy_rows)
    lines = ["item_id:token\ttitle:token_seq\tcategory:token_seq", *(f"i{k}\ttoy number {k}\ttoys" for k in range(5))]
    (folder / "toy.item").write_text("\n".join(lines))
    prepared = prepare_toy(text_width=8)
    assert prepared.text_features is not None
    assert prepared.text_features.shape == (7, 8)
    assert not prepared.text_features[6].any()  # i5 is not in the item file
    assert prepared.statistics["features"]["text"]["missing"] == 1
    assert prepared.categories is not None
    assert prepared.categories[:, 0].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert prepared.manifest["category_names"] == ["toys"]
    assert prepared.item_table().row(1) == ("i0", "toy number 0", "toys")
    assert prepared.item_table().row(6) == ("i5", "", "")


def test_named_columns_win_over_given_vectors(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    folder = write_inter(toy_rows)
    (folder / "toy.item").write_text("item_id:token\tplot:token_seq\ni0\ta red toy\n")
    np.save(folder / "txt_emb.npy", CODED)
    assert prepare_toy().statistics["features"]["text"]["source"] == "txt_emb.npy, rows by first appearance"
    named = prepare_toy(text_columns=("plot",), text_width=4).statistics["features"]["text"]
    assert named == {"width": 4, "missing": 5, "source": "built-in from plot of toy.item"}


def test_given_categories_and_clusters(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    folder = write_inter(toy_rows)
    torch.save(torch.eye(7)[:, 1:], folder / "cat.pt")
    np.save(folder / "txt_clusters.npy", np.array([0, 0, 1, 2, 0, 1, -1]))
    prepared = prepare_toy()
    assert prepared.statistics["features"]["categories"]["count"] == 6
    assert prepared.statistics["clusters"] == {"text": 3, "image": None}
    assert prepared.text_clusters is not None
    assert prepared.text_clusters.tolist() == [-1, 0, 1, 2, 0, 1, -1]
    assert prepared.image_clusters is None


def test_gzip_and_plain_prepare_to_the_same_arrays(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    folder = write_inter(toy_rows)
    plain = prepare_toy()
    content = (folder / "toy.inter").read_bytes()
    (folder / "toy.inter").unlink()
    (folder / "toy.inter.gz").write_bytes(gzip.compress(content))
    zipped = prepare_toy()
    assert zipped.version != plain.version
    assert zipped.manifest["content_hash"] == plain.manifest["content_hash"]


def test_same_input_and_options_is_a_no_op(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    write_inter(toy_rows)
    first = prepare_toy()
    before = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    said: list[str] = []
    second = prepare_toy(notify=said.append)
    assert second.version == first.version
    assert {path: path.stat().st_mtime_ns for path in second.path.iterdir()} == before
    assert f"toy is already prepared with these files and options: version {first.version}" in said


def test_other_options_and_other_input_are_other_versions(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, tmp_path: Path
) -> None:
    write_inter(toy_rows)
    first, other = prepare_toy(), prepare_toy(tie_order="item")
    write_inter([*toy_rows, ("u0", "i1", 1_500_000_000)])
    third = prepare_toy()
    place = tmp_path / "prepared"
    assert sorted(list_versions("toy", prepared_dir=place)) == sorted({first.version, other.version, third.version})
    assert third.manifest["content_hash"] != first.manifest["content_hash"]
    assert open_prepared("toy", prepared_dir=place).version == third.version
    assert open_prepared("toy", prepared_dir=place, version=other.version).manifest["options"]["tie_order"] == "item"
    write_inter(toy_rows)
    prepare_toy()  # back to the first: nothing is written but the mark
    assert open_prepared("toy", prepared_dir=place).version == first.version


def test_manifest_says_where_everything_came_from(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    folder = write_inter(toy_rows)
    np.save(folder / "img_emb.npy", CODED)
    manifest = prepare_toy(seed=3).manifest
    assert [source["file"] for source in manifest["sources"]] == ["toy.inter", "img_emb.npy"]
    assert manifest["sources"][0]["bytes"] == (folder / "toy.inter").stat().st_size
    assert manifest["options"] == asdict(PrepareOptions(seed=3, split="leave-one-out"))
    assert len(manifest["item_rows"]) == 3


def test_a_failed_preparation_leaves_no_version(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    folder = write_inter(toy_rows)
    np.save(folder / "img_emb.npy", CODED[:5])
    with pytest.raises(DataError, match=r"rows of .*img_emb\.npy must be 7: .*, got 5"):
        prepare_toy()
    place = folder.parent.parent / "prepared"
    assert list(place.iterdir()) == []
    with pytest.raises(DataError, match=r"'toy' is not prepared in .* Run: athwe prepare --dataset toy"):
        open_prepared("toy", prepared_dir=place)


def test_too_few_users_after_filtering(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    write_inter(toy_rows)
    with pytest.raises(
        DataError, match=r"with 8 interactions each, got '0 users and 0 items'. Lower --min-interactions"
    ):
        prepare_toy(min_interactions=8)


def test_unknown_data_set_names_those_there(write_inter: Write, toy_rows: Rows, data_dir: Path, tmp_path: Path) -> None:
    write_inter(toy_rows, name="Toys")
    (data_dir / "empty").mkdir()
    assert available_datasets(data_dir) == ["Toys", "demo"]
    message = r"'Toy' is unknown: no folder .*dataset/Toy \(there: Toys, demo, did you mean 'Toys'\?\)"
    with pytest.raises(DataError, match=message):
        prepare("Toy", data_dir=data_dir, prepared_dir=tmp_path / "prepared")
    with pytest.raises(DataError, match=r"'empty' has no interactions: looked for empty\.inter and empty\.inter\.gz"):
        prepare("empty", data_dir=data_dir, prepared_dir=tmp_path / "prepared")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "a\\b", ".hidden"])
def test_names_must_be_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data set name must be a plain name .*, got "):
        prepare(name, data_dir=tmp_path, prepared_dir=tmp_path)


STOPS_BEFORE_ITS_MANIFEST = """
import sys, time
from pathlib import Path
from athwe_core.data import prepare as prepare_module

def stop(*_):
    print("written", flush=True)
    time.sleep(60)

prepare_module.write_manifest = stop
prepare_module.prepare("toy", data_dir=Path(sys.argv[1]), prepared_dir=Path(sys.argv[2]))
"""


def python(code: str, *arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_second_preparation_is_refused_and_a_killed_one_leaves_the_old_version_and_no_half_of_a_new_one(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, tmp_path: Path
) -> None:
    write_inter(toy_rows)
    old = prepare_toy()
    write_inter([*toy_rows, ("u0", "i1", 1_500_000_000)])
    with python(STOPS_BEFORE_ITS_MANIFEST, tmp_path / "dataset", tmp_path / "prepared") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        with pytest.raises(DataError, match=f"data set 'toy' is being prepared by process {process.pid}, for [0-9]+ s"):
            prepare_toy()
        process.kill()
    assert list_versions("toy", prepared_dir=tmp_path / "prepared") == [old.version]
    opened = open_prepared("toy", prepared_dir=tmp_path / "prepared")
    assert opened.version == old.version
    np.testing.assert_array_equal(opened.item_ids, old.item_ids)
    assert (old.path.parent / ".lock").is_file()
    (left,) = (path for path in old.path.parent.glob(".unfinished-*") if path.is_dir())
    assert (left / "item_ids.npy").is_file()
    new = prepare_toy()
    assert new.version != old.version
    assert {path.name for path in old.path.parent.iterdir()} == {"current", old.version, new.version}


def test_long_hashing_is_said(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inter(toy_rows)
    said: list[str] = []
    prepare_toy(notify=said.append)
    assert not any("hashing" in line for line in said)
    monkeypatch.setattr(prepared_module, "_LARGE", 10)
    prepare_toy(notify=said.append)
    assert "hashing 0.0 GB of source files, to know whether they are prepared already" in said


def test_sources_of_other_kinds_say_so_and_are_versions_of_their_own(
    toy_rows: Rows, data_dir: Path, prepare_toy: Prepare
) -> None:
    (data_dir / "toy").mkdir(parents=True)
    path = data_dir / "toy" / "toy.csv"
    path.write_text("user,item,time\n" + "".join(f"{user},{item},{time}\n" for user, item, time in toy_rows))
    said: list[str] = []
    first = prepare_toy(notify=said.append)
    assert said[0] == "source table: toy.csv"
    assert first.manifest["source"] == "table"
    assert history(first, 0) == [(item, time) for user, item, time in toy_rows if user == "u0"]
    assert prepare_toy(source="table").version == first.version
    assert prepare_toy(time_unit="ms").version != first.version


INTERACTIONS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=30, max_size=60)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=INTERACTIONS, tie_order=st.sampled_from(["file", "item", "random"]))
def test_any_data_keeps_its_interactions_in_time_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], tie_order: str
) -> None:
    base = tmp_path_factory.mktemp("any")
    (base / "toy").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    (base / "toy" / "toy.inter").write_text("\n".join(lines))
    options = PrepareOptions(tie_order=tie_order, min_interactions=3)  # type: ignore[arg-type]
    try:
        prepared = prepare("toy", data_dir=base, prepared_dir=base / "prepared", options=options)
    except DataError:
        return  # too little was left
    found = []
    for user, token in enumerate(prepared.user_tokens):
        of_user = history(prepared, user)
        assert len(of_user) >= 3
        assert [time for _, time in of_user] == sorted(time for _, time in of_user)
        found += [(int(token), int(item), time) for item, time in of_user]
    assert len(found) == len(set(found))
    assert set(found) <= set(rows)


def test_the_module_name_of_version_0_1_0_works() -> None:
    assert former_module.prepare is prepared_module.prepare


def test_an_atomic_file_is_another_version_only_where_it_is_read_in_another_way(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, tmp_path: Path
) -> None:
    write_inter(toy_rows)
    plain = prepare_toy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared_module, "_counts_rows", lambda *_: False)  # as of a version that 0.1.0 wrote
        assert prepare_toy().version == plain.version
    odd = [
        ("nan", "i0", 5),
        *((" u0", item, time) if user == "u0" else (user, item, time) for user, item, time in toy_rows),
    ]
    write_inter(odd)
    first = prepare_toy(max_missing_ids=0.1)
    assert first.user_tokens == plain.user_tokens
    assert prepare_toy(max_missing_ids=0.1).version == first.version
    assert first.statistics["rows"] == {"in_files": 43, "kept": 42, "dropped": {"had no user or item id": 1}}


def test_items_that_are_kept_stand_behind_the_others_with_their_features(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare
) -> None:
    folder = write_inter([*toy_rows, ("u0", "rare", 1_400_000_900)])
    items = [("new", "red car"), ("i0", "blue car"), ("rare", "blue ball"), *((f"i{n}", "ball") for n in range(1, 6))]
    lines = ["item_id:token\ttitle:token_seq", *("\t".join(item) for item in items)]
    (folder / "toy.item").write_text("\n".join(lines) + "\n")
    plain, kept = prepare_toy(text_width=4), prepare_toy(text_width=4, keep_items=True)
    assert kept.version != plain.version
    assert kept.item_tokens == [*plain.item_tokens, "new", "rare"]
    assert np.array_equal(kept.item_ids, plain.item_ids)
    assert kept.text_features is not None
    assert np.abs(kept.text_features[-2:]).sum(1).min() > 0
    assert kept.item_table()["title"].to_list()[-2:] == ["red car", "blue ball"]
    assert "2 further items of toy.item stay in the catalogue" in kept.manifest["notes"]
    assert any("1 of 7 items (14.3%), 1 of 43 rows (2.3%)" in note for note in kept.manifest["notes"])


def test_items_are_kept_only_where_a_table_has_them(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> None:
    write_inter(toy_rows)
    with pytest.raises(ConfigError, match=r"--keep-items needs a table of items\. Name one with --item-file"):
        prepare_toy(keep_items=True)
