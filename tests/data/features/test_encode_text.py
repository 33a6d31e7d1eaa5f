import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from athwe_core.data.features import encode_text, resumable
from athwe_core.data.features.encode_text import TextEncoder, batches, encode_texts, load_text_encoder
from athwe_core.data.features.encoders import find_model
from athwe_core.errors import ConfigError, DataError

SaveModel = Callable[..., Path]
TEXTS = ["red train", "blue wooden castle puzzle toy a b c", "doll", "", "red train", "metal a b c d e f g h", "b"]


def load(folder: Path, **changes: Any) -> TextEncoder:
    settings = {"pooling": "cls", "max_tokens": 32, "device": "cpu", "precision": "fp32"} | changes
    return load_text_encoder(find_model(str(folder), option="text_encoder"), **settings)


@pytest.fixture(scope="module")
def encoder(bert: Path) -> TextEncoder:
    return load(bert)


def states_alone(encoder: TextEncoder, text: str) -> torch.Tensor:
    """(t, F) last states of one text by itself, through the model's own interface."""
    with torch.inference_mode():
        inputs = encoder.tokenizer(text, return_tensors="pt")
        return encoder.encoder.model(**inputs).last_hidden_state[0]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_by_hand_one_text_at_a_time(bert: Path, tmp_path: Path, pooling: str) -> None:
    encoder = load(bert, pooling=pooling)
    found = encode_texts(TEXTS, encoder, place=tmp_path)
    assert found.vectors.shape == (7, 16)
    assert found.vectors.dtype == np.float32
    for text, vector in zip(TEXTS, found.vectors, strict=True):
        if not text:
            assert not vector.any()
            continue
        states = states_alone(encoder, text)
        expected = states[0] if pooling == "cls" else states.mean(dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.vectors[0], found.vectors[4])


def test_vectors_follow_their_texts_in_any_order(encoder: TextEncoder, tmp_path: Path) -> None:
    order = list(range(len(TEXTS)))
    random.Random(0).shuffle(order)
    straight = encode_texts(TEXTS, encoder, place=tmp_path).vectors
    shuffled = encode_texts([TEXTS[row] for row in order], encoder, place=tmp_path / "other").vectors
    np.testing.assert_array_equal(shuffled, straight[order])


def test_facts_say_what_made_the_vectors(encoder: TextEncoder, bert: Path, tmp_path: Path) -> None:
    import transformers

    found = encode_texts(TEXTS, encoder, place=tmp_path)
    revision = find_model(str(bert), option="text_encoder").revision
    assert len(revision) == 12
    assert found.facts == {
        **{"id": "bert", "revision": revision, "precision": "float32", "pooling": "cls", "max_tokens": 32},
        "library": f"transformers {transformers.__version__}",
    }


def test_long_texts_are_cut_and_counted(bert: Path, tmp_path: Path) -> None:
    found = encode_texts(TEXTS, load(bert, max_tokens=5), place=tmp_path)
    assert found.num_full == 2
    cut = encode_texts(["blue wooden castle"], load(bert), place=tmp_path).vectors[0]
    np.testing.assert_allclose(found.vectors[1], cut, atol=1e-6)


def test_the_models_own_positions_limit_the_tokens(bert: Path, save_model: SaveModel, tmp_path: Path) -> None:
    assert load(bert, max_tokens=512).max_tokens == 32
    roberta = load(save_model("roberta", max_position_embeddings=10), max_tokens=512, pooling="mean")
    assert roberta.max_tokens == 8  # numbering starts behind the padding's number 1
    assert np.isfinite(encode_texts(["a b c d e f g h " * 3], roberta, place=tmp_path).vectors).all()


