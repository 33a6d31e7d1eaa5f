"""Ranks where the processes of a job hold different rows of the item tables: each counts among its own items.

    rank = 1 + sum over processes of ( #(own scores > target's score) + #(other own scores = target's score) / 2 )

The process that holds the target's row gives the target's score, from the same product as those of its rivals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from athwe_core.batch import PackedBatch, SeenItems
from athwe_core.data.packing import pack
from athwe_core.data.rows import SplitInteractionArrays, evaluation_rows, items_before
from athwe_core.distributed import ProcessGroup
from athwe_core.errors import AthweError
from athwe_core.evaluation.blocks import BLOCK_USERS, token_batches, user_blocks
from athwe_core.evaluation.evaluate import sampled_rows
from athwe_core.models.protocol import Model
from athwe_core.nn.item_embeddings import ItemEmbeddings
from athwe_core.row_shard import RowShard

BLOCK_SCORES = 2**22
"""Scores that a process holds at a time: 16 MiB. Beyond 8,192 items a process the blocks have fewer users."""
_COUNTED_AT_ONCE = 2**20
"""Scores that are compared at a time: sums of truth values take 8 bytes for each."""


@torch.inference_mode()
def rank_over_shards(
    model: Model,
    data: SplitInteractionArrays,
    *,
    split: str,
    exclude_seen: bool = False,
    sample: int | None = None,
    world: ProcessGroup,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Float64[np.ndarray, " U"]:
    """`rank_users` with divided item tables. All processes must call it together; each reads the batches of all users.

    Args:
        model: one whose spec has `offers_sharding`, its tables divided over `world`; put into evaluation mode.
        split, exclude_seen, sample, on_progress: as of `rank_users`; progress counts all users.
        world: the processes, whose `on_progress` are called equally often and with the same numbers.
    Returns: as of `rank_users`, in every process.
    Raises: AthweError for a NaN score, in every process.
    """
    model.eval()
    tables = model.tables
    assert isinstance(tables, ItemEmbeddings)
    shard = tables.rows
    rows = evaluation_rows(data.split, split, max_length=model.max_length)
    if sample is not None:
        rows = sampled_rows(rows, sample)
    ranks = np.zeros(len(rows), np.float64)
    table, bias = model.item_table(), model.item_bias()
    bias = None if bias is None else bias[shard.rows]
    # divided by the longest shard, so that all processes cut the same blocks
    users_at_once = max(min(BLOCK_USERS, BLOCK_SCORES // -(-shard.num_rows // world.size)), 1)
    blocks = user_blocks(rows, most=users_at_once, workers=1)
    done = 0
    for chosen in (part for block in blocks for part in token_batches(rows, block)):
        batch = pack(data, rows, chosen, max_length=model.max_length).to(model.device)
        scores = _own_scores(model, tables, batch, table, bias)
        users = batch.user_index.cpu().numpy()
        row = np.searchsorted(rows.user_index, users)
        seen = None
        if exclude_seen:
            seen_row, item = (torch.from_numpy(x).to(model.device) for x in items_before(data, users, rows.stop[row]))
            seen = torch.stack([seen_row, item])
        ranks[row] = _ranks(scores, batch.target_ids, seen, shard).cpu().numpy()
        del scores  # else those of two blocks are there at a time
        done += len(chosen)
        on_progress(done, len(rows))
    return ranks


def _own_scores(
    model: Model, tables: ItemEmbeddings, batch: PackedBatch, table: Float[Tensor, "n K"], bias: Tensor | None
) -> Float[Tensor, "B n"]:
    """Scores of the items of this process."""
    shard, targets = tables.rows, batch.target_ids.clamp(min=0)
    needed = torch.cat([batch.item_ids, targets]).unique()
    few = replace(
        batch,
        item_ids=torch.searchsorted(needed, batch.item_ids),
        target_ids=torch.where(batch.target_ids < 0, -1, torch.searchsorted(needed, targets)),
    )
    scores = model.scores(model.user_vectors(few, tables(needed)), table, bias)
    seen = model.seen_items(batch)
    if seen is None:
        return scores
    is_own = shard.is_own(seen.item_ids)
    return SeenItems(shard.own_index(seen.item_ids) * is_own, seen.terms * is_own).add_to(scores)


def _ranks(
    scores: Float[Tensor, "B n"], targets: Int64[Tensor, " B"], seen: Int64[Tensor, "2 E"] | None, shard: RowShard
) -> Float[Tensor, " B"]:
    """Rank of each target among the items of all processes, without those of the pairs (row, item) of `seen`."""
    group = shard.group
    if group.any(bool(scores.isnan().any())):
        remedy = "The network has diverged: take an earlier checkpoint or lower training.lr"
        raise AthweError(f"scores of {len(targets)} users", "must not be NaN", remedy=remedy)
    is_own, place = shard.is_own(targets), shard.own_index(targets)[:, None]
    own_score = scores.gather(1, place.clamp(max=scores.shape[1] - 1))[:, 0]
    target_score = group.total(torch.where(is_own, own_score, 0.0))[:, None]
    # a NaN is neither ahead nor a tie
    if group.is_first:
        scores[:, 0] = torch.nan  # the padding is no item
    if seen is not None:
        row, item = seen[:, shard.is_own(seen[1]) & (seen[1] != targets[seen[0]])]
        scores[row, shard.own_index(item)] = torch.nan
    at_once = max(_COUNTED_AT_ONCE // scores.shape[1], 1)
    pairs = list(zip(scores.split(at_once), target_score.split(at_once), strict=True))
    ahead = torch.cat([(part > target).sum(1) for part, target in pairs])
    ties = torch.cat([(part == target).sum(1) for part, target in pairs]) - is_own.long()
    return 1 + group.total(ahead + ties.double() / 2)
