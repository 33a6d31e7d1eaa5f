"""What is given, what is made and from which pictures: through `prepare`, as a user meets it."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from athwe_core.data.features import build as work_module
from athwe_core.data.features.build import EncodingSettings
from athwe_core.data.features.clusters import cluster_labels
from athwe_core.data.features.collect import PROBLEMS
from athwe_core.data.features.download import Limits
from athwe_core.data.features.encode_images import load_image_encoder
from athwe_core.data.features.encode_text import encode_texts, load_text_encoder
from athwe_core.data.features.encoders import find_model
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.errors import ConfigError, DataError

SaveModel = Callable[..., Path]
CODED = np.arange(7, dtype=np.float32)[:, None] * [1, 10]  # row k says k
CPU = EncodingSettings(device="cpu")


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Toy:
    """The data set `toy` with an item table, prepared again and again."""

    def __init__(self, folder: Path, prepared_dir: Path) -> None:
        self.folder, self.prepared_dir = folder, prepared_dir
        self.said: list[str] = []

    def items(self, **columns: list[str]) -> None:
        """Write `toy.item` for i0..i5."""
        names = ["item_id:token", *(f"{name}:token_seq" for name in columns)]
        rows = zip([f"i{number}" for number in range(6)], *columns.values(), strict=True)
        (self.folder / "toy.item").write_text("\n".join("\t".join(row) for row in [names, *rows]))

    def prepare(self, encoding: EncodingSettings = CPU, **options: object) -> PreparedDataset:
        self.said.clear()
        return prepare(
            "toy",
            data_dir=self.folder.parent,
            prepared_dir=self.prepared_dir,
            options=PrepareOptions(**options),  # type: ignore[arg-type]
            encoding=encoding,
            notify=self.said.append,
        )


@pytest.fixture
def toy(write_inter: Callable[..., Path], toy_rows: list[tuple[str, str, object]], tmp_path: Path) -> Toy:
    found = Toy(write_inter(toy_rows), tmp_path / "prepared")
    found.items(title=["red train", "blue doll", "red castle", "", "toy a", "toy b"], plot=list("abcdef"))
    return found


@pytest.fixture(scope="session")
def vit(save_model: SaveModel) -> Path:
    return save_model("vit")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with pictures of i0..i3, that of i3 broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        (folder / f"i{number}.png").write_bytes(png(number)[: 100 if number == 3 else None])
    return folder


def test_texts_go_through_the_encoder(toy: Toy, bert: Path) -> None:
    found = toy.prepare(text_encoder=str(bert), text_pooling="mean", text_max_tokens=8, keep_feature_scale=True)
    assert found.text_features is not None
    assert found.text_features.shape == (7, 16)
    encoder = load_text_encoder(
        find_model(str(bert), option="text_encoder"), pooling="mean", max_tokens=8, device="cpu"
    )
    expected = encode_texts(["blue doll", "toy b"], encoder, place=toy.prepared_dir / "x").vectors
    np.testing.assert_allclose(found.text_features[[2, 6]], expected, atol=1e-2)
    facts = found.statistics["features"]["text"]
    assert facts["source"] == "bert (mean) from title of toy.item"
    assert facts["missing"] == 1
    assert facts["encoder"] == encoder.facts()
    assert not list((toy.prepared_dir / "toy").glob(".shards-*"))
    json.dumps(found.manifest)


def test_the_version_follows_the_model_and_not_its_path(toy: Toy, bert: Path, save_model: SaveModel) -> None:
    import shutil

    first = toy.prepare(text_encoder=str(bert))
    moved = shutil.copytree(bert, toy.prepared_dir / "elsewhere" / "bert")
    assert toy.prepare(text_encoder=str(moved)).version == first.version
    assert toy.prepare(text_encoder=str(save_model("bert", num_hidden_layers=1))).version != first.version
    assert toy.prepare(text_encoder=str(bert), text_pooling="mean").version != first.version
    assert toy.prepare().version != first.version


def test_given_vectors_win_and_it_is_said_every_time(toy: Toy, bert: Path, vit: Path) -> None:
    plain = toy.prepare()
    np.save(toy.folder / "txt_emb.npy", CODED)
    np.save(toy.folder / "img_emb.npy", CODED)
    given = toy.prepare()
    for _ in range(2):
        found = toy.prepare(text_encoder=str(bert), image_encoder=str(vit))
        assert found.version == given.version != plain.version
        assert any(note.startswith("text vectors are given and win over text_encoder") for note in toy.said)
        assert any(note.startswith("image vectors are given and win over image_encoder") for note in toy.said)
    named = toy.prepare(text_encoder=str(bert), text_columns=("plot",))
    assert named.statistics["features"]["text"]["source"] == "bert (cls) from plot of toy.item"


def test_demo_keeps_what_it_planted(tmp_path: Path, bert: Path, vit: Path) -> None:
    small = PrepareOptions(demo_users=100, demo_items=100)
    places = {"data_dir": tmp_path, "prepared_dir": tmp_path / "prepared", "encoding": CPU}
    plain = prepare("demo", options=small, **places)  # type: ignore[arg-type]
    asked = replace(small, text_encoder=str(bert), image_encoder=str(vit))
    assert prepare("demo", options=asked, **places).version == plain.version  # type: ignore[arg-type]
    named = prepare("demo", options=replace(asked, text_columns=("title",)), **places)  # type: ignore[arg-type]
    assert named.statistics["features"]["text"]["source"].startswith("bert (cls) from title of")


def test_pictures_of_a_folder(toy: Toy, vit: Path, pictures: Path) -> None:
    found = toy.prepare(replace(CPU, images=pictures), image_encoder=str(vit), keep_feature_scale=True)
    assert found.image_features is not None
    assert found.image_features.any(axis=1).tolist() == [False, True, True, True, False, False, False]
    encoder = load_image_encoder(find_model(str(vit), option="image_encoder"), device="cpu")
    with Image.open(pictures / "i1.png") as picture:
        np.testing.assert_allclose(found.image_features[2], encoder.encode([picture])[0], atol=1e-2)
    assert found.statistics["features"]["image"]["missing"] == 3
    assert "2 items have no picture: i4, i5" in found.manifest["notes"]
    assert "1 items have a broken picture: i3" in found.manifest["notes"]
    assert (found.path / PROBLEMS).read_text() == "item_id\tproblem\ni3\tbroken\ni4\tmissing\ni5\tmissing\n"


def test_pictures_beside_the_interactions_and_their_content_in_the_version(toy: Toy, vit: Path, pictures: Path) -> None:
    named = toy.prepare(replace(CPU, images=pictures), image_encoder=str(vit))
    with zipfile.ZipFile(toy.folder / "images.zip", "w") as archive:
        for path in pictures.iterdir():
            archive.write(path, path.name)
    assert toy.prepare(image_encoder=str(vit)).version == named.version
    (pictures / "i0.png").write_bytes(png(9))
    assert toy.prepare(replace(CPU, images=pictures), image_encoder=str(vit)).version != named.version
    toy.prepare()
    assert "4 pictures are in images.zip: --image-encoder MODEL makes vectors of them" in toy.said


def test_an_encoder_without_pictures(toy: Toy, vit: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"image_encoder needs pictures: no images/ and no images\*\.zip in .*--images"
    ):
        toy.prepare(image_encoder=str(vit))
    with pytest.raises(DataError, match=r"toy\.item has no column cover; its columns are item_id, title, plot"):
        toy.prepare(image_encoder=str(vit), image_column="cover")


def test_pictures_that_are_not_where_they_should_be(toy: Toy, vit: Path, tmp_path: Path) -> None:
    absent = replace(CPU, images=tmp_path / "absent")
    for settings in ({}, {"image_column": "title"}):
        with pytest.raises(DataError, match=r"absent must be a folder or a zip archive of pictures named by item id"):
            toy.prepare(absent, image_encoder=str(vit), **settings)
    with pytest.raises(ConfigError, match=r"images is for an image encoder\. Name one with --image-encoder"):
        toy.prepare(absent)


def test_a_column_of_members_of_an_archive(toy: Toy, vit: Path, tmp_path: Path) -> None:
    toy.items(title=list("abcdef"), cover=["deep/er/x.png", "absent.png", "", "", "", ""])
    with zipfile.ZipFile(tmp_path / "covers.zip", "w") as archive:
        archive.writestr("deep/er/x.png", png(0))
    found = toy.prepare(
        replace(CPU, images=tmp_path / "covers.zip"),
        image_encoder=str(vit),
        image_column="cover",
        keep_feature_scale=True,
    )
    assert found.image_features is not None
    assert found.image_features.any(axis=1).tolist() == [False, True, *[False] * 5]
    assert "1 items have a broken picture: i1" in found.manifest["notes"]


def test_a_column_of_paths(toy: Toy, vit: Path, pictures: Path) -> None:
    names = ["below/x.png", str(pictures / "i1.png"), "", "absent.png", "", ""]
    toy.items(title=list("abcdef"), cover=names)
    (toy.folder / "below").mkdir()
    (toy.folder / "below" / "x.png").write_bytes(png(0))
    found = toy.prepare(image_encoder=str(vit), image_column="cover", keep_feature_scale=True)
    assert found.image_features is not None
    assert found.image_features.any(axis=1).tolist() == [False, True, True, False, False, False, False]
    by_id = toy.prepare(replace(CPU, images=pictures), image_encoder=str(vit), keep_feature_scale=True)
    np.testing.assert_array_equal(found.image_features[:3], by_id.image_features[:3])  # type: ignore[index]
    assert "1 items have a broken picture: i3" in found.manifest["notes"]  # named, and not there
    toy.items(title=list("abcdef"), cover=[""] * 6)
    with pytest.raises(DataError, match=r"column cover of toy\.item must hold paths or URLs of pictures, and is empty"):
        toy.prepare(image_encoder=str(vit), image_column="cover")


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of pictures /0, /1, ...; anything else is not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path[1:].isdecimal()
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(png(int(self.path[1:])))

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    monkeypatch.setattr(work_module, "Limits", lambda **settings: Limits(backoff_seconds=0.01, retries=1, **settings))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pictures_by_url(toy: Toy, vit: Path, url: str, tmp_path: Path) -> None:
    toy.items(title=list("abcdef"), image_url=[f"{url}/0", f"{url}/1", f"{url}/gone", "", "x.png", f"{url}/5"])
    with pytest.raises(ConfigError, match=r"column image_url of toy\.item holds 4 URLs; .* --download-images FOLDER"):
        toy.prepare(image_encoder=str(vit), image_column="image_url")
    to = tmp_path / "fetched"
    encoding = replace(CPU, download_to=to, allow_private_hosts=True)
    found = toy.prepare(encoding, image_encoder=str(vit))
    assert found.image_features is not None
    assert found.image_features.any(axis=1).tolist() == [False, True, True, False, False, False, True]
    assert f"pictures in {to}: 0 were there, 3 fetched" in toy.said
    assert f"1 pictures could not be fetched: see {to / 'failures.tsv'}" in toy.said
    assert "1 items have something else than a URL, which was not fetched" in toy.said
    again = toy.prepare(encoding, image_encoder=str(vit))
    assert again.version == found.version
    assert f"pictures in {to}: 3 were there, 0 fetched" in toy.said
    assert toy.prepare(replace(CPU, images=to), image_encoder=str(vit)).version == found.version


def test_this_machine_is_not_asked_for_pictures_by_default(toy: Toy, vit: Path, url: str, tmp_path: Path) -> None:
    toy.items(title=list("abcdef"), image_url=[f"{url}/{number}" for number in range(6)])
    found = toy.prepare(replace(CPU, download_to=tmp_path / "fetched"), image_encoder=str(vit))
    assert found.statistics["features"]["image"]["missing"] == 6
    assert "which is not public" in (tmp_path / "fetched" / "failures.tsv").read_text()


def test_clusters_are_made_where_asked_for_and_given_ones_win(toy: Toy) -> None:
    np.save(toy.folder / "txt_emb.npy", CODED)
    np.save(toy.folder / "img_emb.npy", np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32))
    np.save(toy.folder / "txt_clusters.npy", np.array([-1, 0, 0, 1, 1, 2, 2]))
    plain = toy.prepare()
    assert plain.image_clusters is None
    found = toy.prepare(clusters=3, seed=1)
    assert found.version != plain.version
    assert found.text_clusters is not None
    assert found.text_clusters.tolist() == [-1, 0, 0, 1, 1, 2, 2]
    assert found.image_clusters is not None
    assert found.image_features is not None
    assert found.image_clusters.tolist() == cluster_labels(found.image_features, k=3, seed=1).tolist()
    assert found.statistics["clusters"] == {"text": 3, "image": 3}
    assert found.manifest["clusters_made"] == {"image": {"k": 3, "seed": 1}}


def test_an_interrupted_preparation_keeps_what_it_encoded(toy: Toy, bert: Path) -> None:
    def stop(what: str, done: int, total: int, _rate: float) -> None:
        if what.startswith("clustering"):
            raise KeyboardInterrupt

    settings = {"text_encoder": str(bert), "clusters": 2}
    with pytest.raises(KeyboardInterrupt):
        toy.prepare(replace(CPU, progress=stop), **settings)
    (left,) = (toy.prepared_dir / "toy").glob(".shards-*")
    calls: list[tuple[str, int, float]] = []
    encoding = replace(CPU, progress=lambda what, done, total, rate: calls.append((what, done, rate)))
    toy.prepare(encoding, **settings)
    assert calls[0] == ("encoding texts", 5, 0.0)  # all from disk
    assert not left.exists()
