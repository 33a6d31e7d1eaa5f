"""Cross-entropy of the next item over the items of the batch, corrected for their popularity."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.next_item import LossScale


def in_batch_cross_entropy(
    states: Float[Tensor, "N K"],
    table: Float[Tensor, "S K"],
    targets: Int64[Tensor, " N"],
    *,
    held: Bool[Tensor, "N S"],
    counts: Int64[Tensor, " S"],
    log_popularity: Float[Tensor, " S"],
    scale: LossScale,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next item over the items that other rows of the batch hold.

        logit_ic = states_i . table_c - log p_c
        loss = mean_i( log(exp(logit_i,target) + sum_{c not in row i} count_c exp(logit_ic)) - logit_i,target )

    An item that occurs several times in the batch is a candidate several times; -log p_c takes that back on average.

    Args:
        states: user vectors.
        table: vectors of the S distinct items of the batch.
        targets: index of each next item in the table; -1 = padding: no loss and no gradient.
        held: whether the row of a state holds the item, which is then no negative.
        counts: occurrences in the batch; 0 = no candidate.
        log_popularity: log p, with p the share of the item in the training data.
        scale: from `loss_scale`.
    Returns: scalar, float32.
    Source: Yi et al. 2019 (sampling-bias-corrected in-batch softmax), as IISAN uses it.
    """
    bias = (counts.log() - log_popularity).repeat(len(states), 1).masked_fill(held | (counts == 0), -1e9)
    row = torch.arange(len(states), device=states.device)
    own = targets.clamp(min=0)
    bias[row, own] = -log_popularity[own]
    return catalogue_cross_entropy(states, table, targets, bias=bias, **scale)
