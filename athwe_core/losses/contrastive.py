"""In-batch contrastive losses (HM4SR eq. 23-26)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from athwe_core.distributed import BatchShards, all_here
from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS, catalogue_cross_entropy

_EXCLUDED = -1e9


def excluded_pairs(
    target_ids: Int64[Tensor, " N"], user_index: Int64[Tensor, " N"], shares: BatchShards | None = None
) -> Bool[Tensor, "N N_all"]:
    """Pairs (i, j), i != j, that must not repel each other: the same next item, or two positions of the same user.

    Args:
        target_ids: -1 = padding, which repels nothing.
        shares: where the batch is spread over processes: i is a token of this one, j of any.
    Differs: the published code leaves such a pair in the denominator as exp(0) = 1.
    """
    shares = shares or all_here(len(target_ids))
    all_ids, all_users = shares.gather(target_ids), shares.gather(user_index)
    same = (target_ids[:, None] == all_ids) | (user_index[:, None] == all_users) | (all_ids < 0)
    same.diagonal(shares.start).fill_(False)
    return same


def exclusion_bias(excluded: Bool[Tensor, "N N_all"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "N N_all"]:
    """0 where a pair counts, a number whose exponential is 0 where not: made once for all contrastive terms of a step."""
    return excluded.to(dtype).mul_(_EXCLUDED)


def contrastive_loss(
    anchors: Float[Tensor, "P N D"],
    candidates: Float[Tensor, "P N D"],
    bias: Float[Tensor, "N N_all"],
    *,
    temperatures: Sequence[float],
    target_mask: Bool[Tensor, " N"] | None = None,
    shares: BatchShards | None = None,
    num_targets: int | Tensor | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, " P"]:
    """Each anchor must find its own candidate among those of the batch; P losses of a step at once.

        s_ij = cos(anchors_i, candidates_j) / temperature
        loss = mean_i( logsumexp_{j not excluded} s_ij - s_ii )

    Args:
        anchors, candidates: row i of one belongs to row i of the other.
        bias: from `exclusion_bias`; 0 on the diagonal.
        temperatures: tau > 0 of each of the P.
        target_mask: rows that are no padding; None = all.
        shares: where the batch is spread over processes: the candidates are those of all.
        num_targets, compute_dtype, chunk_elements: as in `catalogue_cross_entropy`.
    Returns: this process's share of each mean; 0 when every other row is excluded.
    Source: HM4SR eq. 23 (anchors = id states, candidates = id embeddings of the next items) and eq. 25 (anchors = states,
        candidates = states of the same rows with time placeholders).
    """
    shares = shares or all_here(anchors.shape[1])
    own = shares.start + torch.arange(anchors.shape[1], device=anchors.device)
    if target_mask is not None:
        own = torch.where(target_mask, own, -1)
    normal, everyone = F.normalize(anchors, dim=-1), F.normalize(candidates, dim=-1)
    scaled = torch.stack([part / temperature for part, temperature in zip(normal, temperatures, strict=True)])
    if shares.num_processes > 1:
        everyone = shares.gather(everyone.transpose(0, 1)).transpose(0, 1)
    return catalogue_cross_entropy(
        scaled,
        everyone,
        own,
        bias=bias,
        compute_dtype=compute_dtype,
        chunk_elements=chunk_elements,
        num_targets=num_targets,
    )
