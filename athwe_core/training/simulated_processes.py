"""A group of N processes of which only this one is there: to measure the memory of a step, whose values mean nothing.

Every other process is taken to do what this one does. So each exchange brings as much as is sent, which is right on average:
rows of tables and targets are divided evenly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from athwe_core.distributed import BatchShards, ProcessGroup


@dataclass(frozen=True)
class SimulatedGroup(ProcessGroup):
    """As `ProcessGroup`; nothing is sent, and nobody waits."""

    def total(self, value: Tensor) -> Tensor:
        """A copy."""
        return value.clone()

    def any(self, claim: bool) -> bool:
        """The claim."""
        return claim

    def exchange(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """A copy of what is sent."""
        assert sum(sent) == sum(received)
        return rows.clone()


@dataclass(frozen=True)
class SimulatedShards(BatchShards):
    """As `BatchShards`, with the targets of the whole batch."""

    target_ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """One for each supervised token of the whole batch."""

    def total(self, value: Tensor) -> Tensor:
        """A copy."""
        return value.clone()

    def gather(self, rows: Tensor) -> Tensor:
        """Zeros for the other processes; for ids the targets of the whole batch, which decide about the work of its loss."""
        found = super().gather(rows)
        return self.target_ids if found.dtype == torch.int64 and found.ndim == 1 else found
