"""The shared vocabulary: axes, modality order, and the batch type that `data` makes and the models read.

A row is one sequence of a batch; a token is one position of it. Axes: T packed tokens, B rows, N supervised tokens, M
modalities, D hidden size, V items with the padding item 0, K = M D, F feature width, C categories, E experts (E1
interactive, E2 temporal), J wavelet levels, G x S attention grid (bins x slots), B1 = B + 1, Vr items that a step needs,
N_all supervised tokens of all processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64, Integer, Shaped
from torch import Tensor

MODALITIES = ("id", "text", "image")
"""The order of modalities wherever they are stacked or concatenated."""


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on `device`, copied from pinned memory so that the CPU does not wait for a CUDA device.

    Args:
        value: any tensor.
        device: the target device.
    Returns: `value` itself where it is on the device already.
    """
    if torch.device(device).type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


@dataclass(frozen=True)
class PackedBatch:
    """Rows of item tokens laid end to end, without padding between them.

    A row is a window of one user's history; its tokens are in time order. Each token in `target_index` is supervised: its
    state predicts the item that follows it. In packed batching these are the tokens of a window that no earlier window
    supervised; in prefix batching and in evaluation they are the last token of each row.

    Padding at the end of each axis keeps shapes fixed for compiled code. Padding tokens have item 0, weight 0 and a row of
    their own, and have no slot in the grid. Padding rows and bins are empty. Padding targets are -1. No result depends on
    the states of padding.
    """

    item_ids: Int64[Tensor, " T"]
    """Internal item ids in 1..V-1; 0 = padding."""
    timestamps: Int64[Tensor, " T"]
    """Unix seconds, UTC."""
    intervals: Int64[Tensor, " T"]
    """Seconds since the previous token of the row, >= 0; 0 for the first token of a row."""
    positions: Int64[Tensor, " T"]
    """Index of each token in its row; 0 = oldest."""
    offsets: Int64[Tensor, " B1"]
    """Row b holds the tokens offsets[b]..offsets[b+1]-1."""
    rows: Int64[Tensor, " T"]
    """Row of each token."""
    user_index: Int64[Tensor, " B"]
    """User of each row; -1 = padding."""
    target_index: Int64[Tensor, " N"]
    """Indices of supervised tokens, ascending."""
    target_ids: Int64[Tensor, " N"]
    """Item that follows each supervised token; -1 = padding."""
    prefix_weight: Float32[Tensor, " T"]
    """Number of prefix rows that contain the token, for losses on single tokens: 1 in a prefix row. In packed batching
    only the window that supervises a token counts it."""
    grid_tokens: Int64[Tensor, "G S"]
    """Token in each slot of the attention grid; -1 = empty. A bin holds whole rows, their tokens in order."""
    token_slots: Int64[Tensor, " T"]
    """Flat slot of each token, the inverse of `grid_tokens`; padding tokens point to an empty slot."""
    all_supervised: bool
    """True if `target_index` is arange(T), so that no gather is needed."""
    num_targets: int
    """Targets without padding."""
    longest_row: int
    """Tokens of the longest row."""

    @property
    def num_tokens(self) -> int:
        """T, padding included."""
        return self.item_ids.shape[0]

    @property
    def num_rows(self) -> int:
        """B, padding included."""
        return self.user_index.shape[0]  # int() would make a constant of it in a traced graph

    @property
    def padded(self) -> PaddedView:
        """The rows as a rectangle, right-padded to the longest one; made anew at each look."""
        return self.padded_to(self.longest_row)

    def padded_to(self, length: int) -> PaddedView:
        """The rows as a rectangle.

        Args:
            length: L, at least that of the longest row.
        Returns: the view, rows padded on the right to L positions.
        """
        assert length >= self.longest_row, f"expected a length of at least {self.longest_row}, got {length}"
        lengths = torch.where(self.user_index >= 0, self.offsets.diff(), 0)
        place = torch.arange(length, device=lengths.device)
        return PaddedView(
            mask=place < lengths[:, None],
            token_index=(self.offsets[:-1, None] + place).clamp(max=max(self.num_tokens - 1, 0)),
            lengths=lengths,
            rows=self.rows,
            positions=self.positions.clamp(max=length - 1),
            target_index=self.target_index,
        )

    def to(self, device: torch.device | str) -> PackedBatch:
        """Move the batch.

        Args:
            device: the target device, see `to_device`.
        Returns: a batch with all tensors on it.
        """
        values: list[Any] = [getattr(self, f.name) for f in fields(self)]
        moved: list[Any] = [to_device(v, device) if isinstance(v, Tensor) else v for v in values]
        return PackedBatch(*moved)

    def pinned(self) -> PackedBatch:
        """Copy the batch to pinned memory, which `to` then does not have to do; for a machine with a CUDA device.

        Returns: the batch, still on the CPU.
        """
        values: list[Any] = [getattr(self, f.name) for f in fields(self)]
        pinned: list[Any] = [v.pin_memory() if isinstance(v, Tensor) else v for v in values]
        return PackedBatch(*pinned)


