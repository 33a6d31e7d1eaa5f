"""States of encoders' layers: by hand from the models' own outputs, and their faults."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from athwe_core.data.features.encode_images import encode_images, load_image_encoder
from athwe_core.data.features.encode_text import encode_texts, load_text_encoder
from athwe_core.data.features.encoders import find_model
from athwe_core.data.features.image_files import ImageSource
from athwe_core.data.features.layer_states import pooled_layers, split_layers
from athwe_core.errors import ConfigError

SaveModel = Callable[..., Path]
TEXTS = ["red train", "", "blue wooden castle puzzle"]


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "cls"), ("bert", "mean"), ("clip", "cls")])
def test_states_of_texts_by_hand(save_model: SaveModel, tmp_path: Path, kind: str, pooling: str) -> None:
    files = find_model(str(save_model(kind)), option="text_encoder")
    settings = {"pooling": pooling, "max_tokens": 32, "device": "cpu", "precision": "fp32"}
    encoder = load_text_encoder(files, layers=(0, 2), **settings)
    found = encode_texts(TEXTS, encoder, place=tmp_path / "with")
    plain = encode_texts(TEXTS, load_text_encoder(files, **settings), place=tmp_path / "without")
    np.testing.assert_allclose(found.vectors, plain.vectors, atol=1e-5)
    assert plain.layers is None
    assert found.layers is not None
    assert found.layers.shape == (3, 2, 16)
    assert not found.layers[1].any()
    assert found.facts == plain.facts | {"layers": [0, 2]}
    model = encoder.encoder.model.text_model if kind == "clip" else encoder.encoder.model
    for row in (0, 2):
        with torch.inference_mode():
            hidden = model(
                **encoder.tokenizer(TEXTS[row], return_tensors="pt"), output_hidden_states=True
            ).hidden_states
        for number, layer in enumerate((0, 2)):
            states = hidden[layer][0]
            expected = {"cls": states[0], "mean": states.mean(0), "features": states[-1]}[encoder.pooling]
            np.testing.assert_allclose(found.layers[row, number], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "clip", "siglip tower"])
def test_states_of_pictures_by_hand(save_model: SaveModel, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    picture.save(folder / "a.png")
    files, source = find_model(str(save_model(kind)), option="image_encoder"), ImageSource.open(folder)
    encoder = load_image_encoder(files, layers=(1, 2), device="cpu", precision="fp32")
    found = encode_images(["a", "absent"], source, encoder, place=tmp_path)
    plain = load_image_encoder(files, device="cpu", precision="fp32")
    np.testing.assert_allclose(
        found.vectors, encode_images(["a", "absent"], source, plain, place=tmp_path).vectors, atol=1e-5
    )
    assert found.layers is not None
    assert not found.layers[1].any()
    assert found.missing == ["absent"]
    tower = encoder.encoder.model.vision_model if kind == "clip" else encoder.encoder.model
    pixels = encoder.processor(images=[picture], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        hidden = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    for number, layer in enumerate((1, 2)):
        expected = hidden[layer][0].mean(0) if kind == "siglip tower" else hidden[layer][0, 0]
        np.testing.assert_allclose(found.layers[0, number], expected.numpy(), atol=1e-5)


def test_a_layer_that_the_encoder_lacks_is_refused(bert: Path) -> None:
    files = find_model(str(bert), option="text_encoder")
    with pytest.raises(ConfigError, match=r"^--text-layers must be in 0\.\.2, the layers of the encoder, got 3$"):
        load_text_encoder(files, pooling="cls", max_tokens=8, layers=(0, 3), device="cpu")


def test_an_encoder_without_states_of_positions_is_refused() -> None:
    for hidden in (None, [torch.ones(1, 2, 3, 3)]):
        with pytest.raises(ConfigError, match="--image-layers needs an encoder that is a Transformer"):
            pooled_layers(hidden, [0], lambda states: states[:, 0], option="--image-layers")


def test_rows_are_split_into_vectors_and_states() -> None:
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    vectors, layers = split_layers(rows, 2, 2)
    assert vectors.tolist() == [[0, 1], [8, 9]]
    assert layers is not None
    assert layers.tolist() == [[[2, 3, 4], [5, 6, 7]], [[10, 11, 12], [13, 14, 15]]]
    whole, none = split_layers(rows, 0, 8)
    assert none is None
    assert whole is rows
