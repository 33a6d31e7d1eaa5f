"""Rows of a batch in bins for attention in both directions: the masks of torch's Transformer layers, without padded rows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor


class RowBins:
    """Slots of the attention grid with the row of each: a bin holds whole rows, and a slot attends within its row.

    One product over G bins of S slots takes the place of one over rows padded to the longest. Empty slots have row -1; they
    attend to each other, and no token reads them.

    Args:
        grid_tokens: token in each slot, -1 = empty.
        token_slots: flat slot of each token.
        rows: row of each token.
    """

    def __init__(
        self, grid_tokens: Int64[Tensor, "G S"], token_slots: Int64[Tensor, " T"], rows: Int64[Tensor, " T"]
    ) -> None:
        self.token_slots = token_slots
        self.tokens = grid_tokens.clamp(min=0)
        self.rows: Int64[Tensor, "G S"] = torch.where(grid_tokens >= 0, rows[self.tokens], -1)

    def place(self, values: Shaped[Tensor, "T *D"]) -> Shaped[Tensor, "G S *D"]:
        """Arrange values of tokens in their slots.

        Args:
            values: one for each token.
        Returns: the value of each slot; an empty slot has that of the first token.
        """
        return values[self.tokens]

    def take(self, values: Shaped[Tensor, "G S *D"], tokens: Int64[Tensor, " N"]) -> Shaped[Tensor, "N *D"]:
        """Gather values of some tokens.

        Args:
            values: one for each slot.
            tokens: indices of tokens.
        Returns: the value of each of them.
        """
        return values.flatten(0, 1)[self.token_slots[tokens]]


def hidden_pairs(
    query_rows: Int64[Tensor, "G Q"], key_rows: Int64[Tensor, "G K"], key_mask: Bool[Tensor, "G K"], *, num_heads: int
) -> Bool[Tensor, "H Q K"]:
    """Which keys a query does not attend to, as torch's attention takes it.

    Args:
        query_rows, key_rows: row of each slot; -1 = empty.
        key_mask: False = no slot attends to it, except an empty slot to empty ones.
        num_heads: h; the leading axis is G h.
    Returns: True where a pair is hidden.
    """
    allowed = (query_rows[:, :, None] == key_rows[:, None]) & (key_mask | (key_rows < 0))[:, None]
    return (~allowed).repeat_interleave(num_heads, dim=0)


def hidden_pairs_within(
    rows: Int64[Tensor, "G S"], key_mask: Bool[Tensor, "G S"], *, num_heads: int
) -> Bool[Tensor, "H S S"]:
    """`hidden_pairs` of slots with themselves: every slot attends to itself, also where its key is masked.

    Args:
        rows, key_mask, num_heads: as in `hidden_pairs`.
    Returns: True where a pair is hidden.
    """
    itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
    return hidden_pairs(rows, rows, key_mask, num_heads=num_heads) & ~itself


def first_of_each(rows: Int64[Tensor, "G S"], labels: Int64[Tensor, "G S"]) -> Bool[Tensor, "G S"]:
    """Count equal labels of a row once.

    Args:
        rows: row of each slot.
        labels: >= 0 and below 2^31.
    Returns: True at one slot for each distinct label of a row.
    """
    keys = (rows + 1) * 2**31 + labels
    order = keys.argsort(dim=1, stable=True)
    ordered = keys.gather(1, order)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(is_first).scatter(1, order, is_first)
