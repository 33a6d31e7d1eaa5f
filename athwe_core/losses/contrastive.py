"""In-batch contrastive losses (HM4SR eq. 23-26)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from athwe_core.losses.catalogue_ce import catalogue_cross_entropy

_EXCLUDED = -1e9


def false_negatives(target_ids: Int64[Tensor, " N"], user_index: Int64[Tensor, " N"]) -> Bool[Tensor, "N N"]:
    """Pairs (i, j), i != j, that must not repel each other: the same next item, or two positions of the same user.

    Differs: the published code leaves such a pair in the denominator as exp(0) = 1.
    """
    same = (target_ids[:, None] == target_ids[None, :]) | (user_index[:, None] == user_index[None, :])
    return same.fill_diagonal_(False)


def exclusion_bias(excluded: Bool[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """0 where a pair counts, a number whose exponential is 0 where not: made once for all contrastive terms of a step."""
    return excluded.to(torch.float32).mul_(_EXCLUDED)


def contrastive_loss(
    anchors: Float[Tensor, "N D"],
    candidates: Float[Tensor, "N D"],
    bias: Float[Tensor, "N N"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Each anchor must find its own candidate among those of the batch.

        s_ij = cos(anchors_i, candidates_j) / temperature
        loss = mean_i( logsumexp_{j not excluded} s_ij - s_ii )

    Args:
        anchors, candidates: row i of one belongs to row i of the other.
        bias: from `exclusion_bias`; 0 on the diagonal.
        temperature: tau > 0.
    Returns: scalar; 0 when every other row is excluded.
    Source: HM4SR eq. 23 (anchors = id states, candidates = id embeddings of the next items) and eq. 25 (anchors = states,
        candidates = states of the same rows with time placeholders).
    """
    own = torch.arange(len(anchors), device=anchors.device)
    scaled = F.normalize(anchors, dim=-1) / temperature
    return catalogue_cross_entropy(scaled, F.normalize(candidates, dim=-1), own, bias=bias)
