import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from athwe_core.data.features import encode_images as encode_module
from athwe_core.data.features import resumable
from athwe_core.data.features.encode_images import ImageEncoder, encode_images, load_image_encoder
from athwe_core.data.features.encoders import find_model
from athwe_core.data.features.image_files import ImageSource
from athwe_core.errors import DataError

SaveModel = Callable[..., Path]
ITEMS = ["a", "b", "tiny", "grey", "broken", "absent", "long"]


def load(folder: Path, **settings: Any) -> ImageEncoder:
    files = find_model(str(folder), option="image_encoder")
    return load_image_encoder(files, **({"device": "cpu", "precision": "fp32"} | settings))


def picture(seed: int, *size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "a.png": encoded(picture(0, 40, 50)),
    "b.png": encoded(picture(1, 33, 20)),
    "tiny.png": encoded(picture(2, 3, 1)),
    "grey.png": encoded(picture(3, 20, 20).convert("L")),
    "broken.png": encoded(picture(4, 20, 20))[:200],
    "long.png": encoded(picture(5, 1, 2000)),
}


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return ImageSource.open(folder)


@pytest.fixture(scope="module")
def vit(save_model: SaveModel) -> ImageEncoder:
    return load(save_model("vit"))


def alone(encoder: ImageEncoder, image: Image.Image) -> Any:
    """Outputs of the model for one picture by itself."""
    pixels = encoder.processor(images=[image], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return encoder.encoder.model(pixel_values=pixels)


@pytest.mark.parametrize(
    ("kind", "pooling", "width"),
    [
        ("vit", "cls", 16),
        ("clip tower", "pooled", 16),
        ("clip projection", "features", 12),
        ("siglip tower", "pooled", 16),
        ("clip", "features", 12),
    ],
)
def test_every_kind_of_tower_by_hand(
    save_model: SaveModel, source: ImageSource, tmp_path: Path, kind: str, pooling: str, width: int
) -> None:
    encoder = load(save_model(kind))
    assert encoder.pooling == pooling
    found = encode_images(["b", "a"], source, encoder, place=tmp_path)
    assert found.vectors.shape == (2, width)
    image = picture(0, 40, 50)
    if kind == "clip":
        pixels = encoder.processor(images=[image], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            expected = encoder.encoder.model.get_image_features(pixel_values=pixels).pooler_output[0]
    else:
        outputs = alone(encoder, image)
        expected = {
            "vit": lambda: outputs.last_hidden_state[0, 0],
            "clip projection": lambda: outputs.image_embeds[0],
        }.get(kind, lambda: outputs.pooler_output[0])()
    np.testing.assert_allclose(found.vectors[1], expected.numpy(), atol=1e-5)
    assert np.abs(found.vectors[0] - found.vectors[1]).max() > 1e-3


def test_broken_and_missing_pictures_are_listed_and_zero(
    vit: ImageEncoder, source: ImageSource, tmp_path: Path
) -> None:
    found = encode_images(ITEMS, source, vit, place=tmp_path)
    assert found.missing == ["absent"]
    assert found.broken == ["broken", "long"]
    assert found.vectors.any(axis=1).tolist() == [True, True, True, True, False, False, False]


def test_vectors_follow_their_items_in_any_order(vit: ImageEncoder, source: ImageSource, tmp_path: Path) -> None:
    straight = encode_images(ITEMS, source, vit, place=tmp_path).vectors
    reverse = encode_images(ITEMS[::-1], source, vit, place=tmp_path / "other").vectors
    np.testing.assert_array_equal(reverse, straight[::-1])


def test_a_killed_run_goes_on_and_still_knows_what_was_broken(
    vit: ImageEncoder, source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "SHARD_ROWS", 3)
    monkeypatch.setattr(encode_module, "BATCH_IMAGES", 2)
    whole = encode_images(ITEMS, source, vit, place=tmp_path / "whole")

    def stop(_what: str, done: int, _total: int, _rate: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_images(ITEMS, source, vit, place=tmp_path, progress=stop)
    opened = ImageSource.open(source.path)
    resumed = encode_images(ITEMS, opened, vit, place=tmp_path)
    assert opened.broken == []  # its shard came from disk
    assert resumed.broken == whole.broken
    np.testing.assert_array_equal(resumed.vectors, whole.vectors)


def test_a_changed_picture_is_encoded_again(vit: ImageEncoder, source: ImageSource, tmp_path: Path) -> None:
    first = encode_images(["a", "b"], source, vit, place=tmp_path)
    (source.path / "a.png").write_bytes(FILES["b.png"])
    second = encode_images(["a", "b"], ImageSource.open(source.path), vit, place=tmp_path)
    assert second.shards.folder != first.shards.folder
    np.testing.assert_array_equal(second.vectors[0], first.vectors[1])


def test_folder_and_archive_of_the_same_pictures_share_shards(
    vit: ImageEncoder, source: ImageSource, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    archived = ImageSource.open(tmp_path / "p.zip")
    assert archived.fingerprint() == source.fingerprint()
    folders = {encode_images(ITEMS, found, vit, place=tmp_path).shards.folder for found in (source, archived)}
    assert len(folders) == 1


def test_a_tower_without_a_vector_of_the_whole_image(save_model: SaveModel, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(save_model("vit"), tmp_path / "text"))
    bert = save_model("bert")
    shutil.copy(bert / "model.safetensors", folder / "model.safetensors")
    config = json.loads((bert / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(DataError, match="image_encoder text must take pictures, got 'BertModel'"):
        load(folder)


def test_facts_and_silence(
    save_model: SaveModel, source: ImageSource, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = encode_images(ITEMS, source, load(save_model("siglip tower")), place=tmp_path)
    assert capfd.readouterr() == ("", "")
    assert found.facts.keys() == {"id", "revision", "precision", "library", "pooling"}
    assert (found.facts["id"], found.facts["pooling"]) == ("siglip-tower", "pooled")


def test_progress_counts_pictures(vit: ImageEncoder, source: ImageSource, tmp_path: Path) -> None:
    said: list[tuple[str, int, int, float]] = []
    encode_images(ITEMS, source, vit, place=tmp_path, progress=lambda *facts: said.append(facts))
    assert said[-1][:3] == ("encoding images", 6, 6)
    assert said[-1][3] > 0
