"""Adam for the weights, and its lazy form for an id table of which a step touches a few rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from athwe_core.network import Network


class Optimizers:
    """One Adam per kind of gradient, used as one.

    Dense gradients: Adam, fused where the device can. The id table of a sampled catalogue loss has a gradient in a few rows
    only: torch's SparseAdam moves the moments and weights of those rows and of no others (lazy: a row that a step does not
    touch keeps its moments undecayed), with the bias correction of the step counted over all steps.
    """

    def __init__(self, network: Network, *, lr: float) -> None:
        trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        lazy = {"tables.id"} if network.tables.sparse else set()
        dense = {name: p for name, p in trainable.items() if name not in lazy}
        self._parts: list[tuple[list[str], torch.optim.Optimizer]] = [
            (list(dense), torch.optim.Adam(dense.values(), lr=lr, fused=True))
        ]
        if lazy:
            self._parts.append(
                (sorted(lazy), torch.optim.SparseAdam([trainable[name] for name in sorted(lazy)], lr=lr))
            )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for _, optimizer in self._parts:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move every weight."""
        for _, optimizer in self._parts:
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state as `weight name/part`."""
        return {f"{name}/{part}": value for name, part, value in self._entries()}

    def _entries(self) -> Iterator[tuple[str, str, Tensor]]:
        for names, optimizer in self._parts:
            states = optimizer.state_dict()["state"]
            for index, name in enumerate(names):
                for part, value in states.get(index, {}).items():
                    yield name, part, value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave. Raises: KeyError for a name that is no weight of this network."""
        known = {name for names, _ in self._parts for name in names}
        state: dict[str, dict[str, Any]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition("/")
            if name not in known:
                raise KeyError(name)
            state.setdefault(name, {})[part] = int(value) if value.dtype == torch.int64 else value
        for names, optimizer in self._parts:
            own = {index: state[name] for index, name in enumerate(names) if name in state}
            optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})


def weight_count(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
