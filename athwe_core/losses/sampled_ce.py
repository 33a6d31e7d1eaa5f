"""Cross-entropy against a sample of the catalogue, for catalogues whose (N, V) scores no step can afford."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS, catalogue_cross_entropy


class LogUniformSampler:
    """Draws items by their rank in popularity, P(rank r) = log((r + 2) / (r + 1)) / log(V), r = 0 the most popular.

    Args:
        target_counts: how often each item is a training target, on the device of the draws; entry 0, the padding, is never
            drawn.
        num_negatives: draws a step, with replacement, >= 0.
    """

    def __init__(self, target_counts: Int64[Tensor, " V"], *, num_negatives: int) -> None:
        by_popularity = 1 + torch.argsort(target_counts[1:], descending=True, stable=True)
        self.num_negatives = num_negatives
        self._items: Int64[Tensor, " V_1"] = by_popularity
        self._rank = torch.empty_like(target_counts)
        self._rank[0] = len(by_popularity)  # the padding: never drawn, never asked
        self._rank[by_popularity] = torch.arange(len(by_popularity), device=target_counts.device)
        self._target_share = target_counts.double() / target_counts.sum().clamp(min=1)

    def draw(self, generator: torch.Generator) -> Int64[Tensor, " S"]:
        """`num_negatives` item ids."""
        uniform = torch.rand(self.num_negatives, generator=generator, dtype=torch.float64)
        rank = torch.exp(uniform * math.log(len(self._items) + 1)).long() - 1
        return self._items[rank.clamp_(0, len(self._items) - 1).to(self._items.device)]

    def expected_count(self, items: Int64[Tensor, " S"], *, num_targets: int) -> Float[Tensor, " S"]:
        """How often each item comes, on average, among `num_targets` targets of a batch and the drawn items."""
        rank = self._rank[items].double()
        drawn = torch.log((rank + 2) / (rank + 1)) / math.log(len(self._items) + 1)
        return (num_targets * self._target_share[items] + self.num_negatives * drawn).float()


def sampled_cross_entropy(
    states: Float[Tensor, "N K"],
    candidates: Float[Tensor, "S K"],
    own: Int64[Tensor, " N"],
    log_weight: Float[Tensor, " S"],
    *,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
    num_targets: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next item, the sum over the catalogue estimated from a sample of it.

        Z_i = exp(s_i,own) + sum_{c != own} weight_c exp(s_ic)        loss = mean_i( log Z_i - s_i,own )

    With weight_c = times c was drawn / times it is expected (the logQ correction), the expectation of Z_i is the sum over
    the whole catalogue, so that the loss tends to `catalogue_cross_entropy` as the sample grows.

    Args:
        states: user vectors.
        candidates: vectors of distinct items, each row's own among them.
        own: index of each row's next item among the candidates.
        log_weight: logarithm of each candidate's weight; a row's own item counts once whatever its weight.
        compute_dtype, chunk_elements, num_targets: as in `catalogue_cross_entropy`.
    Returns: scalar, float32.
    Source: Bengio and Senecal 2008; HM4SR trains on the whole catalogue.   Differs from the two-tower form of the
        correction, which weights the positive item too although it is always there.
    """
    bias = log_weight.repeat(len(states), 1)
    bias[torch.arange(len(own), device=own.device), own] = 0.0
    return catalogue_cross_entropy(
        states,
        candidates,
        own,
        bias=bias,
        compute_dtype=compute_dtype,
        chunk_elements=chunk_elements,
        num_targets=num_targets,
    )
