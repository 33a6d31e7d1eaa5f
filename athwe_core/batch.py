"""The vocabulary: axes, modality order, and the one batch type that data makes and the network reads.

Axes: T packed tokens, B rows (sequences or windows of one), N supervised tokens, M modalities, D hidden size, V item rows
(row 0 = padding), K = M D, F feature width, C categories, E experts (E1 interactive, E2 temporal), J wavelet levels,
G x S attention grid (bins x slots), B1 = B + 1, Vr rows of V that a step needs, N_all supervised tokens of all processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Integer
from torch import Tensor

MODALITIES = ("id", "text", "image")
"""The order of modalities wherever they are stacked or concatenated."""


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on `device` (itself when it is there already), without waiting for what CUDA is doing meanwhile."""
    if torch.device(device).type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


@dataclass(frozen=True)
class PackedBatch:
    """Rows of item tokens laid end to end: no padding anywhere.

    A row is the window of one user's history; its tokens are in time order. Every token in `target_index` is asked for the
    item that follows it: all new tokens of a window in packed batching, the last token of a row in prefix batching and in
    evaluation.

    Padding keeps shapes fixed for compiled code: it makes each axis a multiple. Padding tokens have item 0, weight 0, a row
    of their own at the end, and lie in no slot of the grid; padding rows and bins are empty; padding targets are -1. Nothing
    reads the states of padding.
    """

    item_ids: Int64[Tensor, " T"]
    """Internal ids, 1..V-1; 0 = padding."""
    timestamps: Int64[Tensor, " T"]
    """Unix seconds, UTC."""
    intervals: Int64[Tensor, " T"]
    """Seconds since the token before in the row; 0 for a row's first token."""
    positions: Int64[Tensor, " T"]
    """0 = oldest token of the row."""
    offsets: Int64[Tensor, " B1"]
    """Row b is tokens offsets[b]..offsets[b+1]-1."""
    rows: Int64[Tensor, " T"]
    """Row of each token."""
    user_index: Int64[Tensor, " B"]
    """User of each row; -1 = padding."""
    target_index: Int64[Tensor, " N"]
    """Token that is asked, increasing."""
    target_ids: Int64[Tensor, " N"]
    """Item that follows it; -1 = padding."""
    prefix_weight: Float32[Tensor, " T"]
    """Prefix rows the token stands for: 1 in a prefix row; in a packed window the number of prefix rows that contain it,
    counted once over all windows."""
    grid_tokens: Int64[Tensor, "G S"]
    """Token in each slot of the attention grid, -1 = empty. A row lies in one bin, in order; a bin holds many rows."""
    token_slots: Int64[Tensor, " T"]
    """Flat slot of each token: the inverse of grid_tokens; an empty slot for padding."""
    all_supervised: bool
    """Target_index is every token in order, known without a look."""
    num_targets: int
    """Targets without padding."""

    @property
    def num_tokens(self) -> int:
        return int(self.item_ids.shape[0])

    @property
    def num_rows(self) -> int:
        return int(self.user_index.shape[0])

    def to(self, device: torch.device | str) -> PackedBatch:
        """The batch on `device` (itself when it is there already)."""
        values: list[Any] = [getattr(self, f.name) for f in fields(self)]
        moved: list[Any] = [to_device(v, device) if isinstance(v, Tensor) else v for v in values]
        return PackedBatch(*moved)


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items beside their ids: row k of each tensor belongs to item k, row 0 is padding."""

    num_item_rows: int
    """V."""
    features: dict[str, Float[Tensor, "V F"]] = field(default_factory=dict)
    """Frozen vectors by modality (text, image)."""
    categories: Integer[Tensor, "V C"] | None = None
    """Multi-hot."""
    clusters: dict[str, Integer[Tensor, " V"]] = field(default_factory=dict)
    """Cluster labels by modality, -1 = none."""
    target_counts: Int64[Tensor, " V"] | None = None
    """How often each item is a training target, for the sampled catalogue loss."""


@dataclass(frozen=True)
class TimeRange:
    """Unix seconds of the training split, which size the time tables."""

    first: int
    last: int
    longest_interval: int
