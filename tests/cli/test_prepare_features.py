"""`athwe prepare`: encoders, pictures, clusters and refresh on the command line."""

import json
import shutil
from pathlib import Path

import pytest
from cli_runner import call, one_error_line

from athwe_cli.progress import WorkDisplay
from athwe_cli.render import Output

SMALL_DEMO = ("prepare", "--dataset", "demo", "--users", "100", "--items", "100")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small demo data set, prepared."""
    folder = tmp_path_factory.mktemp("features")
    result = call(folder, *SMALL_DEMO)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def world(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "world"))


def test_text_encoder_shows_progress_and_names_itself(world: Path, bert: Path) -> None:
    result = call(
        world,
        *(*SMALL_DEMO, "--text-columns", "title", "--text-encoder", str(bert), "--text-pooling", "mean", "--json"),
        *("--text-max-tokens", "6", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)["features"]["text"]
    assert facts["source"].startswith("bert (mean) from title of")
    assert (facts["width"], facts["encoder"]["max_tokens"]) == (16, 6)
    lines = result.stderr.splitlines()
    assert "encoding texts" in lines
    assert any(line.startswith("encoding texts: ") and line.endswith("/s") for line in lines)


def test_an_interrupt_says_that_the_work_is_kept(world: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from athwe_core.data.features.resumable import Shards

    rows = Shards.rows

    def stop(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
        rows(self, *arguments, **keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(Shards, "rows", stop)
    arguments = ("--text-columns", "title", "--text-encoder", str(bert), "--device", "cpu")
    result = call(world, *SMALL_DEMO, *arguments)
    assert result.exit_code == 130
    assert "interrupted: what was encoded or fetched is kept, the same command goes on from there" in result.stderr
    monkeypatch.setattr(Shards, "rows", rows)
    assert len(list((world / "prepared" / "demo").glob(".shards-*"))) == 1
    assert call(world, *SMALL_DEMO, *arguments).exit_code == 0
    assert not list((world / "prepared" / "demo").glob(".shards-*"))


def test_refresh_clusters(world: Path) -> None:
    result = call(world, "prepare", "--dataset", "demo", "--refresh", "clusters", "--clusters", "7", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["clusters"] == {"text": 7, "image": 7}
    assert "clusters features of version" in result.stderr
    shown = call(world, "prepare", "--dataset", "demo", "--refresh", "clusters", "--clusters", "7")
    assert "text 7, image 7" in shown.stdout
    assert "has these clusters features already" in shown.stderr


def test_refresh_image_from_a_folder(world: Path, save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "pictures" / "nobody.png")
    model = save_model("siglip tower")
    arguments = ("--refresh", "image", "--image-encoder", str(model), "--images", str(tmp_path / "pictures"), "--json")
    result = call(world, "prepare", "--dataset", "demo", *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["features"]["image"]
    assert found["source"] == "siglip-tower (pooled) from pictures"
    assert found["missing"] == json.loads(result.stdout)["items"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--text-pooling", "max"], 2, "--text-pooling must be one of cls, mean, got 'max'"),
        (["--text-max-tokens", "0"], 2, "--text-max-tokens must be a whole number >= 1, got 0"),
        (["--clusters", "-1"], 2, "clusters must be a whole number >= 0, got -1"),
        (["--text-encoder", ""], 2, "--text-encoder must name a model or a folder, got ''"),
        (["--text-encoder", "./absent", "--text-columns", "title"], 3, "There is no such folder"),
        (["--refresh", "image"], 2, "refresh image needs an encoder. Name one with --image-encoder"),
        (["--refresh", "titles"], 2, "refresh must be one of text, image, clusters, got 'titles'"),
        (
            ["--refresh", "text", "--min-interactions", "7"],
            2,
            "--min-interactions cannot change when only text features",
        ),
        (
            ["--refresh", "text", "--raw", "x"],
            2,
            "--refresh makes features of what is prepared already and reads no --raw",
        ),
        (["--images", "x"], 2, "images is for an image encoder. Name one with --image-encoder"),
        (["--image-column", "x"], 2, "image_column is for an image encoder. Name one with --image-encoder"),
        (["--download-images", "to"], 3, "the demo catalogue has no column image_url"),
    ],
)
def test_mistakes_are_one_line(world: Path, arguments: list[str], code: int, message: str) -> None:
    result = call(world, "prepare", "--dataset", "demo", *arguments)
    assert result.exit_code == code, result.output
    assert message in one_error_line(result)


def test_lines_of_progress_elsewhere_than_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("athwe_cli.progress.time.monotonic", lambda: now[0])
    display = WorkDisplay(Output(as_json=False))
    for done in range(1, 101):
        now[0] += 1
        display("encoding texts", done, 100, 2.0)
    display("clustering text vectors", 0, 0, 0.0)
    display("clustering text vectors", 3, 0, 0.0)
    display.close()
    assert capsys.readouterr().err.splitlines() == [
        "encoding texts",
        "encoding texts: 22 of 100, 2.0/s, 39 s left",
        "encoding texts: 43 of 100, 2.0/s, 28 s left",
        "encoding texts: 64 of 100, 2.0/s, 18 s left",
        "encoding texts: 85 of 100, 2.0/s, 8 s left",
        "encoding texts: 100 of 100, 2.0/s",
        "clustering text vectors",
    ]


def test_layer_states_are_kept_for_models_that_adapt_to_encoders(world: Path, bert: Path) -> None:
    """In half precision, through a refresh of something else, and into the model."""
    import numpy as np

    from athwe_core.data.store.dataset import open_prepared
    from athwe_core.models.inputs import available_inputs, make_catalogue
    from athwe_core.models.registry import build_config, replace_in

    texts = ("--text-columns", "title", "--text-encoder", str(bert), "--text-layers", "0, 2", "--device", "cpu")
    result = call(world, *SMALL_DEMO, *texts, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["features"]["text"]["encoder"]["layers"] == [0, 2]
    assert call(world, "prepare", "--dataset", "demo", "--refresh", "clusters", "--clusters", "3").exit_code == 0
    found = open_prepared("demo", prepared_dir=world / "prepared", check_all=True)
    assert found.text_layers is not None
    assert (found.text_layers.shape, found.text_layers.dtype) == ((found.num_item_rows, 2, 16), np.float16)
    assert not found.text_layers[0].any()
    np.testing.assert_allclose(found.text_layers[1:, 1], found.text_features[1:] / _scale(found), atol=2e-3, rtol=2e-3)
    assert available_inputs(found).layer_states == {"text"}
    config = replace_in(build_config("iisan"), ["model.towers=[text]"])
    assert make_catalogue(found, config).layer_states["text"].shape == found.text_layers.shape
    assert make_catalogue(found, build_config("unisrec")).layer_states == {}
    trained = call(world, *("train", "--dataset", "demo", "--preset", "iisan", "--epochs", "1", "--device", "cpu"))
    assert trained.exit_code == 0, trained.output
    assert "has no layer states of its image encoder" in trained.stderr


def _scale(found):  # type: ignore[no-untyped-def]
    return found.statistics["features"]["text"]["scale"]["factor"]


@pytest.mark.parametrize(
    ("layers", "rule"),
    [
        ("two", "--text-layers must be layer numbers, separated by commas"),
        ("2,1", "--text-layers must be increasing layer numbers, from 0"),
        ("0,9", "--text-layers must be in 0..2, the layers of the encoder"),
    ],
)
def test_wrong_layers_are_refused(world: Path, bert: Path, layers: str, rule: str) -> None:
    texts = ("--text-columns", "title", "--text-encoder", str(bert), "--text-layers", layers, "--device", "cpu")
    assert rule in one_error_line(call(world, *SMALL_DEMO, *texts))


def test_layers_need_an_encoder(world: Path) -> None:
    assert "--image-layers needs --image-encoder" in one_error_line(call(world, *SMALL_DEMO, "--image-layers", "0"))
