"""Pictures of items to vectors by a vision encoder: ViT and its kin, CLIP, SigLIP; in batches, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from athwe_core.data.features.encoders import SAFE, Encoder, ModelFiles, load_encoder, loading, quiet
from athwe_core.data.features.image_files import ImageSource
from athwe_core.data.features.layer_states import pooled_layers, split_layers
from athwe_core.data.features.resumable import Shards, WorkProgress, say_nothing
from athwe_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

OPTION = "image_encoder"
BATCH_IMAGES = 32
MOST_ELONGATED = 50
"""Longest side over shortest: beyond it, scaling the short side to the model's size would fill the memory."""
_FORMAT = 1  # raise when the same model and pictures give other vectors


@dataclass(frozen=True)
class ImageEncoder:
    """A vision model with its image processor.

    Attributes:
        encoder: The loaded model.
        processor: Scales and normalises with PIL and numpy.
        pooling: `features` (a model of text and images, or a tower with projection, gives the shared space), `cls` (last
            state of the class token) or `pooled` (the tower's own pooling).
        layers: Layers whose states follow the vector, 0 = the embedding output.
    """

    encoder: Encoder
    processor: Any
    pooling: str
    layers: tuple[int, ...] = ()

    def width(self) -> int:
        """F, by the vector of a grey picture."""
        from PIL import Image  # noqa: PLC0415

        return self.encode([Image.new("RGB", (32, 32), "grey")]).shape[1]

    def facts(self) -> dict[str, Any]:
        """What the manifest says."""
        return {
            **self.encoder.facts(),
            "pooling": self.pooling,
            **({"layers": list(self.layers)} if self.layers else {}),
        }

    def encode(self, pictures: list[Image]) -> Float32[np.ndarray, "n F"]:
        """Vectors of one batch of RGB pictures of any sizes; states of the layers follow each vector."""
        import torch  # noqa: PLC0415

        model = self.encoder.model
        pixels = self.processor(images=pictures, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        with self.encoder.computing():
            pixels = pixels.to(self.encoder.device)
            if hasattr(model, "get_image_features"):
                found = model.get_image_features(pixel_values=pixels)
                vectors = getattr(found, "pooler_output", found)
            else:
                outputs = model(pixel_values=pixels)
                if self.pooling == "features":
                    vectors = outputs.image_embeds
                elif self.pooling == "cls":
                    vectors = outputs.last_hidden_state[:, 0]
                else:
                    vectors = outputs.pooler_output.flatten(start_dim=1)
            found = [vectors.float(), *(self._layer_states(pixels) if self.layers else ())]
        return torch.cat(found, dim=1).cpu().numpy()

    def _layer_states(self, pixels: Any) -> list[Any]:
        """Pooled states of the layers: of the class token, or the mean where the model has none."""
        model = self.encoder.model
        tower = model.vision_model if hasattr(model, "get_image_features") else model
        has_class = any(name.endswith(("cls_token", "class_embedding")) for name, _ in tower.named_parameters())
        outputs = tower(pixel_values=pixels, output_hidden_states=True)

        def pool(states: Any) -> Any:
            return states[:, 0] if has_class else states.float().mean(dim=1)

        return pooled_layers(outputs.hidden_states, self.layers, pool, option="--image-layers")


def load_image_encoder(
    files: ModelFiles, *, layers: tuple[int, ...] = (), device: str = "auto", precision: str = "auto"
) -> ImageEncoder:
    """Load a vision model with its image processor (the one on PIL: torchvision is not needed).

    Args:
        files: From `find_model`.
        layers: Layers whose states are computed too.
        device, precision: See `load_encoder`.
    Raises:
        ConfigError: A layer that the model lacks.
        DataError: See `load_encoder`; or the model gives no vector of a whole image.
    """
    import transformers  # noqa: PLC0415

    encoder = load_encoder(files, option=OPTION, device=device, precision=precision)
    with quiet(), loading(files, OPTION):
        processor = transformers.AutoImageProcessor.from_pretrained(files.folder, backend="pil", **SAFE)
        image_encoder = ImageEncoder(encoder, processor, _pooling(encoder), layers)
        image_encoder.width()  # a model that wants more than pixels fails here
    return image_encoder


def _pooling(encoder: Encoder) -> str:
    model = encoder.model
    if getattr(model, "main_input_name", "") != "pixel_values" and not hasattr(model, "get_image_features"):
        remedy = "Name a vision model"
        raise DataError(f"{OPTION} {encoder.files.name}", "must take pictures", type(model).__name__, remedy)
    names = [name for name, _ in model.named_parameters()]
    if hasattr(model, "get_image_features") or type(model).__name__.endswith("WithProjection"):
        return "features"
    if any(name.endswith("cls_token") for name in names):
        return "cls"
    if not encoder.missing and (hasattr(model, "pooler") or model.config.model_type.endswith("_vision_model")):
        return "pooled"
    rule = "must give one vector an image: a class token, a pooler of its own, or image features"
    raise DataError(f"{OPTION} {encoder.files.name}", rule, type(model).__name__, "Name another model")


@dataclass(frozen=True)
class EncodedImages:
    """Vectors of pictures.

    Attributes:
        vectors: (N, F) float32, zero rows where there is no picture or a broken one.
        layers: (N, S, F) states of the encoder's layers, likewise; None = none.
        facts: Model, revision, pooling, for the manifest.
        missing: Items without a picture, in order.
        broken: Items whose picture cannot be read, in order.
        shards: To be removed once the vectors are written elsewhere.
    """

    vectors: Float32[np.ndarray, "N F"]
    layers: Float32[np.ndarray, "N S F"] | None
    facts: dict[str, Any]
    missing: list[str]
    broken: list[str]
    shards: Shards


def encode_images(
    item_tokens: list[str],
    source: ImageSource,
    image_encoder: ImageEncoder,
    *,
    place: Path,
    progress: WorkProgress = say_nothing,
) -> EncodedImages:
    """Vectors of the pictures of N items; finished parts are kept under `place` until the caller removes them.

    Args:
        item_tokens: Raw ids.
        source: Their pictures.
        image_encoder: From `load_image_encoder`.
        place: The folder of the data set's prepared versions.
        progress: Called after every batch.
    """
    found = sorted(token for token in item_tokens if source.has(token))
    identity = {
        **image_encoder.encoder.files.identity(),
        "format": _FORMAT,
        "pooling": image_encoder.pooling,
        "precision": str(image_encoder.encoder.dtype),
        "pictures": source.fingerprint(),
        "items": hashlib.sha256("\n".join(found).encode()).hexdigest(),
        **({"layers": list(image_encoder.layers)} if image_encoder.layers else {}),
    }
    shards = Shards.of(place, identity)
    width = image_encoder.width()

    def compute(part: slice) -> Iterator[Float32[np.ndarray, "n F"]]:
        for start in range(part.start, part.stop, BATCH_IMAGES):
            tokens = found[start : min(start + BATCH_IMAGES, part.stop)]
            yield _encode_or_zero(image_encoder, [source.picture(token) for token in tokens], width)

    rows = shards.rows(len(found), width, compute, what="encoding images", progress=progress)
    row_of = {token: row for row, token in enumerate(found)}
    vectors = np.zeros((len(item_tokens), width), dtype=np.float32)
    has_file = np.array([token in row_of for token in item_tokens], dtype=bool)
    vectors[has_file] = rows[[row_of[token] for token in item_tokens if token in row_of]]
    is_zero = ~vectors.any(axis=1)
    only_vectors = replace(image_encoder, layers=()).width() if image_encoder.layers else width
    vectors, layers = split_layers(vectors, len(image_encoder.layers), only_vectors)
    return EncodedImages(
        vectors,
        layers,
        image_encoder.facts(),
        missing=[token for token in item_tokens if token not in row_of],
        broken=[item_tokens[row] for row in np.flatnonzero(is_zero & has_file)],
        shards=shards,
    )


def _encode_or_zero(
    image_encoder: ImageEncoder, pictures: list[Image | None], width: int
) -> Float32[np.ndarray, "n F"]:
    """Vectors of a batch; zero rows for what is no picture, or one too narrow to be scaled."""
    usable = [
        number
        for number, picture in enumerate(pictures)
        if picture is not None and max(picture.size) <= MOST_ELONGATED * min(picture.size)
    ]
    vectors = np.zeros((len(pictures), width), dtype=np.float32)
    if usable:
        vectors[usable] = image_encoder.encode([found for number in usable if (found := pictures[number]) is not None])
    return vectors
