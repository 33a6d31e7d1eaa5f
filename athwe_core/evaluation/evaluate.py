"""Rank of every user's held-out item among the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Barrier

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray

from athwe_core.data.packing import pack
from athwe_core.data.rows import Rows, SplitInteractionArrays, evaluation_rows, items_before
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.evaluation.ranking import target_ranks
from athwe_core.models.protocol import Model

BLOCK_USERS = 512
BLOCK_TOKENS = 4096
BLOCK_SCORES = 2**26
"""Scores held at a time: 256 MiB. Beyond 131,072 items the blocks have fewer users."""
MIN_BLOCK_USERS = 128
"""Users that make a block worth a worker of its own."""


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
        world: processes that share the work, each some blocks of users; all return all ranks.
        on_progress: called after each block with the number of users ranked so far and in all, of this process; an exception
            that it raises ends the ranking.
    Returns: ranks in the order of `data.split.users(split)`, of the sample where there is one; halves where another item ties
        with the target.
    Raises: AthweError for a NaN score.
    """
    model.eval()
    device, L = model.device, model.max_length
    rows = evaluation_rows(data.split, split, max_length=L)
    if sample is not None:
        rows = sampled_rows(rows, sample)
    ranks = np.zeros(len(rows), np.float64)
    with torch.inference_mode():
        table, bias = model.item_table(), model.item_bias()

    @torch.inference_mode()
    def rank_block(chosen: NDArray[np.int64]) -> None:
        batch = pack(data, rows, chosen, max_length=L).to(device)
        scores = model.ranking_scores(batch, table, bias)
        users = batch.user_index.cpu().numpy()
        row = np.searchsorted(rows.user_index, users)
        excluded = _seen(data, users, rows.stop[row], device) if exclude_seen else None
        ranks[row] = target_ranks(scores, batch.target_ids, excluded=excluded).cpu().numpy()

    workers, users_at_once = workers_and_users(len(table), device)
    blocks = list(islice(user_blocks(rows, users_at_once), world.rank, None, world.size))
    in_workers(rank_block, blocks, workers, on_progress)
    return ranks if world.size == 1 else world.total(torch.from_numpy(ranks).to(device)).cpu().numpy()


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


def workers_and_users(num_item_rows: int, device: torch.device) -> tuple[int, int]:
    """Blocks that are ranked side by side, and the most users of one: together they hold `BLOCK_SCORES`.

    On a CPU as many as there are threads, but of a large catalogue fewer: each block reads all of its table, which must pay.
    The threads that are left share the operations of a block.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    workers = max(min(threads, BLOCK_SCORES // (MIN_BLOCK_USERS * num_item_rows)), 1)
    return workers, max(min(BLOCK_USERS, BLOCK_SCORES // (workers * num_item_rows)), 1)


def in_workers(
    rank_block: Callable[[NDArray[np.int64]], None],
    blocks: list[NDArray[np.int64]],
    workers: int,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Every block, some side by side: so threads wait for each other at the end, not in each operation.

    Args:
        rank_block: called once with each block, in several threads.
        blocks: indices of users.
        workers: blocks at a time; they share torch's threads.
        on_progress: as in `rank_users`.
    """
    threads, workers = torch.get_num_threads(), min(workers, len(blocks))
    done, users = 0, sum(map(len, blocks))
    pool = None
    all_began = Barrier(workers + 1)

    def begin() -> None:
        torch.set_num_threads(threads // workers)
        torch.get_num_threads()  # from now on the setting of another thread does not reach this one
        all_began.wait()

    try:
        if workers > 1:
            pool = ThreadPoolExecutor(workers, initializer=begin)
            ranked = pool.map(rank_block, blocks)  # at least as many blocks as workers, so all of them begin
            all_began.wait()
            torch.set_num_threads(threads)  # a worker's setting reaches every thread that begins after it
        else:
            ranked = map(rank_block, blocks)
        for block, _ in zip(blocks, ranked, strict=True):
            done += len(block)
            on_progress(done, users)
    finally:
        all_began.abort()
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def user_blocks(rows: Rows, users_at_once: int) -> Iterator[NDArray[np.int64]]:
    """Rows by length in blocks of bounded users and tokens."""
    lengths = rows.stop - rows.start
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        tokens = np.cumsum(lengths[order[first : first + users_at_once]])
        count = max(int(np.searchsorted(tokens, BLOCK_TOKENS, side="right")), 1)
        yield order[first : first + count]
        first += count


def _seen(
    data: SplitInteractionArrays, users: NDArray[np.int64], stop: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(row of the block, item) of every item before the held-out one, the whole history and not only the window."""
    row, item = items_before(data, users, stop)
    return torch.from_numpy(row).to(device), torch.from_numpy(item).to(device)
