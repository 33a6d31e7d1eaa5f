"""In-batch contrastive losses: an anchor finds its candidate (HM4SR eq. 23-26), or two views find each other (NCE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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


def symmetric_contrastive_loss(
    first: Float[Tensor, "N D"],
    second: Float[Tensor, "N D"],
    *,
    temperature: float,
    similarity: Literal["cosine", "dot"],
    excluded: Bool[Tensor, "N N_all"] | None = None,
    target_mask: Bool[Tensor, " N"] | None = None,
    shares: BatchShards | None = None,
    num_targets: int | Tensor | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, ""]:
    """Two views of each row must find each other among both views of all rows: the NCE (NT-Xent) loss of 2 N vectors.

        z = [first; second]        s_ij = sim(z_i, z_j) / temperature
        loss = mean_i( logsumexp_{j != i, not excluded} s_ij - s_i,partner(i) )

    Args:
        first, second: row i of one and row i of the other are two views of the same sequence.
        temperature: tau > 0.
        similarity: `cosine`, or the plain `dot` product. A dot product that puts a partner 87.3 below the best candidate
            meets the cap of `catalogue_cross_entropy`.
        excluded: pairs of rows that must not repel each other, from `excluded_pairs`; it holds for all views of the two
            rows. None = every other row repels.
        target_mask: rows that are not padding; None = all.
        shares: where the batch is spread over processes: the other views are those of all.
        num_targets: rows that the mean is over, of all processes; None = the rows that are not padding.
        compute_dtype, chunk_elements: as in `catalogue_cross_entropy`.
    Returns: scalar, this process's share of the mean.
    Source: SimCLR (Chen et al. 2020, eq. 1), as FEARec, DuoRec and TiCoSeRec use it; these exclude no pair.
    """
    N = len(first)
    shares = shares or all_here(N)
    if target_mask is None:
        target_mask = torch.ones(N, dtype=torch.bool, device=first.device)
    if excluded is None:
        excluded = (shares.gather(target_mask.long()) == 0).expand(N, -1)
    row = torch.arange(N, device=first.device)
    itself = torch.zeros_like(excluded)
    itself[row, shares.start + row] = True
    if similarity == "cosine":
        first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    all_first, all_second = shares.gather(first), shares.gather(second)
    # Two problems with the same targets: `first` looks for `second` and the other way round. The other view's columns come
    # first, then those of the view itself.
    losses = catalogue_cross_entropy(
        torch.stack([first, second]) / temperature,
        torch.stack([torch.cat([all_second, all_first]), torch.cat([all_first, all_second])]),
        torch.where(target_mask, shares.start + row, -1),
        bias=exclusion_bias(torch.cat([excluded, excluded | itself], dim=1), compute_dtype),
        compute_dtype=compute_dtype,
        chunk_elements=chunk_elements,
        num_targets=target_mask.sum() if num_targets is None else num_targets,
    )
    return losses.mean()
