"""Tiny models with random weights, saved as users have them: no network, nothing learned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "red", "blue", "wooden", "metal", "train", "doll", "castle", "puzzle", "toy", *"abcdefgh"]
TEXT_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SaveModel = Callable[..., Path]


def _save_tokenizer(folder: Path) -> None:
    import transformers

    transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)


def _save_processor(folder: Path, kind: str) -> None:
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    size = {"size": {"shortest_edge": 32}, **crop} if kind == "CLIP" else {"size": {"height": 32, "width": 32}}
    facts = {"image_processor_type": f"{kind}ImageProcessor", "do_resize": True, "do_normalize": True, **size}
    facts |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, "do_rescale": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> SaveModel:
    """Save a tiny model of one kind to a folder of its own and return the folder."""
    import torch
    import transformers

    def make(kind: str, **sizes: Any) -> Any:
        t = transformers
        vision = {"image_size": 32, "patch_size": 8, **TEXT_SIZES}
        text = {"vocab_size": len(WORDS), "max_position_embeddings": 32, **TEXT_SIZES}
        both = {"text_config": {**text, "eos_token_id": 3}, "vision_config": vision, "projection_dim": 12}
        return {
            "bert": lambda: t.BertModel(t.BertConfig(**(text | sizes))),
            "roberta": lambda: t.RobertaModel(t.RobertaConfig(**(text | {"pad_token_id": 1} | sizes))),
            "clip": lambda: t.CLIPModel(t.CLIPConfig(**both)),
            "vit": lambda: t.ViTModel(t.ViTConfig(**vision)),
            "clip tower": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**vision)),
            "clip projection": lambda: t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**vision, projection_dim=12)),
            "siglip tower": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**vision)),
        }[kind]()

    def save(kind: str, **sizes: Any) -> Path:
        from athwe_core.data.features.encoders import quiet

        folder = tmp_path_factory.mktemp("model") / kind.replace(" ", "-")
        with torch.random.fork_rng(), quiet():
            torch.manual_seed(0)
            model = make(kind, **sizes)
            for parameter in model.parameters():  # the small weights of a fresh model hide what went wrong
                torch.nn.init.normal_(parameter, 0, 0.3)
            model.save_pretrained(folder)
        if kind in ("bert", "roberta", "clip"):
            _save_tokenizer(folder)
        if kind not in ("bert", "roberta"):
            _save_processor(folder, {"vit": "ViT", "siglip tower": "Siglip"}.get(kind, "CLIP"))
        return folder

    return save


@pytest.fixture(scope="session")
def bert(save_model: SaveModel) -> Path:
    """A BERT of width 16 with 32 positions."""
    return save_model("bert")
