"""Users in blocks: how many at a time, their vectors, and several blocks side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from athwe_core.batch import PackedBatch
from athwe_core.data.packing import pack
from athwe_core.data.rows import InteractionArrays, Rows
from athwe_core.evaluation.tiles import Cells
from athwe_core.models.protocol import Model
from athwe_core.nn.item_embeddings import ItemEmbeddings, divided_tables

BLOCK_USERS = 512
"""Most users of a block. The item table is read once for each block; with more users the time is that of the products."""
BLOCK_SCORES = 2**31
"""Most scores of a block: about ten seconds of a core, so that a stop does not wait long. Beyond 4 million items blocks have
fewer users."""
MIN_BLOCK_USERS = 128
"""Users that make a block worth a worker of its own."""
BATCH_TOKENS = 4096
"""Most tokens that the network reads at a time."""


@dataclass(frozen=True)
class UserBlock:
    """Some users as a model sees them: B users in the order of `users`."""

    users: NDArray[np.int64]
    """Index of each user."""
    vectors: Float[Tensor, "B K"]
    target_ids: Int64[Tensor, " B"]
    """The item that follows each history; -1 where it is not known."""
    terms: Cells | None
    """Terms for items of the histories; None for a model without them."""


def workers_on(device: torch.device) -> int:
    """Blocks that are worked on side by side: as many as there are threads on a CPU, else one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def most_users(num_item_rows: int) -> int:
    """Most users of a block that is ranked over so many items."""
    return max(min(BLOCK_USERS, BLOCK_SCORES // num_item_rows), 1)


def user_blocks(rows: Rows, *, most: int, workers: int, processes: int = 1) -> list[NDArray[np.int64]]:
    """Divide rows into blocks, short histories first.

    Args:
        rows: one for each user.
        most: users of a block, >= 1.
        workers: of a process. Blocks are smaller than they may be where otherwise some would have nothing to do.
        processes: which share the blocks. Their number is a multiple of this; blocks are empty where users are too few.
    Returns: indices into `rows`, in blocks of equal numbers; none without rows.
    """
    users = len(rows)
    if users == 0:
        return []
    least = -(-users // most)
    useful = -(-users // min(MIN_BLOCK_USERS, most))
    count = min(_multiple(least, workers * processes), useful)
    order = np.argsort(rows.stop - rows.start, kind="stable")
    return np.array_split(order, _multiple(count, processes))


def _multiple(count: int, of: int) -> int:
    """The next multiple."""
    return -(-count // of) * of


def encode(
    model: Model, data: InteractionArrays, rows: Rows, block: NDArray[np.int64], table: Float[Tensor, "V K"]
) -> UserBlock:
    """The vectors of a block, in batches of bounded numbers of tokens.

    Args:
        model: in evaluation mode. Where its item tables are divided over processes, all must call this with the same block.
        data, rows: what `block` has the indices of.
        block: at least one; histories in the order of their lengths.
        table: what the model's `item_table` returns.
    """
    tables = divided_tables(model)
    users, vectors, targets, terms, done = [], [], [], list[Cells](), 0
    for chosen in token_batches(rows, block):
        batch = pack(data, rows, chosen, max_length=model.max_length).to(model.device)
        users.append(batch.user_index.cpu().numpy())
        read = (batch, table) if tables is None else _with_vectors(batch, tables)
        vectors.append(model.user_vectors(*read))
        targets.append(batch.target_ids)
        seen = model.seen_items(batch)
        if seen is not None:
            row, place = seen.item_ids.nonzero(as_tuple=True)
            terms.append(Cells(row + done, seen.item_ids[row, place], seen.terms[row, place]))
        done += len(chosen)
    joined = Cells(*(torch.cat(parts) for parts in zip(*terms, strict=True))) if terms else None
    return UserBlock(np.concatenate(users), torch.cat(vectors), torch.cat(targets), joined)


def _with_vectors(batch: PackedBatch, tables: ItemEmbeddings) -> tuple[PackedBatch, Float[Tensor, "n K"]]:
    """A batch with indices of the items that it has, and their vectors from the processes that hold them."""
    targets = batch.target_ids.clamp(min=0)
    needed = torch.cat([batch.item_ids, targets]).unique()
    few = replace(
        batch,
        item_ids=torch.searchsorted(needed, batch.item_ids),
        target_ids=torch.where(batch.target_ids < 0, -1, torch.searchsorted(needed, targets)),
    )
    return few, tables(needed)


def token_batches(rows: Rows, block: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """A block in parts of at most `BATCH_TOKENS` tokens, or of a single row that has more."""
    ends = np.cumsum(rows.stop[block] - rows.start[block])
    first = 0
    while first < len(block):
        before = ends[first - 1] if first else 0
        stop = max(int(np.searchsorted(ends, before + BATCH_TOKENS, side="right")), first + 1)
        yield block[first:stop]
        first = stop


def in_workers(
    work: Callable[[NDArray[np.int64]], None],
    blocks: Sequence[NDArray[np.int64]],
    workers: int,
    after_block: Callable[[int], None] = lambda _: None,
) -> None:
    """Every block, some side by side: so threads wait for each other at the end, not in each operation.

    Args:
        work: called once with each block, in several threads.
        blocks: indices of users.
        workers: blocks at a time; they share torch's threads.
        after_block: called in this thread with the number of blocks done, after each of them in their order; an exception
            that it raises ends the work.
    """
    threads, workers = torch.get_num_threads(), min(workers, len(blocks))
    pool = None
    all_began = Barrier(workers + 1)

    def begin() -> None:
        torch.set_num_threads(threads // workers)
        torch.get_num_threads()  # from now on the setting of another thread does not reach this one
        all_began.wait()

    try:
        if workers > 1:
            pool = ThreadPoolExecutor(workers, initializer=begin)
            results = pool.map(work, blocks)  # at least as many blocks as workers, so all of them begin
            all_began.wait()
            torch.set_num_threads(threads)  # a worker's setting reaches every thread that begins after it
        else:
            results = map(work, blocks)
        for done, _ in enumerate(results, start=1):
            after_block(done)
    finally:
        all_began.abort()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
