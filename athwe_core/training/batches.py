"""The batches of an epoch in order, on CUDA packed by a thread while the steps before them run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from athwe_core.batch import PackedBatch
from athwe_core.data.packing import Padding, pack_shard
from athwe_core.data.rows import InteractionArrays, Rows
from athwe_core.distributed import BatchShards, ProcessGroup
from athwe_core.training.step import steps_ahead

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchPacker:
    """Packs this process's shard of each batch.

    Args:
        data, rows, max_length, padding: as of `pack_shard`.
        device: where the batches are used.
        world: the processes that share each batch.
    """

    data: InteractionArrays
    rows: Rows
    max_length: int
    padding: Padding
    device: torch.device
    world: ProcessGroup

    def each(self, batches: Iterable[NDArray[np.int64]]) -> Generator[ReadyBatch, None, None]:
        """Pack batches in order, on CUDA as many ahead as steps may be under way.

        Args:
            batches: indices into the rows for each batch.
        Yields: each batch. Close the generator where it is left early.
        """
        return in_advance(self._ready, batches, count=steps_ahead(self.device))

    def _ready(self, chosen: NDArray[np.int64]) -> ReadyBatch:
        is_own, shards = self.world.divide(self.rows.num_supervised[chosen], multiple=self.padding.targets)
        batch = self.packed(chosen, is_own)
        return ReadyBatch(self, chosen, is_own, batch.pinned() if self.device.type == "cuda" else batch, shards)

    def packed(self, chosen: NDArray[np.int64], is_own: NDArray[np.bool_]) -> PackedBatch:
        """`pack_shard` of rows of a batch."""
        return pack_shard(self.data, self.rows, chosen, max_length=self.max_length, is_own=is_own, padding=self.padding)


@dataclass(frozen=True)
class ReadyBatch:
    """A packed batch on the CPU, and how it is divided over processes."""

    packer: BatchPacker
    chosen: NDArray[np.int64]
    is_own: NDArray[np.bool_]
    batch: PackedBatch
    shards: BatchShards

    def __call__(self, targets: int | None = None) -> PackedBatch | None:
        """The batch, or its first rows that have at most this many targets.

        Args:
            targets: None = all rows.
        Returns: the batch on the device; None where the first row has more targets.
        """
        if targets is None:
            return self.whole()
        few = self.packer.rows.num_supervised[self.chosen].cumsum() <= targets
        if not few.any():
            return None
        return self.packer.packed(self.chosen[few], self.is_own[few]).to(self.packer.device)

    def whole(self) -> PackedBatch:
        """The batch on the device."""
        return self.batch.to(self.packer.device)


def in_advance(call: Callable[[Item], Result], items: Iterable[Item], *, count: int) -> Generator[Result, None, None]:
    """Apply a function to items in order.

    Args:
        call: the function. Where `count` is not 0 another thread calls it, one item at a time.
        items: its arguments.
        count: most results that wait to be used, >= 0; 0 = each is computed here when it is needed.
    Yields: the results in order. An exception of `call` is raised where its result would be.
    """
    if count == 0:
        yield from map(call, items)
        return
    with ExitStack() as stack:
        worker = ThreadPoolExecutor(1, thread_name_prefix="athwe-pack")
        stack.callback(worker.shutdown, cancel_futures=True)
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(worker.submit(call, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
