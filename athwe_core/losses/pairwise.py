"""Losses on the target and sampled negatives of each position: BPR and binary cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import to_device

BPR_EPS = 1e-10
"""Added to the sigmoid before its logarithm, as RecBole does: no loss exceeds -log(1e-10) = 23.03."""


def uniform_negatives(
    seen_rows: Int64[Tensor, " E"],
    seen_items: Int64[Tensor, " E"],
    target_rows: Int64[Tensor, " N"],
    *,
    num_item_rows: int,
    num_negatives: int,
    generator: torch.Generator,
) -> Int64[Tensor, "N S"]:
    """Items that the target's sequence does not contain, each with the same probability, drawn with replacement.

    The r-th unseen item is found by counting: no draw is rejected, and no shape depends on the values, so a CUDA device is
    not waited for.

    Args:
        seen_rows, seen_items: (row, item) pairs to avoid, in any order and with repeats: the tokens of a batch and their
            targets. Items are in 1..V-1; padding (0 or -1) is ignored.
        target_rows: row of each supervised position, in the numbering of `seen_rows`; padding positions may have any row.
        num_item_rows: V >= 2, the padding included.
        num_negatives: S >= 1, draws for each position.
        generator: CPU generator, whatever the device of the rows.
    Returns: item ids in 1..V-1. A row that contains every item gets draws from all items.
    """
    V = num_item_rows
    pairs = (seen_rows * V + seen_items.clamp(min=0)).sort().values
    row, item = torch.div(pairs, V, rounding_mode="floor"), pairs % V
    is_new = (item > 0) & (pairs != F.pad(pairs, (1, 0), value=-1)[:-1])
    distinct_before = F.pad(is_new.cumsum(0), (1, 0))
    before_row = distinct_before[torch.searchsorted(pairs, row * V)]
    # Below the i-th distinct item s_i of a row, i = 0, 1, ..., are s_i - 1 - i unseen ones.
    unseen_below = item - (distinct_before[1:] - before_row)

    before_target_row = distinct_before[torch.searchsorted(pairs, target_rows * V)]
    num_unseen = V - 1 - (distinct_before[torch.searchsorted(pairs, (target_rows + 1) * V)] - before_target_row)
    has_unseen = (num_unseen > 0)[:, None]
    draws = torch.randint(2**62, (len(target_rows), num_negatives), generator=generator)
    r = to_device(draws, target_rows.device) % torch.where(has_unseen, num_unseen[:, None], V - 1)
    # The r-th unseen item comes after every s_i that has at most r unseen items below it.
    index = torch.searchsorted(row * V + unseen_below, target_rows[:, None] * V + r, right=True)
    return 1 + r + torch.where(has_unseen, distinct_before[index] - before_target_row[:, None], 0)


def item_scores(
    states: Float[Tensor, "N K"],
    table: Float[Tensor, "V K"],
    items: Int64[Tensor, "N S"],
    *,
    bias: Float[Tensor, " V"] | None = None,
) -> Float[Tensor, "N S"]:
    """Scores of a few items for each state, without the (N, V) scores of the whole catalogue.

        score_ns = states_n . table[items_ns] + bias[items_ns]

    Args:
        states: user vectors.
        table: item vectors, row 0 = padding.
        items: rows of the table, in 0..V-1; -1 = padding, which is scored as row 0.
        bias: of each item; None = 0.
    Returns: scores in float32, or in the dtype of the states where that is wider.
    Source: HM4SR eq. 19, for a few items.
    """
    items = items.clamp(min=0)
    dtype = torch.promote_types(states.dtype, torch.float32)
    vectors = F.embedding(items, table).to(dtype)
    scores = torch.einsum("nk,nsk->ns", states.to(dtype), vectors)
    return scores if bias is None else scores + bias[items]


def bpr_loss(
    positive: Float[Tensor, " N"],
    negative: Float[Tensor, "N S"],
    targets: Int64[Tensor, " N"],
    *,
    num_targets: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Bayesian personalised ranking: the target should score above each sampled negative.

        loss = mean_n mean_s -log(1e-10 + sigmoid(positive_n - negative_ns))

    Args:
        positive: score of each position's target.
        negative: scores of its S >= 1 negatives.
        targets: item ids; -1 = padding: no loss and no gradient.
        num_targets: divisor of the mean over n, such as the targets of all processes; None = the targets that are not
            padding.
    Returns: scalar; 0 when every target is padding.
    Source: Rendle et al. 2009, BPR-Opt without its penalty on the weights; the constant is RecBole's.
    """
    losses = -torch.log(BPR_EPS + torch.sigmoid(positive[:, None] - negative)).mean(dim=-1)
    return _mean_over_targets(losses, targets, num_targets)


def binary_cross_entropy(
    positive: Float[Tensor, " N"],
    negative: Float[Tensor, "N S"],
    targets: Int64[Tensor, " N"],
    *,
    num_targets: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Classification of each position's target as 1 and of its sampled negatives as 0.

        loss = mean_n( -log sigmoid(positive_n) - mean_s log(1 - sigmoid(negative_ns)) )

    Args:
        positive, negative, targets, num_targets: as in `bpr_loss`.
    Returns: scalar; 0 when every target is padding.
    Source: SASRec (Kang and McAuley 2018), with one negative for each position.   Differs: the terms of several negatives
        are averaged, so that target and negatives have the same weight.
    """
    losses = F.softplus(-positive) + F.softplus(negative).mean(dim=-1)
    return _mean_over_targets(losses, targets, num_targets)


def _mean_over_targets(
    losses: Float[Tensor, " N"], targets: Int64[Tensor, " N"], num_targets: int | Tensor | None
) -> Float[Tensor, ""]:
    """Sum over the targets that are not padding, divided by their number."""
    is_target = targets >= 0
    if num_targets is None:
        num_targets = is_target.sum().clamp(min=1)
    return torch.where(is_target, losses, 0).sum() / num_targets
