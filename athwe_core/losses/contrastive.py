"""In-batch contrastive losses (HM4SR eq. 23-26)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def false_negatives(
    target_ids: Int64[Tensor, " N"], user_index: Int64[Tensor, " N"]
) -> Bool[Tensor, "N N"]:
    """Pairs (i, j), i != j, that must not repel each other: the same next item, or two positions of the same user.

    Differs: the published code leaves such a pair in the denominator as exp(0) = 1.
    """
    same = (target_ids[:, None] == target_ids[None, :]) | (user_index[:, None] == user_index[None, :])
    return same.fill_diagonal_(False)


def exclusion_bias(excluded: Bool[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """0 where a pair counts, -inf where it is excluded: made once for all contrastive terms of a step."""
    return torch.zeros(excluded.shape, device=excluded.device).masked_fill_(excluded, -math.inf)


def contrastive_loss(
    anchors: Float[Tensor, "*m N D"],
    candidates: Float[Tensor, "*m N D"],
    bias: Float[Tensor, "N N"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Each anchor must find its own candidate among those of the batch.

        s_ij = cos(anchors_i, candidates_j) / temperature
        loss = mean_i( logsumexp_{j not excluded} s_ij - s_ii ), mean over the leading axis too

    Args:
        anchors, candidates: row i of one belongs to row i of the other; a leading modality axis is averaged over.
        bias: 0 or -inf for each pair, `exclusion_bias`; 0 on the diagonal.
        temperature: tau > 0.
    Returns: scalar; 0 when every row is alone.
    Source: HM4SR eq. 23 (anchors = id states, candidates = id embeddings of the next items) and eq. 25-26 (anchors =
        states, candidates = states of the same rows with time placeholders).
    """
    scaled = F.normalize(anchors, dim=-1) / temperature
    logits = scaled @ F.normalize(candidates, dim=-1).transpose(-1, -2) + bias
    positive = torch.diagonal(logits, dim1=-2, dim2=-1)
    return (logits.logsumexp(-1) - positive).mean()
