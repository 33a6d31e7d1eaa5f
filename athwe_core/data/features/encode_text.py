"""Item texts to vectors by a neural encoder: like lengths batched together, equal texts once, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from athwe_core.data.features.encoders import SAFE, Encoder, ModelFiles, load_encoder, loading, quiet
from athwe_core.data.features.layer_states import pooled_layers, split_layers
from athwe_core.data.features.resumable import Shards, WorkProgress, say_nothing
from athwe_core.errors import ConfigError, DataError

OPTION = "text_encoder"
BATCH_TOKENS = 8192
BATCH_TEXTS = 256
_TOKENIZE_AT_ONCE = 4096
_NO_LIMIT = 1_000_000  # transformers writes 1e30 where a tokenizer states no limit
_FORMAT = 1  # raise when the same model and texts give other vectors


@dataclass(frozen=True)
class TextEncoder:
    """A text model with its tokenizer.

    Attributes:
        encoder: The loaded model.
        tokenizer: Pads at the right.
        pooling: `cls` (first position), `mean` (over the real positions) or `features` (the text side of a model of text
            and images, as CLIP, which pools and projects itself).
        max_tokens: Longer texts are cut: the smallest of what was asked for and what model and tokenizer allow.
        layers: Layers whose states follow the vector, 0 = the embedding output.
    """

    encoder: Encoder
    tokenizer: Any
    pooling: str
    max_tokens: int
    layers: tuple[int, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What the manifest says."""
        layers = {"layers": list(self.layers)} if self.layers else {}
        return {**self.encoder.facts(), "pooling": self.pooling, "max_tokens": self.max_tokens, **layers}

    def tokenize(self, texts: list[str]) -> list[Int32[np.ndarray, "t"]]:
        """Token ids with special tokens, cut at `max_tokens`."""
        found: list[Int32[np.ndarray, "t"]] = []
        for start in range(0, len(texts), _TOKENIZE_AT_ONCE):
            part = texts[start : start + _TOKENIZE_AT_ONCE]
            ids = self.tokenizer(part, truncation=True, max_length=self.max_tokens, return_attention_mask=False)
            found += [np.array(row, dtype=np.int32) for row in ids["input_ids"]]
        return found

    def encode(self, tokens: list[Int32[np.ndarray, "t"]]) -> Float32[np.ndarray, "n F"]:
        """Vectors of one batch of token ids, padded to the longest; states of the layers follow each vector."""
        import torch  # noqa: PLC0415

        fixed = self.encoder.model.config.model_type.startswith("siglip")  # learned with padding seen, at full length
        length = self.max_tokens if fixed else max(len(row) for row in tokens)
        ids = torch.full((len(tokens), length), int(self.tokenizer.pad_token_id or 0))
        mask = torch.zeros((len(tokens), length), dtype=torch.long)
        for number, row in enumerate(tokens):
            ids[number, : len(row)] = torch.from_numpy(row)
            mask[number, : len(row)] = 1
        ids, mask = ids.to(self.encoder.device), mask.to(self.encoder.device)
        with self.encoder.computing():
            vectors = [self._pool(ids, None if fixed else mask).float()]
            if self.layers:
                vectors += self._layer_states(ids, mask, is_padding_seen=fixed)
        return torch.cat(vectors, dim=1).cpu().numpy()

    def _layer_states(self, ids: Any, mask: Any, *, is_padding_seen: bool) -> list[Any]:
        """Pooled states of the layers; a model of text and images pools at the last token."""
        model = self.encoder.model.text_model if self.pooling == "features" else self.encoder.model
        arguments = {"input_ids": ids} | ({} if is_padding_seen else {"attention_mask": mask})
        outputs = model(**arguments, output_hidden_states=True)

        def pool(states: Any) -> Any:
            if self.pooling == "cls":
                return states[:, 0]
            if self.pooling == "mean":
                return (states.float() * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            return states[:, -1] if is_padding_seen else states[range(len(ids)), mask.sum(dim=1) - 1]

        return pooled_layers(outputs.hidden_states, self.layers, pool, option="--text-layers")

    def _pool(self, ids: Any, mask: Any) -> Any:
        model = self.encoder.model
        arguments = {"input_ids": ids} | ({} if mask is None else {"attention_mask": mask})
        if self.pooling == "features":
            found = model.get_text_features(**arguments)
            return getattr(found, "pooler_output", found)
        states = model(**arguments).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        return (states.float() * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def load_text_encoder(
    files: ModelFiles,
    *,
    pooling: str,
    max_tokens: int,
    layers: tuple[int, ...] = (),
    device: str = "auto",
    precision: str = "auto",
) -> TextEncoder:
    """Load a text model with its tokenizer.

    Args:
        files: From `find_model`.
        pooling: `cls` or `mean`; a model of text and images takes its own instead.
        max_tokens: Most tokens of a text, >= 1.
        layers: Layers whose states are computed too.
        device, precision: See `load_encoder`.
    Raises:
        ConfigError: `cls` for a model whose tokenizer puts no [CLS] first, or a layer that the model lacks.
        DataError: See `load_encoder`.
    """
    import transformers  # noqa: PLC0415

    encoder = load_encoder(files, option=OPTION, device=device, precision=precision)
    with quiet(), loading(files, OPTION):
        tokenizer = transformers.AutoTokenizer.from_pretrained(files.folder, **SAFE)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = encoder.model
    if hasattr(model, "get_text_features"):
        pooling = "features"
    elif pooling == "cls" and tokenizer.cls_token is None:
        raise ConfigError("text_pooling", f"must be mean for {files.name}, which has no [CLS] token", pooling)
    if model.config.is_encoder_decoder:
        encoder = Encoder(files, model.get_encoder(), encoder.device, encoder.dtype, encoder.missing)
    limits = (max_tokens, tokenizer.model_max_length, _positions(model))
    most = min(limit for limit in limits if limit is not None and 0 < limit < _NO_LIMIT)
    text_encoder = TextEncoder(encoder, tokenizer, pooling, most, layers)
    with loading(files, OPTION):
        text_encoder.encode(text_encoder.tokenize(["a"]))  # a model that wants more than text fails here
    return text_encoder


def _positions(model: Any) -> int | None:
    """Most positions of a model; None where it has no limit. RoBERTa and its kin start behind the padding's number."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    first = getattr(table, "padding_idx", None)
    return limit if limit is None or first is None else limit - first - 1


@dataclass(frozen=True)
class EncodedTexts:
    """Vectors of texts.

    Attributes:
        vectors: (N, F) float32, zero rows for empty texts.
        layers: (N, S, F) states of the encoder's layers, likewise; None = none.
        facts: Model, revision, pooling and so on, for the manifest.
        num_full: Texts that reach the most tokens, so that some of them were cut.
        shards: To be removed once the vectors are written elsewhere.
    """

    vectors: Float32[np.ndarray, "N F"]
    layers: Float32[np.ndarray, "N S F"] | None
    facts: dict[str, Any]
    num_full: int
    shards: Shards


def encode_texts(
    texts: list[str], text_encoder: TextEncoder, *, place: Path, progress: WorkProgress = say_nothing
) -> EncodedTexts:
    """Vectors of N texts, whatever their order; finished parts are kept under `place` until the caller removes them.

    Args:
        texts: Empty ones get a zero row; not all are empty.
        text_encoder: From `load_text_encoder`.
        place: The folder of the data set's prepared versions.
        progress: Called after every batch.
    Raises:
        DataError: All texts are empty.
    """
    unique = sorted({text for text in texts if text})
    if not unique:
        raise DataError(OPTION, "found no text to encode", remedy="Name columns that hold some with --text-columns")
    tokens = text_encoder.tokenize(unique)
    longest_first = np.argsort([-len(row) for row in tokens], kind="stable").tolist()  # so memory shows at once
    shards = Shards.of(place, _identity(unique, text_encoder))
    width = text_encoder.encode(tokens[:1]).shape[1]

    def compute(part: slice) -> Iterator[Float32[np.ndarray, "n F"]]:
        for batch in batches([tokens[row] for row in longest_first[part]]):
            yield text_encoder.encode(batch)

    rows = shards.rows(len(unique), width, compute, what="encoding texts", progress=progress)
    row_of = {unique[number]: row for row, number in enumerate(longest_first)}
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    has_text = np.array([bool(text) for text in texts])
    vectors[has_text] = rows[[row_of[text] for text in texts if text]]
    num_full = sum(len(row) >= text_encoder.max_tokens for row in tokens)
    only_vectors = replace(text_encoder, layers=()).encode(tokens[:1]).shape[1] if text_encoder.layers else width
    vectors, layers = split_layers(vectors, len(text_encoder.layers), only_vectors)
    return EncodedTexts(vectors, layers, text_encoder.facts(), num_full, shards)


def _identity(texts: list[str], text_encoder: TextEncoder) -> dict[str, Any]:
    """What decides about the vectors of `texts`: the key of their shards."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}\n".encode())
    return {
        **text_encoder.encoder.files.identity(),
        "format": _FORMAT,
        "pooling": text_encoder.pooling,
        "max_tokens": text_encoder.max_tokens,
        "precision": str(text_encoder.encoder.dtype),
        "texts": digest.hexdigest(),
        **({"layers": list(text_encoder.layers)} if text_encoder.layers else {}),
    }


def batches(tokens: list[Int32[np.ndarray, "t"]]) -> Iterator[list[Int32[np.ndarray, "t"]]]:
    """Cut token lists, longest first, where a batch would pass `BATCH_TOKENS` with its padding, or `BATCH_TEXTS`."""
    start = 0
    while start < len(tokens):
        size = max(1, min(BATCH_TEXTS, BATCH_TOKENS // max(len(tokens[start]), 1)))
        yield tokens[start : start + size]
        start += size
