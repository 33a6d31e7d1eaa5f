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
    target_ids: Int64[Tensor, " N"], user_index: Int64[Tensor, " N"], shards: BatchShards | None = None
) -> Bool[Tensor, "N N_all"]:
    """Pairs (i, j), i != j, that are no negatives: the same next item, two positions of the same user, or j is padding.

    Args:
        target_ids: next item of each supervised token; -1 = padding.
        user_index: user of each supervised token.
        shards: how the batch is divided among processes; then i is a token of this process and j one of any.
    Returns: True where j must be left out of the denominator of i; False for a token and itself.
    Differs: the published code of HM4SR knows the same next item only, and leaves such a pair in the denominator as
        exp(0) = 1.
    """
    shards = shards or all_here(len(target_ids))
    all_ids, all_users = shards.gather(target_ids), shards.gather(user_index)
    same = (target_ids[:, None] == all_ids) | (user_index[:, None] == all_users) | (all_ids < 0)
    same.diagonal(shards.start).fill_(False)
    return same


def exclusion_bias(excluded: Bool[Tensor, "N N_all"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "N N_all"]:
    """Bias that removes the excluded pairs from a softmax; one serves all contrastive terms of a step.

    Args:
        excluded: from `excluded_pairs`.
        dtype: of the result.
    Returns: 0 where a pair counts, -1e9 where it is excluded.
    Source: HM4SR eq. 23 and 25, whose sums leave these pairs out.
    """
    return excluded.to(dtype).mul_(_EXCLUDED)


def contrastive_loss(
    anchors: Float[Tensor, "P N D"],
    candidates: Float[Tensor, "P N D"],
    bias: Float[Tensor, "N N_all"],
    *,
    temperatures: Sequence[float],
    target_mask: Bool[Tensor, " N"] | None = None,
    shards: BatchShards | None = None,
    num_targets: int | Tensor | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, " P"]:
    """In-batch contrastive loss between anchors and candidates with the same index; P such losses at once.

        s_ij = cos(anchors_i, candidates_j) / temperature
        loss = mean_i( logsumexp_{j not excluded} s_ij - s_ii )

    Args:
        anchors: one vector for each supervised token.
        candidates: anchor i belongs to candidate i; the others are its negatives.
        bias: from `exclusion_bias`, with 0 for a token and itself.
        temperatures: tau > 0 of each of the P losses.
        target_mask: False = padding; None = no padding.
        shards: how the batch is divided among processes; the candidates are then those of all.
        num_targets, compute_dtype, chunk_elements: as in `catalogue_cross_entropy`.
    Returns: this process's part of each mean; 0 when all negatives are excluded.
    Source: HM4SR eq. 23 (IDCL: anchors = id states, candidates = id embeddings of the next items) and eq. 25 (PCL: anchors
        = states, candidates = states of the same tokens with time placeholders).   Differs: see `excluded_pairs`.
    """
    shards = shards or all_here(anchors.shape[1])
    own = shards.start + torch.arange(anchors.shape[1], device=anchors.device)
    if target_mask is not None:
        own = torch.where(target_mask, own, -1)
    normal, everyone = F.normalize(anchors, dim=-1), F.normalize(candidates, dim=-1)
    scaled = torch.stack([part / temperature for part, temperature in zip(normal, temperatures, strict=True)])
    if shards.num_processes > 1:
        everyone = shards.gather(everyone.transpose(0, 1)).transpose(0, 1)
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
    shards: BatchShards | None = None,
    num_targets: int | Tensor | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, ""]:
    """NCE (NT-Xent) loss: the two views of each sequence must find each other among both views of all sequences.

        z = [first; second]        s_ij = sim(z_i, z_j) / temperature
        loss = mean_i( logsumexp_{j != i, not excluded} s_ij - s_i,partner(i) )

    Args:
        first, second: vectors of the two views, in the same order of sequences.
        temperature: tau > 0.
        similarity: `cosine`, or `dot` for the plain product. The loss of a vector is at most 87.3, as in
            `catalogue_cross_entropy`, which a dot product of long vectors may reach.
        excluded: pairs of sequences that are no negatives in any of their views, from `excluded_pairs`; None = no pairs.
        target_mask: False = padding; None = no padding.
        shards: how the batch is divided among processes; the negatives are then those of all.
        num_targets: divisor of the mean over sequences; None = the sequences that are not padding.
        compute_dtype, chunk_elements: as in `catalogue_cross_entropy`.
    Returns: scalar, this process's part of the mean.
    Source: SimCLR (Chen et al. 2020, eq. 1), as FEARec, DuoRec and TiCoSeRec use it; these exclude no pair.
    """
    N = len(first)
    shards = shards or all_here(N)
    if target_mask is None:
        target_mask = torch.ones(N, dtype=torch.bool, device=first.device)
    if excluded is None:
        excluded = (shards.gather(target_mask.long()) == 0).expand(N, -1)
    row = torch.arange(N, device=first.device)
    itself = torch.zeros_like(excluded)
    itself[row, shards.start + row] = True
    if similarity == "cosine":
        first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    all_first, all_second = shards.gather(first), shards.gather(second)
    # Two problems with the same targets: `first` looks for `second` and the other way round. The other view's columns come
    # first, then those of the view itself.
    losses = catalogue_cross_entropy(
        torch.stack([first, second]) / temperature,
        torch.stack([torch.cat([all_second, all_first]), torch.cat([all_first, all_second])]),
        torch.where(target_mask, shards.start + row, -1),
        bias=exclusion_bias(torch.cat([excluded, excluded | itself], dim=1), compute_dtype),
        compute_dtype=compute_dtype,
        chunk_elements=chunk_elements,
        num_targets=num_targets,
    )
    return losses.mean()
