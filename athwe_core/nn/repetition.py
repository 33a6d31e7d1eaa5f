"""A learned term for items of the history: how likely a user is to take an item again."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from athwe_core.batch import PackedBatch, SeenItems

DISTANCES = 10
"""Buckets of the distance in positions: 0, 1, 2, 3-4, 5-8, ..., each twice as wide as the one before."""
GAPS = 14
"""Buckets of the time since the item: below a day, below 2 days, below 4 days, ..."""
COUNTS = 4
"""Once, twice, three times, more often."""
DAY = 86_400
STEP_SCALE = 10.0
"""Weights are multiplied by it, so that a term of -10, which takes an item out, is near at common learning rates."""


class Repetition(nn.Module):
    """Terms by recency, gap and count of each item of the history.

        score(v) += 10 (a[log2 distance] + b[log2 gap] + c[count])    for each v in the history

    distance: positions since the latest occurrence of v. gap: days between that occurrence and the latest interaction.
    count: occurrences up to now. Where nobody takes an item again the terms become strongly negative and seen items leave
    the ranking; where people do, those that are likely to return rise.

    All weights begin at 0, so that an untrained term changes no score. Nothing depends on the time of the target.

    Source: ours. The kinds of features are those of repeat-consumption models (Anderson et al. 2014).
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_distance = nn.Parameter(torch.zeros(DISTANCES))
        self.by_gap = nn.Parameter(torch.zeros(GAPS))
        self.by_count = nn.Parameter(torch.zeros(COUNTS))
        bounds = torch.tensor([0, *(2**power for power in range(max(DISTANCES, GAPS) - 2))])
        self.register_buffer("bounds", bounds, persistent=False)

    def forward(self, batch: PackedBatch) -> SeenItems:
        """Items of each supervised position's history with their terms.

        Args:
            batch: rows of any batching; a row's earlier tokens are the history.
        Returns: one term for each different item of the row up to the position, at its latest place.
        """
        view = batch.padded
        items, times = view.pad(batch.item_ids), view.pad(batch.timestamps)
        length = items.shape[1]
        places = torch.arange(length, device=items.device)
        is_same = (items[:, :, None] == items[:, None, :]) & view.mask[:, :, None] & view.mask[:, None, :]
        is_later = places[None, :] > places[:, None]
        later = torch.where(is_same & is_later, places, length)
        next_same = later.amin(-1)  # place of the next occurrence of the same item in the row
        count = (is_same & ~is_later).sum(-1)

        rows, now = batch.rows[batch.target_index], batch.positions[batch.target_index][:, None]
        rows = rows.clamp(max=batch.num_rows - 1)
        is_latest = (places <= now) & (next_same[rows] > now) & (batch.target_ids >= 0)[:, None] & view.mask[rows]
        distance = (now - places).clamp(min=0)
        gap = (batch.timestamps[batch.target_index][:, None] - times[rows]).clamp(min=0)
        terms = (
            self.by_distance[self._log2_bucket(distance, DISTANCES)]
            + self.by_gap[self._log2_bucket(gap // DAY, GAPS)]
            + self.by_count[(count[rows] - 1).clamp(0, COUNTS - 1)]
        )
        return SeenItems(items[rows] * is_latest, STEP_SCALE * terms * is_latest)

    def _log2_bucket(self, values: Int64[Tensor, "N S"], buckets: int) -> Int64[Tensor, "N S"]:
        """0, 1, 2, 3-4, 5-8, ...: ceil(log2(value)) + 1, and 0 for 0; the last bucket is open."""
        return torch.bucketize(values, cast(Tensor, self.bounds)[: buckets - 1])
