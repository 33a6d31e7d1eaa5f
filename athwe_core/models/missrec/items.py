"""Items of MISSRec: projected text and image, ids, and the score of an item from its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from athwe_core.models.missrec.config import MISSRecModelConfig
from athwe_core.nn.item_embeddings import linear

MODALITIES = ("text", "image")


@dataclass(frozen=True)
class ItemParts:
    """Vectors of n items by part."""

    text: Float[Tensor, "n D"]
    image: Float[Tensor, "n D"]
    id: Float[Tensor, "n D"] | None
    """None = the model has no ids."""
    has_text: Bool[Tensor, " n"]
    has_image: Bool[Tensor, " n"]

    def at(self, index: Int64[Tensor, " m"]) -> ItemParts:
        """The parts of some of them."""
        ids = None if self.id is None else self.id[index]
        return ItemParts(self.text[index], self.image[index], ids, self.has_text[index], self.has_image[index])


class ItemModalities(nn.Module):
    """A linear map of each item's text and image vector, and an id vector where the model has ids.

    Args:
        model: sizes.
        features: text and image vectors (V, F), entry 0 = padding.
        compute_dtype: of the products while training.
        sparse: whether steps need a few items only.
    """

    def __init__(
        self, model: MISSRecModelConfig, features: dict[str, Tensor], *, compute_dtype: torch.dtype, sparse: bool
    ) -> None:
        super().__init__()
        V, D = len(features["text"]), model.hidden_size
        self.compute_dtype, self.skips_missing = compute_dtype, model.skips_missing
        self.id = nn.Embedding(V, D, sparse=sparse, _weight=torch.empty(V, D)) if model.id_embedding else None
        self.feature_widths = {name: features[name].shape[1] for name in MODALITIES}
        self.projections = nn.ModuleDict({name: nn.Linear(width, D) for name, width in self.feature_widths.items()})
        for name in MODALITIES:
            self.register_buffer(f"{name}_features", features[name], persistent=False)
            self.register_buffer(f"has_{name}", (features[name] != 0).any(1), persistent=False)

    def forward(self, items: Int64[Tensor, " n"] | None = None) -> ItemParts:
        """The parts of some items, or of all."""

        def of(values: Tensor) -> Tensor:
            return values if items is None else values[items]

        vectors, there = {}, {}
        for name in MODALITIES:
            there[name] = of(self.get_buffer(f"has_{name}"))
            vectors[name] = self.project(name, of(self.get_buffer(f"{name}_features")))
            if self.skips_missing:
                vectors[name] = vectors[name] * there[name][:, None]
        ids = None
        if self.id is not None:
            ids = self.id.weight if items is None else self.id(items)
        return ItemParts(vectors["text"], vectors["image"], ids, there["text"], there["image"])

    def project(self, name: str, features: Float[Tensor, "n F"]) -> Float[Tensor, "n D"]:
        """Feature vectors of a modality in the space of the items, float32."""
        dtype = self.compute_dtype if self.training else torch.float32
        return linear(cast(nn.Linear, self.projections[name]), features, dtype).float()

    def directions(self, parts: ItemParts, *, as_mean: bool) -> Float[Tensor, "n K"]:
        """Directions of text, image and id, side by side, or their mean.

        Where items skip what is missing, a missing part has the direction of the other one.
        """
        text, image = F.normalize(parts.text, dim=-1), F.normalize(parts.image, dim=-1)
        if self.skips_missing:
            text, image = (
                torch.where(parts.has_text[:, None], text, image),
                torch.where(parts.has_image[:, None], image, text),
            )
        found = [text, image] if parts.id is None else [text, image, F.normalize(parts.id, dim=-1)]
        return torch.stack(found).mean(0) if as_mean else torch.cat(found, dim=1)


def fused_scores(
    vectors: Float[Tensor, "N D"], directions: Float[Tensor, "V K"], preference: Float[Tensor, ""]
) -> Float[Tensor, "N V"]:
    """Scores whose better modality weighs more.

        a_m = vector . direction_m        p = softmax(f a_text, f a_image)        fused = p_text a_text + p_image a_image
        score = fused, or (a_id + 2 fused) / 3 where items have ids

    Args:
        vectors: user vectors.
        directions: of text, image and, if K = 3 D, id.
        preference: f.
    Source: the authors' code.
    """
    text, image, *ids = (vectors @ part.T for part in directions.split(vectors.shape[1], dim=1))
    fused = torch.lerp(image, text, torch.sigmoid(preference * (text - image)))
    return fused if not ids else (ids[0] + 2 * fused) / 3


def fused_cross_entropy(
    vectors: Float[Tensor, "N D"],
    directions: Float[Tensor, "S K"],
    labels: Int64[Tensor, " N"],
    preference: Float[Tensor, ""],
    log_weight: Float[Tensor, " S"] | None,
    chunk_elements: int,
) -> Float[Tensor, ""]:
    """Sum of the cross-entropies of `fused_scores`, of which at most a chunk is held at a time.

    Args:
        labels: index of each next item among the directions; -1 = padding.
        log_weight: added to the scores of the items that are not the next one; None = 0.
        chunk_elements: most scores held at a time.
    """

    def loss_of(part: Tensor, directions: Tensor, own: Tensor, preference: Tensor) -> Tensor:
        scores = fused_scores(part, directions, preference)
        if log_weight is not None:
            is_own = F.one_hot(own.clamp(min=0), len(directions)).bool()
            scores = scores + torch.where(is_own, 0.0, log_weight)
        return F.cross_entropy(scores, own, ignore_index=-1, reduction="sum")

    rows = max(chunk_elements // len(directions), 1)
    losses = [
        checkpoint(loss_of, part, directions, own, preference, use_reentrant=False, preserve_rng_state=False)
        for part, own in zip(vectors.split(rows), labels.split(rows), strict=True)
    ]
    return torch.stack(losses).sum()