class Counted:
    """Counts batches, and stops the run after some of them, as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.calls = stop_after, 0

    def __call__(self, what: str, done: int, total: int, per_second: float) -> None:
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "SHARD_ROWS", 4)
    monkeypatch.setattr(encode_text, "BATCH_TEXTS", 2)


@pytest.mark.usefixtures("small_shards")
def test_a_killed_run_goes_on_where_it_stopped(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{a} {b}" for a in "abcd" for b in "efgh"]
    whole = encode_texts(texts, encoder, place=tmp_path / "whole").vectors
    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, encoder, place=tmp_path, progress=Counted(stop_after=6))  # in the third of four shards
    (left,) = tmp_path.glob(".shards-*")
    assert [path.name for path in sorted(left.iterdir())] == ["000000.npy", "000001.npy"]
    encoded: list[int] = []
    inner = TextEncoder.encode
    monkeypatch.setattr(
        TextEncoder, "encode", lambda self, tokens: [encoded.append(len(tokens)), inner(self, tokens)][1]
    )
    resumed = encode_texts(texts, encoder, place=tmp_path)
    assert sum(encoded) == 8 + 1  # and one to learn the width
    np.testing.assert_array_equal(resumed.vectors, whole)
    assert resumed.shards.folder == left
    resumed.shards.remove()
    assert not left.exists()


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"not an array"])
def test_a_torn_shard_is_computed_again(encoder: TextEncoder, tmp_path: Path, damage: bytes) -> None:
    texts = list("abcdefgh")
    first = encode_texts(texts, encoder, place=tmp_path)
    (first.shards.folder / "000001.npy").write_bytes(damage)
    np.testing.assert_array_equal(encode_texts(texts, encoder, place=tmp_path).vectors, first.vectors)


def test_other_texts_models_and_settings_never_share_shards(bert: Path, save_model: SaveModel, tmp_path: Path) -> None:
    other = save_model("bert", num_hidden_layers=1)
    runs = [
        (TEXTS, load(bert)),
        (TEXTS[:-1], load(bert)),
        (TEXTS, load(bert, pooling="mean")),
        (TEXTS, load(bert, max_tokens=6)),
        (TEXTS, load(bert, precision="bf16")),
        (TEXTS, load(other)),
    ]
    folders = {encode_texts(texts, encoder, place=tmp_path).shards.folder for texts, encoder in runs}
    assert len(folders) == len(runs)
    assert encode_texts(TEXTS[::-1], load(bert), place=tmp_path).shards.folder in folders


def test_progress_counts_texts(encoder: TextEncoder, tmp_path: Path) -> None:
    said: list[tuple[str, int, int, float]] = []
    encode_texts(TEXTS, encoder, place=tmp_path, progress=lambda *facts: said.append(facts))
    assert said[-1][:3] == ("encoding texts", 5, 5)
    assert said[-1][3] > 0
    encode_texts(TEXTS, encoder, place=tmp_path, progress=lambda *facts: said.append(facts))
    assert said[-1] == ("encoding texts", 5, 5, 0.0)  # all from disk


def test_bf16_is_near_float32(bert: Path, tmp_path: Path) -> None:
    exact = encode_texts(TEXTS, load(bert), place=tmp_path)
    rounded = encode_texts(TEXTS, load(bert, precision="bf16"), place=tmp_path)
    assert rounded.facts["precision"] == "bfloat16"
    assert rounded.vectors.dtype == np.float32
    np.testing.assert_allclose(rounded.vectors, exact.vectors, atol=0.15)
    assert (rounded.vectors != exact.vectors).any()


def test_batches_hold_a_bounded_number_of_padded_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_text, "BATCH_TOKENS", 20)
    monkeypatch.setattr(encode_text, "BATCH_TEXTS", 6)
    lengths = [30, 9, 8, 4, 4, 4, 3, 3, *([1] * 8)]
    found = [[len(row) for row in batch] for batch in batches([np.zeros(length, np.int32) for length in lengths])]
    assert found == [[30], [9, 8], [4, 4, 4, 3, 3], [1] * 6, [1] * 2]


def test_text_side_of_clip_gives_its_shared_space(save_model: SaveModel, tmp_path: Path) -> None:
    encoder = load(save_model("clip"), pooling="mean")
    assert encoder.pooling == "features"
    found = encode_texts(["red train", "doll castle toy a"], encoder, place=tmp_path).vectors
    assert found.shape == (2, 12)
    with torch.inference_mode():
        inputs = encoder.tokenizer("red train", return_tensors="pt", return_token_type_ids=False)
        alone = encoder.encoder.model.get_text_features(**inputs).pooler_output[0]
    np.testing.assert_allclose(found[0], alone.numpy(), atol=1e-5)


def test_first_position_needs_a_token_for_it(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "plain"))
    facts = json.loads((folder / "tokenizer_config.json").read_text())
    del facts["cls_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(facts | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(
        ConfigError, match=r"text_pooling must be mean for plain, which has no \[CLS\] token, got 'cls'"
    ):
        load(folder)
    assert load(folder, pooling="mean").pooling == "mean"


def test_no_text_at_all_is_an_error(encoder: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text_encoder found no text to encode\. Name columns"):
        encode_texts(["", ""], encoder, place=tmp_path)


def test_nothing_is_printed(bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encode_texts(TEXTS, load(bert), place=tmp_path)
    assert capfd.readouterr() == ("", "")
