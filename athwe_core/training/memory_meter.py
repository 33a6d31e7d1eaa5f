"""Peak memory of a piece of work: counters of the device on CUDA, a count of live tensors elsewhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Measure the memory that a piece of work needs at its peak.

    Args:
        work: does all its tensor operations on `device` and in this thread.
        device: where the tensors are.
    Returns: most bytes of tensors alive at once that were not there before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with MemoryMeter() as meter:
        work()
    return meter.peak


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make inside the context, until they are freed.

    Tensors of the meta device hold nothing and count nothing. Only operations of the thread that entered the context count.

    Args:
        limit: most bytes alive at once; one more raises torch.OutOfMemoryError, as a CUDA device does. None = no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit, self.alive, self.peak, self.refused = limit, 0, 0, 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def forget_peak(self) -> None:
        """Begin a new peak at what is alive now."""
        self.peak = self.alive

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        before = set(_storages((args, kwargs)))
        for storage in _storages(found):
            if storage not in before:
                self._count(storage)
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.alive += size
        weakref.finalize(storage, self._gone, size)
        self.peak = max(self.peak, self.alive)
        if self.limit is not None and self.alive > self.limit:
            self.refused += 1
            raise torch.OutOfMemoryError(f"tried to hold {self.alive} of {self.limit} bytes")

    def _gone(self, size: int) -> None:
        self.alive -= size


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for tensor in tree_leaves(tree):
        if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
            parts = (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,)
            yield from (part.untyped_storage() for part in parts)
