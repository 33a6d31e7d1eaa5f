"""Counts the bytes of all tensors that are alive, and refuses more than a limit: a device's memory without the device."""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryMeter(TorchDispatchMode):
    """Inside, every tensor that an operation makes counts until it is gone; those of the meta device hold nothing.

    Args:
        limit: most bytes alive at once; one more raises torch.OutOfMemoryError, as a CUDA device does. None = no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit, self.alive, self.peak, self.refused = limit, 0, 0, 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def forget_peak(self) -> None:
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
