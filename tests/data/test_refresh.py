import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.features.clusters import cluster_labels
from athwe_core.data.prepare import PreparedDataset, PrepareOptions
from athwe_core.data.refresh import refresh
from athwe_core.data.store.dataset import list_versions, open_prepared
from athwe_core.errors import ConfigError, DataError

Write = Callable[..., Path]
Prepare = Callable[..., PreparedDataset]
Rows = list[tuple[str, str, object]]
TITLES = ["red train", "blue doll", "red castle", "wooden puzzle", "toy a", "toy b"]


@pytest.fixture
def base(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> PreparedDataset:
    """A version with given text and image vectors, and clusters made from both."""
    folder = write_inter(toy_rows)
    lines = ["item_id:token\ttitle:token_seq\tplot:token", *(f"i{k}\t{title}\tp{k}" for k, title in enumerate(TITLES))]
    (folder / "toy.item").write_text("\n".join(lines))
    rng = np.random.default_rng(0)
    for stem in ("txt_emb", "img_emb"):
        vectors = rng.normal(size=(7, 4)).astype(np.float32)
        vectors[0] = 0
        np.save(folder / f"{stem}.npy", vectors)
    return prepare_toy(clusters=2, tie_order="item")


@pytest.fixture
def again(data_dir: Path, tmp_path: Path) -> Callable[..., PreparedDataset]:
    def run(kind: str, notify: Callable[[str], None] = lambda _: None, **options: object) -> PreparedDataset:
        return refresh(
            "toy",
            kind,  # type: ignore[arg-type]
            data_dir=data_dir,
            prepared_dir=tmp_path / "prepared",
            options=PrepareOptions(**options),  # type: ignore[arg-type]
            notify=notify,
        )

    return run


def changed(old: PreparedDataset, new: PreparedDataset) -> set[str]:
    """Files that are not one and the same on disk."""
    names = {path.name for path in (*old.path.iterdir(), *new.path.iterdir())} - {"checked.json"}
    return {
        name
        for name in names
        if not (old.path / name).exists()
        or not (new.path / name).exists()
        or not (old.path / name).samefile(new.path / name)
    }


def test_text_is_made_again_and_its_clusters_follow(base: PreparedDataset, again: Prepare, tmp_path: Path) -> None:
    said: list[str] = []
    before = {path.name: path.read_bytes() for path in base.path.iterdir()}
    new = again("text", said.append, text_width=5)
    assert changed(base, new) == {"manifest.json", "text_features.npy", "text_clusters.npy"}
    assert {path.name: path.read_bytes() for path in base.path.iterdir()} == before
    assert new.text_features is not None
    assert new.text_features.shape == (7, 5)
    assert new.text_clusters is not None
    assert new.text_clusters.tolist() == cluster_labels(new.text_features, k=2, seed=0).tolist()
    np.testing.assert_array_equal(new.image_features, base.image_features)  # type: ignore[arg-type]
    assert open_prepared("toy", prepared_dir=tmp_path / "prepared").version == new.version
    assert f"text features of version {base.version} made again: version {new.version}" in said


def test_the_manifest_is_that_of_the_new_version(base: PreparedDataset, again: Prepare) -> None:
    new = again("text", text_width=5)
    manifest, statistics = new.manifest, new.statistics
    assert manifest["version"] == statistics["version"] == new.version != base.version
    assert manifest["content_hash"] != base.manifest["content_hash"]
    assert manifest["arrays"]["text_features"] == [7, 5]
    assert manifest["options"] == {**base.manifest["options"], "text_width": 5}
    assert statistics["features"]["text"]["width"] == 5
    assert statistics["features"]["text"]["source"] == f"built-in from title of the items of version {base.version}"
    assert statistics["features"]["image"] == base.statistics["features"]["image"]
    assert statistics["tie_order"] == "item"
    assert "text_file_row" not in manifest["item_rows"][0]
    assert "image_file_row" in manifest["item_rows"][0]
    assert [step["from"] for step in manifest["refreshed"]] == [base.version]
    json.dumps(manifest)


def test_notes_tell_of_the_new_features_only(base: PreparedDataset, again: Prepare) -> None:
    def is_about_width(note: str) -> bool:
        return note.startswith("text features come from almost nothing")

    always = "no categories found: the category loss (cp) is off"
    about_scale = [note for note in base.manifest["notes"] if " vectors have lengths of " in note]
    assert [note for note in base.manifest["notes"] if note not in about_scale] == [
        "rows: 42 in the files, 42 read",
        always,
    ]
    wide = again("text", text_width=50).manifest["notes"]
    narrow = again("text", text_width=2).manifest["notes"]
    assert any(map(is_about_width, wide))
    assert not any(map(is_about_width, narrow))
    assert wide.count(always) == narrow.count(always) == 1


def test_doing_it_twice_changes_nothing(base: PreparedDataset, again: Prepare, tmp_path: Path) -> None:
    said: list[str] = []
    first = again("text", text_width=5)
    second = again("text", said.append, text_width=5)
    assert second.version == first.version
    assert f"toy has these text features already: version {first.version}" in said
    assert set(list_versions("toy", prepared_dir=tmp_path / "prepared")) == {base.version, first.version}
    assert again("clusters", clusters=3).version != first.version


def test_clusters_alone(base: PreparedDataset, again: Prepare) -> None:
    new = again("clusters", clusters=3, seed=4)
    assert changed(base, new) == {"manifest.json", "text_clusters.npy", "image_clusters.npy"}
    for labels, vectors in ((new.text_clusters, new.text_features), (new.image_clusters, new.image_features)):
        assert labels is not None
        assert vectors is not None
        assert labels.tolist() == cluster_labels(vectors, k=3, seed=4).tolist()
    assert new.statistics["clusters"] == {"text": 3, "image": 3}
    assert again("clusters").manifest["clusters_made"]["text"]["k"] == 100


def test_given_clusters_stay_with_new_vectors_and_it_is_said(
    base: PreparedDataset, again: Prepare, data_dir: Path, prepare_toy: Prepare
) -> None:
    np.save(data_dir / "toy" / "txt_clusters.npy", np.array([-1, 0, 0, 1, 1, 2, 2]))
    given = prepare_toy()
    new = again("text", text_width=5)
    assert new.text_clusters is not None
    assert new.text_clusters.tolist() == [-1, 0, 0, 1, 1, 2, 2]
    assert "the text clusters were given and stay: they are not of the new vectors" in new.manifest["notes"]
    assert given.text_clusters is not None


def test_columns_stay_those_of_the_version(prepare_toy: Prepare, base: PreparedDataset, again: Prepare) -> None:
    prepare_toy(text_columns=("plot",), text_width=4)
    source = again("text", text_width=3).statistics["features"]["text"]["source"]
    assert source.startswith("built-in from plot of")


def test_encoders_of_both_kinds(
    base: PreparedDataset, again: Prepare, bert: Path, save_model: Callable[..., Path], data_dir: Path
) -> None:
    new = again("text", text_encoder=str(bert))
    assert new.statistics["features"]["text"]["encoder"]["id"] == "bert"
    images = data_dir / "toy" / "images"
    images.mkdir()
    from PIL import Image

    for number in range(5):
        Image.new("RGB", (9, 9), (50 * number, 0, 9)).save(images / f"i{number}.png")
    vit = save_model("vit")
    newer = again("image", image_encoder=str(vit))
    assert newer.statistics["features"]["text"] == new.statistics["features"]["text"]
    assert newer.statistics["features"]["image"]["encoder"]["id"] == "vit"
    assert newer.statistics["features"]["image"]["missing"] == 1
    assert (newer.path / "image_problems.tsv").is_file()
    assert changed(new, newer) == {
        *("manifest.json", "image_features.npy", "image_clusters.npy", "image_problems.tsv"),
    }
    assert len(newer.manifest["refreshed"]) == 2
    assert (again("clusters", clusters=3).path / "image_problems.tsv").samefile(newer.path / "image_problems.tsv")


def test_versions_from_before_are_refreshed_too(base: PreparedDataset, again: Prepare) -> None:
    later = ("files", "vector_notes", "clusters_made", "item_columns")
    manifest = {key: value for key, value in base.manifest.items() if key not in later}
    (base.path / "manifest.json").write_text(json.dumps(manifest))
    assert again("text", text_width=5).text_features.shape == (7, 5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pictures", {}, r"refresh must be one of text, image, clusters, got 'pictures'"),
        ("image", {}, r"refresh image needs an encoder\. Name one with --image-encoder"),
        ("text", {"min_interactions": 6}, r"--min-interactions cannot change when only text .* got 6\. It stays as in"),
        (
            "clusters",
            {"text_width": 5},
            r"--text-width cannot change when only clusters features are made again, got 5",
        ),
    ],
)
def test_what_cannot_be_refreshed(
    base: PreparedDataset, again: Prepare, kind: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        again(kind, **options)


def test_options_of_the_version_itself_are_no_change(base: PreparedDataset, again: Prepare) -> None:
    assert again("text", text_width=5, tie_order="item").version == again("text", text_width=5).version


def test_nothing_to_make_features_from(
    write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, again: Prepare
) -> None:
    with pytest.raises(DataError, match="'toy' is not prepared"):
        again("text")
    write_inter(toy_rows)
    prepare_toy()
    with pytest.raises(DataError, match="refresh text found no text of items to make vectors from"):
        again("text")
    with pytest.raises(DataError, match="refresh clusters found neither text nor image vectors"):
        again("clusters")


def test_a_disk_without_links_gets_copies(
    base: PreparedDataset, again: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("athwe_core.data.refresh.os.link", refuse)
    new = again("text", text_width=5)
    assert changed(base, new) == {path.name for path in new.path.iterdir()} - {"checked.json"}
    assert (new.path / "items.parquet").read_bytes() == (base.path / "items.parquet").read_bytes()


@pytest.mark.parametrize(
    "change", [{"features": {"text": None, "image": None}}, {"features": {}}, {"features": {"text": 5}}]
)
def test_a_manifest_that_does_not_tell_of_the_features_is_damaged(
    base: PreparedDataset, again: Callable[..., PreparedDataset], change: dict[str, object]
) -> None:
    manifest = json.loads((base.path / "manifest.json").read_text())
    del manifest["files"]  # as in version 0.1.0
    manifest["statistics"].update(change)
    (base.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        DataError, match=rf"{base.version} is damaged \(manifest\.json: .* Delete that folder and run: athwe"
    ):
        again("clusters", clusters=3)


def test_a_manifest_whose_refreshes_are_no_list_is_damaged(
    base: PreparedDataset, again: Callable[..., PreparedDataset]
) -> None:
    manifest = json.loads((base.path / "manifest.json").read_text())
    del manifest["files"]  # as in version 0.1.0
    for refreshed, why in (({"step": 1}, "refreshed is a dict"), ([], "list index"), ([5], "'int' object")):
        (base.path / "manifest.json").write_text(json.dumps(manifest | {"refreshed": refreshed}))
        with pytest.raises(DataError, match=rf"is damaged \(manifest\.json: {why}"):
            again("clusters", clusters=3)
