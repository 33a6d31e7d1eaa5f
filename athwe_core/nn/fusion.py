"""Fusion of several sources into one: vectors of a token (NOVA) or rows of attention scores (DIF-SR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.multiply_add import sum_of_products

FusionKind = Literal["sum", "concat", "gate"]


class SourceFusion(nn.Module):
    """S sources of n numbers to one.

        sum       y = sum_j s_j
        concat    y = W [s_1; ...; s_S] + b
        gate      e_j = w_2 . relu(W_1 s_j + b_1)        y = sum_j softmax(e)_j s_j

    Sources may have different leading axes that broadcast: none is repeated before its own products.

    Args:
        kind: which of them. One source alone is returned as it is.
        num_sources: S >= 1.
        size: n >= 1.
    Source: NOVA (Liu et al., AAAI 2021) and DIF-SR (Xie et al., SIGIR 2022), in the form of their published code.   Differs:
        that code adds a bias to e_j, which the softmax does not notice.
    """

    def __init__(self, kind: FusionKind, *, num_sources: int, size: int) -> None:
        super().__init__()
        self.kind: FusionKind = "sum" if num_sources == 1 else kind
        self.size = size
        # Parameters, which the model initialises.
        if self.kind == "concat":
            self.joined = nn.Linear(num_sources * size, size)
        if self.kind == "gate":
            self.inner = nn.Linear(size, size)
            self.outer = nn.Linear(size, 1, bias=False)

    def forward(self, sources: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
        """Fuse along the last axis.

        Args:
            sources: S tensors of n numbers on the last axis, in a fixed order.
        Returns: a tensor of the broadcast shape, in their dtype.
        """
        if self.kind == "sum":
            return sum(sources[1:], start=sources[0])
        if self.kind == "gate":
            weights = self.weights(sources).unsqueeze(-1).unbind(-2)
            return sum_of_products(zip(weights, sources, strict=True))
        parts = self.parts(sources)
        return sum(parts[1:], start=parts[0]) + self.joined.bias.to(sources[0].dtype)

    def parts(self, sources: Sequence[Float[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
        """What each source gives to the fusion.

        Args:
            sources: as in `forward`.
        Returns: a tensor for each source. Their sum is the fusion, of `concat` without its bias.
        """
        if self.kind == "sum":
            return list(sources)
        if self.kind == "gate":
            weights = self.weights(sources).unsqueeze(-1).unbind(-2)
            return [weight * source for weight, source in zip(weights, sources, strict=True)]
        blocks = self.joined.weight.to(sources[0].dtype).split(self.size, dim=1)
        return [F.linear(source, block) for source, block in zip(sources, blocks, strict=True)]

    def weights(self, sources: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "... S"]:
        """Weights of the gate.

        Args:
            sources: as in `forward`.
        Returns: the weight of each source, in [0, 1]; they sum to 1.
        """
        dtype = sources[0].dtype
        logits = [linear(self.inner, source, dtype).relu() @ self.outer.weight.to(dtype).T for source in sources]
        return torch.cat(torch.broadcast_tensors(*logits), dim=-1).softmax(-1)