@dataclass(frozen=True)
class PaddedView:
    """The rows of a batch as a rectangle of B rows and L positions, for recurrence, FFT and bidirectional attention.

    Rows begin at position 0; positions after a row's last token are padding. Padding rows have no token.
    """

    mask: Bool[Tensor, "B L"]
    """True where a position holds a token."""
    token_index: Int64[Tensor, "B L"]
    """Token at each position; an arbitrary one where the mask is False."""
    lengths: Int64[Tensor, " B"]
    """Number of tokens of each row."""
    rows: Int64[Tensor, " T"]
    positions: Int64[Tensor, " T"]
    target_index: Int64[Tensor, " N"]

    def pad(self, values: Shaped[Tensor, "T *D"], fill: int | float = 0) -> Shaped[Tensor, "B L *D"]:
        """Arrange values of tokens as a rectangle.

        Args:
            values: one for each token.
            fill: value of padding.
        Returns: the value of each position.
        """
        found = values.index_select(0, self.token_index.flatten()).view(*self.mask.shape, *values.shape[1:])
        mask = self.mask.view(*self.mask.shape, *[1] * (values.ndim - 1))
        return torch.where(mask, found, torch.full((), fill, dtype=values.dtype, device=values.device))

    def unpad(self, values: Shaped[Tensor, "B L *D"]) -> Shaped[Tensor, "T *D"]:
        """The inverse of `pad`.

        Args:
            values: one for each position of the rectangle.
        Returns: the value of each token.
        """
        return values[self.rows, self.positions]

    def at_targets(self, values: Shaped[Tensor, "B L *D"]) -> Shaped[Tensor, "N *D"]:
        """Gather the values of supervised tokens.

        Args:
            values: one for each position of the rectangle.
        Returns: the value at each of `target_index`.
        """
        return values[self.rows[self.target_index], self.positions[self.target_index]]


@dataclass(frozen=True)
class Attribute:
    """Labels of the items of one kind: one of each item, such as its brand, or several, such as its categories."""

    values: Int64[Tensor, "V *A"]
    """Numbers of each item's labels: (V,) where an item has one, (V, A) where it has at most A different ones, in any order.
    0 = none."""
    num_values: int
    """One more than the number of labels, so that 0 counts."""

    def multi_hot(self, items: Int64[Tensor, " n"]) -> Int64[Tensor, "n C"]:
        """Labels as 0 and 1.

        Args:
            items: ids in 0..V-1.
        Returns: one column for each label; an item without labels has zeros.
        """
        values = self.values.view(len(self.values), -1)[items]
        found = values.new_zeros(len(items), self.num_values)
        return found.scatter_(1, values, 1)[:, 1:]


@dataclass(frozen=True)
class SeenItems:
    """A term for the score of each item of the histories. S = tokens of the longest row."""

    item_ids: Int64[Tensor, "N S"]
    """Items before or at each supervised position; 0 where there is none."""
    terms: Float[Tensor, "N S"]
    """Added to the score of that item; 0 where there is none, and at all but the latest place of an item."""

    def add_to(self, scores: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Add the terms to the scores of all items.

        Args:
            scores: of every item for each supervised token; they are left as they are.
        Returns: the scores with the terms.
        """
        return scores.scatter_add(1, self.item_ids, self.terms.to(scores.dtype))

    def among(self, items: Int64[Tensor, " C"]) -> SeenItems:
        """The same for scores of some items only.

        Args:
            items: ids of the columns, ascending.
        Returns: columns instead of item ids; items that have no column get the term 0 at column 0.
        """
        columns = torch.searchsorted(items, self.item_ids).clamp(max=len(items) - 1)
        has_column = items[columns] == self.item_ids
        return SeenItems(columns * has_column, self.terms * has_column)


@dataclass(frozen=True)
class Catalogue:
    """Features and labels of the items. Entry v of each tensor belongs to item v; entry 0 is the padding item."""

    num_item_rows: int
    """V, the padding item included."""
    features: dict[str, Float[Tensor, "V F"]] = field(default_factory=dict)
    """Frozen feature vectors by modality (text, image)."""
    layer_states: dict[str, Float[Tensor, "V S F"]] = field(default_factory=dict)
    """States of the layers of frozen encoders by modality (text, image)."""
    categories: Integer[Tensor, "V C"] | None = None
    """Multi-hot, 0 or 1."""
    attributes: dict[str, Attribute] = field(default_factory=dict)
    """Labels by kind: `categories`, or a column of the item metadata."""
    clusters: dict[str, Integer[Tensor, " V"]] = field(default_factory=dict)
    """Cluster label of each item by modality; -1 = no cluster."""
    similar_items: Int64[Tensor, " V"] | None = None
    """The most similar item of each item by common users; its own id where it has none."""
    similarity: Float[Tensor, " V"] | None = None
    """How similar that item is; 0 where an item has none."""
    target_counts: Int64[Tensor, " V"] | None = None
    """How often each item is a training target; the sampled catalogue loss draws by it."""


@dataclass(frozen=True)
class Histories:
    """The training interactions of all users, each user's in time order."""

    offsets: Int64[Tensor, " U1"]
    """User u has the interactions offsets[u]..offsets[u+1]-1."""
    item_ids: Int64[Tensor, " I"]
    """Items in 1..V-1."""


@dataclass(frozen=True)
class TimeRange:
    """Times of the training split, which set the size of the time tables."""

    first: int
    """First interaction, unix seconds."""
    last: int
    """Last interaction, unix seconds."""
    longest_interval: int
    """Longest time between two neighbouring interactions of a user, seconds."""
