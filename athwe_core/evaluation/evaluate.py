"""Rank of every user's held-out item among the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from athwe_core.data.rows import Rows, SplitInteractionArrays, evaluation_rows, items_before
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.evaluation.blocks import encode, in_workers, most_users, user_blocks, workers_on
from athwe_core.evaluation.ranking import distinct_others, refuse_nan
from athwe_core.evaluation.tiles import Cells, TiledScores
from athwe_core.models.protocol import Model
from athwe_core.nn.item_embeddings import divided_tables
from athwe_core.row_shard import RowShard


def rank_users(
    model: Model,
    data: SplitInteractionArrays,
    *,
    split: str,
    exclude_seen: bool = False,
    sample: int | None = None,
    world: ProcessGroup = ALONE,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Float64[np.ndarray, " U"]:
    """Expected rank of each asked user's next item, 1 = best, ties shared.

    The precision a run was trained with changes nothing. Blocks, the order of users and the number of threads change nothing
    but float32's rounding: items whose exact scores lie within 1e-5 of the user's largest score from the target's may change
    sides, so a rank moves by at most their number. (With random weights none of 500 users over 291 items moved; over 1,550
    items one of 1,859 did, by a half.)

    Args:
        model: put into evaluation mode; products are in float32 whatever it was trained with.
        split: `validation` or `test`; the items before the held-out one are the input.
        exclude_seen: take the items of the user's input out of the ranking, never the target.
        sample: rank only so many users, >= 1, see `sampled_rows`; None = all.
        world: processes that share the work; all return all ranks. Each ranks some blocks of users, or, where the item tables
            are divided over the processes, each counts among its own items for all users.
        on_progress: called after each block of this process with the number of users that all processes have ranked so far,
            and that of all. All processes call it equally often and with the same numbers; an exception that it raises ends
            the ranking.
    Returns: ranks in the order of `data.split.users(split)`, of the sample where there is one; halves where another item ties
        with the target.
    Raises: AthweError for a NaN score.
    """
    model.eval()
    device = model.device
    rows = evaluation_rows(data.split, split, max_length=model.max_length)
    if sample is not None:
        rows = sampled_rows(rows, sample)
    ranks = np.zeros(len(rows), np.float64)
    tables = divided_tables(model)
    with torch.inference_mode():
        table, bias = model.item_table(), model.item_bias()
    shard = RowShard(len(table)) if tables is None else tables.rows
    bias = None if bias is None else bias[shard.rows]

    @torch.inference_mode()
    def rank_block(chosen: NDArray[np.int64]) -> None:
        if not len(chosen):
            return
        block = encode(model, data, rows, chosen, table)
        row = np.searchsorted(rows.user_index, block.users)
        excluded = _seen(data, block.users, rows.stop[row], device) if exclude_seen else None
        score = partial(model.scores, block.vectors)
        scores = TiledScores(score, table, bias, users=len(row), terms=block.terms, shard=shard)
        ranks[row] = tiled_ranks(scores, block.target_ids, excluded=excluded).cpu().numpy()

    workers, of_users = workers_on(device), world
    if tables is not None:  # the processes meet in each block, so none has two at a time
        workers, of_users = 1, ALONE
    most = most_users(-(-shard.num_rows // shard.group.size))
    blocks = user_blocks(rows, most=most, workers=workers, processes=of_users.size)
    ranked = np.cumsum([len(block) for block in blocks])[of_users.size - 1 :: of_users.size].tolist()
    own = blocks[of_users.rank :: of_users.size]
    in_workers(rank_block, own, workers, lambda done: on_progress(ranked[done - 1], len(rows)))
    return ranks if of_users.size == 1 else world.total(torch.from_numpy(ranks).to(device)).cpu().numpy()


def tiled_ranks(
    scores: TiledScores,
    targets: Int64[Tensor, " B"],
    *,
    excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]] | None = None,
) -> Float64[Tensor, " B"]:
    """As `target_ranks`, of scores that come in tiles.

    Each tile adds #(score > target's) - #(score < target's), the sum of the signs of the differences. Where the item table is
    divided, each process counts among its own items and the counts are added; all processes must call this together.

    Args:
        scores: of B users, float32 or float64.
        targets, excluded: as in `target_ranks`; the same in every process.
    Returns: as `target_ranks`, on the CPU and exact for every V.
    Raises: AthweError for a NaN score, in every process.
    """
    own = scores.of_each(targets)
    rows, items = torch.arange(len(targets), device=targets.device), targets
    num_ranked = torch.full_like(targets, scores.num_items)
    if excluded is not None:
        others = distinct_others(*excluded, targets=targets, num_columns=scores.num_items + 1)
        num_ranked.index_add_(0, others[0], torch.ones_like(others[0]), alpha=-1)
        rows, items = torch.cat([rows, others[0]]), torch.cat([items, others[1]])
    not_counted = Cells(rows, items, own[rows])  # as high as the target: the sign is 0
    lead, largest = torch.zeros_like(targets), torch.full_like(own, -torch.inf)
    for first, cells in zip(scores.starts, scores.by_tile(not_counted), strict=True):
        tile = scores.tile(first)
        largest = torch.maximum(largest, tile.amax(dim=1))  # NaN if the row has one
        tile[cells.rows, cells.items] = cells.values
        lead += tile.sub_(own[:, None]).sign_().sum(dim=1).long()  # equal infinities differ by NaN, whose sign is 0
        del tile  # so that the next one has its memory, which is in the cache
    lead, has_nan = scores.shard.group.total(torch.stack([lead, largest.isnan().long()]))
    refuse_nan(has_nan > 0)
    return (num_ranked + lead + 1).cpu().double() / 2


def sampled_rows(rows: Rows, count: int) -> Rows:
    """The rows of so many users, drawn once: the same ones for a data set whatever model, seed and epoch.

    Args:
        rows: of `evaluation_rows`.
        count: users, >= 1; all rows where there are no more.
    Returns: rows in the same order.
    """
    if count >= len(rows):
        return rows
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), count, replace=False))
    return Rows(rows.start[chosen], rows.stop[chosen], rows.num_supervised[chosen], rows.user_index[chosen])


def _seen(
    data: SplitInteractionArrays, users: NDArray[np.int64], stop: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(row of the block, item) of every item before the held-out one, the whole history and not only the window."""
    row, item = items_before(data, users, stop)
    return torch.from_numpy(row).to(device), torch.from_numpy(item).to(device)
