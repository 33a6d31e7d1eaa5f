"""The main loss of models that score by inner products: cross-entropy of the next item over all items, or over a sample."""

from __future__ import annotations

from typing import TypedDict

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import SeenItems
from athwe_core.distributed import BatchShards
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.sampled_ce import Candidates, sampled_cross_entropy


class LossScale(TypedDict):
    """How the mean over targets is taken, for every cross-entropy of a step."""

    num_targets: int | Tensor
    """Targets of the whole batch, those of other processes included."""
    compute_dtype: torch.dtype
    chunk_elements: int
    """Most scores held at a time."""


def loss_scale(
    target_ids: Int64[Tensor, " N"], shards: BatchShards | None, compute_dtype: torch.dtype, chunk_elements: int
) -> LossScale:
    """How the cross-entropies of a step take their mean.

    Args:
        target_ids: next items of the supervised tokens; -1 = padding.
        shards: how the batch is divided among processes; None = not at all.
        compute_dtype, chunk_elements: as in `catalogue_cross_entropy`.
    Returns: keyword arguments of the losses; `num_targets` counts those of all processes.
    """
    # a tensor, not a number: compiled code is for one value of a number, and for every value of a tensor
    num_targets = (target_ids >= 0).sum() if shards is None else shards.num_targets
    return {"num_targets": num_targets, "compute_dtype": compute_dtype, "chunk_elements": chunk_elements}


def next_item_loss(
    vectors: Float[Tensor, "N K"],
    table: Float[Tensor, "Vr K"],
    target_ids: Int64[Tensor, " N"],
    *,
    scale: LossScale,
    candidates: Candidates | None = None,
    table_items: Int64[Tensor, " Vr"] | None = None,
    seen: SeenItems | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the next item over all items, or over the items that stand for them.

        mean_i( logsumexp_v(vectors_i . table_v) - vectors_i . table_target(i) )

    Args:
        vectors: user vectors of the supervised positions.
        table: item vectors; row 0 is the padding and no item. With candidates: the rows of `table_items`.
        target_ids: next item of each position; -1 = padding: no loss and no gradient.
        scale: from `loss_scale`.
        candidates: the sample of a sampled loss; None = the whole catalogue.
        table_items: increasing ids whose rows `table` holds; None = all.
        seen: terms for items of the histories, `Model.seen_items(batch)`; None = no such terms.
    Returns: scalar, float32.
    Source: HM4SR eq. 20; Bengio and Senecal 2008 for the sample.   Differs: published code ranks the padding row as an item.
    """
    if candidates is None:
        return catalogue_cross_entropy(vectors, table, target_ids, seen=seen, first_row=1, **scale)
    rows = candidates.items if table_items is None else torch.searchsorted(table_items, candidates.items)
    return sampled_cross_entropy(
        vectors,
        table.index_select(0, rows),
        torch.where(target_ids < 0, -1, torch.searchsorted(candidates.items, target_ids)),
        candidates.log_weight,
        seen=None if seen is None else seen.among(candidates.items),
        **scale,
    )
