"""Cross-entropy over a sample of the catalogue, for catalogues that are too large for all (N, V) scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import SeenItems
from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS, catalogue_cross_entropy


class LogUniformSampler:
    """Draws items by their popularity rank r, the most popular with r = 0.

        P(r) = log((r + 2) / (r + 1)) / log(V),    r = 0..V-2

    Args:
        target_counts: how often each item is a training target, on the device of the draws; entry 0 is the padding item,
            which is never drawn.
        num_negatives: draws in a step, with replacement, >= 0.
    Source: the log-uniform (Zipfian) candidate sampler of TensorFlow.
    """

    def __init__(self, target_counts: Int64[Tensor, " V"], *, num_negatives: int) -> None:
        by_popularity = 1 + torch.argsort(target_counts[1:], descending=True, stable=True)
        self.num_negatives = num_negatives
        self._items: Int64[Tensor, " V_1"] = by_popularity
        self._rank = torch.empty_like(target_counts)
        self._rank[0] = len(by_popularity)  # the padding is never drawn and never a target
        self._rank[by_popularity] = torch.arange(len(by_popularity), device=target_counts.device)
        self._target_share = target_counts.double() / target_counts.sum().clamp(min=1)

    def draw(self, generator: torch.Generator) -> Int64[Tensor, " S"]:
        """Draw items.

        Args:
            generator: CPU generator, whatever the device of the result.
        Returns: `num_negatives` item ids in 1..V-1, with repeats.
        """
        uniform = torch.rand(self.num_negatives, generator=generator, dtype=torch.float64)
        rank = torch.exp(uniform * math.log(len(self._items) + 1)).long() - 1
        return self._items[rank.clamp_(0, len(self._items) - 1).to(self._items.device)]

    def expected_count(self, items: Int64[Tensor, " S"], *, num_targets: int) -> Float[Tensor, " S"]:
        """Expected number of times that each item occurs among the targets of a batch and the drawn items.

        Args:
            items: ids in 1..V-1.
            num_targets: targets of the batch, >= 0; they are taken as draws from all training targets.
        Returns: expected counts, >= 0.
        """
        rank = self._rank[items].double()
        drawn = torch.log((rank + 2) / (rank + 1)) / math.log(len(self._items) + 1)
        return (num_targets * self._target_share[items] + self.num_negatives * drawn).float()


@dataclass(frozen=True)
class Candidates:
    """The items that stand for the catalogue in a step, where its loss is sampled."""

    items: Int64[Tensor, " S"]
    """Targets of the whole batch and drawn items, distinct, increasing."""
    log_weight: Float[Tensor, " S"]
    """Logarithm of times drawn over times expected."""

    def rows(self, item_ids: Int64[Tensor, " T"]) -> Int64[Tensor, " Vr"]:
        """Items whose vectors a step needs.

        Args:
            item_ids: items of the tokens of the batch.
        Returns: distinct ids of the tokens and candidates, ascending.
        """
        return torch.cat([self.items, item_ids]).unique()


def sample_candidates(
    sampler: LogUniformSampler, target_ids: Int64[Tensor, " N_all"], generator: torch.Generator
) -> Candidates:
    """Candidates of a batch: its targets and the items that the sampler draws.

    Args:
        sampler: draws the negatives.
        target_ids: targets of all processes; -1 = padding.
        generator: CPU generator, the same in every process.
    Returns: distinct items with the logarithm of observed over expected counts.
    """
    target_ids = target_ids[target_ids >= 0]
    found = torch.cat([target_ids, sampler.draw(generator)])
    items, times = found.unique(return_counts=True)
    expected = sampler.expected_count(items, num_targets=len(target_ids))
    return Candidates(items, times.log() - expected.log())


def sampled_cross_entropy(
    states: Float[Tensor, "N K"],
    candidates: Float[Tensor, "S K"],
    targets: Int64[Tensor, " N"],
    log_weight: Float[Tensor, " S"],
    *,
    seen: SeenItems | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
    num_targets: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next item, with the softmax's sum over all items estimated from a sample.

        Z_i = exp(s_i,target) + sum_{c != target} weight_c exp(s_ic)        loss = mean_i( log Z_i - s_i,target )

    With weight_c = observed count of c / expected count (the logQ correction), the expectation of Z_i is the sum over all
    items, so that the loss tends to `catalogue_cross_entropy` as the sample grows.

    Args:
        states: user vectors.
        candidates: vectors of distinct items, all targets among them.
        targets: index of each target among the candidates; -1 = padding: no loss and no gradient.
        log_weight: logarithm of the weight of each candidate. A target counts once in its own sum, whatever its weight.
        seen: terms for items of the histories, their ids being indices of candidates.
        compute_dtype, chunk_elements, num_targets: as in `catalogue_cross_entropy`.
    Returns: scalar, float32; 0 when every target is padding.
    Source: Bengio and Senecal 2008.   Differs: the form of the correction in two-tower models weights the target too,
        although it is always present. HM4SR trains on the whole catalogue.
    """
    bias = log_weight.repeat(len(states), 1)
    bias[torch.arange(len(targets), device=targets.device), targets] = 0.0
    return catalogue_cross_entropy(
        states,
        candidates,
        targets,
        bias=bias,
        seen=seen,
        compute_dtype=compute_dtype,
        chunk_elements=chunk_elements,
        num_targets=num_targets,
    )
