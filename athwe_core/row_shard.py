"""The rows of an item table divided over the processes of a job: who holds which, and how the others come by them.

Row v belongs to process v modulo N, in which it is row v // N. Popular items often have low numbers; so every process holds
its part of them, and all answer about as many requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from athwe_core.distributed import ALONE, ProcessGroup

_ROWS_AT_ONCE = 2**10
"""Rows of each process that are drawn, sent, written or read at a time; a multiple of 16, see `draw_normal`."""


@dataclass(frozen=True)
class RowShard:
    """The rows of a table that this process holds."""

    num_rows: int
    """V, rows of the whole table."""
    group: ProcessGroup = ALONE
    """The processes that share the table; a single one holds it whole."""

    def __len__(self) -> int:
        """Number of rows of this process."""
        return len(range(self.num_rows)[self.rows])

    @property
    def is_whole(self) -> bool:
        """Whether this process holds the whole table."""
        return self.group.size == 1

    @property
    def rows(self) -> slice:
        """The rows of this process among those of the whole table."""
        return slice(self.group.rank, None, self.group.size)

    def is_own(self, items: Int64[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        """Whether this process holds the row of each item."""
        return items % self.group.size == self.group.rank

    def own_index(self, items: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
        """Index of an item's row in the process that holds it."""
        return items // self.group.size

    def look_up(
        self, items: Int64[Tensor, " n"], vectors_of: Callable[[Int64[Tensor, " m"]], Float[Tensor, "m K"]]
    ) -> Float[Tensor, "n K"]:
        """Vectors of items from the processes that hold them, with gradients. All processes must call it together.

        Args:
            items: ids in 0..V-1, others in each process; there may be none.
            vectors_of: computes the vectors of rows that this process holds, by their index here. The gradients of all
                processes' vectors arrive in its result.
        Returns: one vector for each item.
        """
        if self.is_whole:
            return vectors_of(items)
        group = self.group
        owner = items % group.size
        order = owner.argsort(stable=True)
        sent = owner.bincount(minlength=group.size)
        one_each = [1] * group.size
        counts = sent.tolist(), group.exchange(sent, one_each, one_each).tolist()
        requested = group.exchange(self.own_index(items)[order], *counts)
        found = _Exchange.apply(vectors_of(requested), group, *reversed(counts))
        return found.index_select(0, order.argsort())

    def pieces(self) -> Iterator[tuple[range, slice]]:
        """The table in pieces of bounded size, the same number of them in every process.

        Yields: rows of the whole table, and where those of them that this process holds are among its own.
        """
        step = _ROWS_AT_ONCE * self.group.size
        starts = list(range(0, self.num_rows, step))
        if len(starts) > 1 and self.num_rows - starts[-1] < 16:
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], self.num_rows], strict=True):
            first = start // self.group.size
            yield range(start, stop), slice(first, first + len(range(start, stop)[self.rows]))

    @torch.no_grad()
    def draw_normal(self, own: Float[Tensor, "n *D"], std: float, generator: torch.Generator | None) -> None:
        """Fill this process's rows with what `normal_` draws for the whole table.

        On a CPU torch draws 16 numbers at a time, so pieces of a multiple of 16 continue the same sequence.

        Args:
            own: the rows of this process.
            std: standard deviation around 0.
            generator: in the same state in every process; it moves on as for the whole table.
        """
        if self.is_whole:
            own.normal_(0, std, generator=generator)
            return
        for whole, place in self.pieces():
            own[place] = own.new_empty(len(whole), *own.shape[1:]).normal_(0, std, generator=generator)[self.rows]

    def gathered(self, own: Shaped[Tensor, "n *D"]) -> Iterator[Shaped[Tensor, "m *D"]]:
        """The whole table on rank 0, piece by piece. All processes must iterate together.

        Args:
            own: the rows of this process.
        Yields: consecutive rows of the whole table, on the CPU; elsewhere than on rank 0 no row.
        """
        for whole, place in self.pieces():
            part = own[place].cpu()
            if self.is_whole:
                yield part
                continue
            most = -(-len(whole) // self.group.size)
            padded = part.new_zeros(most, *part.shape[1:])
            padded[: len(part)] = part
            parts = [torch.empty_like(padded) for _ in range(self.group.size)] if self.group.is_first else None
            dist.gather(padded, parts)
            yield part[:0] if parts is None else torch.stack(parts, dim=1).flatten(0, 1)[: len(whole)]


class _Exchange(torch.autograd.Function):
    """Rows to the processes that they are for; the gradients go the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: ProcessGroup, sent: list[int], received: list[int]) -> Tensor:
        ctx.group, ctx.counts = group, (sent, received)
        return group.exchange(rows, sent, received)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        sent, received = ctx.counts
        return ctx.group.exchange(grad, received, sent), None, None, None
