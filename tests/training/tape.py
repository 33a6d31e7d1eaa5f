"""Operations as they are dispatched: recorded to be replayed, as a CUDA graph does, and copies from the CPU to a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = (
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.is_nonzero",
    "aten._unique",
    "aten.unique",
    "aten.masked_select",
)


class Tape(TorchDispatchMode):
    """The operations of a call in order. As in a graph, numbers in Python are fixed and every result keeps its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(function).startswith(READS), f"{function} reads a value of the device"
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Run the operations again; new results go to the memory of the recorded ones."""
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Transfers(TorchDispatchMode):
    """Notes whether each copy from the CPU to the device goes on without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.are_free: list[bool] = []

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sources = {value.device.type for value in args if isinstance(value, Tensor)}
        if isinstance(result, Tensor) and result.device.type == "meta" and "cpu" in sources:
            self.are_free.append(bool((kwargs or {}).get("non_blocking")))
        return result


def tape_record(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
    """What `RecordedSteps` takes as `record`: recording leaves weights and moments as they were, as a graph's does."""

    def record(call: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        moments = [value for weight in optimizer.state.values() for value in weight.values()]
        state = [*model.parameters(), *model.buffers(), *moments]
        before = [value.detach().clone() for value in state]
        with Tape() as tape:
            result = call()
        with torch.no_grad():
            for value, old in zip(state, before, strict=True):
                value.copy_(old)
        return result, tape.replay

    return record
