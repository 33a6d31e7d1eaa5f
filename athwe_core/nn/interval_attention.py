"""Attention whose keys and values depend on the position of the key and on its time interval to the query (TiSASRec).

Scores of intervals are gathered from the products of a query with the table, and weights are summed by interval before the
product with the table of values: no tensor has an axis of queries, one of keys and one of channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout
from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.transformer import AttentionGrid

LAYER_NORM_EPS = 1e-8


def rounded_quotient(value: Int64[Tensor, "..."], unit: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """value / unit, rounded to the nearest whole number and from halfway to the even one; exact for every size.

    Args:
        value: whole numbers >= 0.
        unit: whole numbers >= 1, of a shape that broadcasts.
    Returns: quotients.
    """
    quotient = torch.div(value, unit, rounding_mode="floor")
    twice_rest = 2 * (value - quotient * unit)
    return quotient + ((twice_rest > unit) | ((twice_rest == unit) & (quotient % 2 == 1))).long()


def grid_intervals(
    elapsed: Int64[Tensor, " T"], units: Int64[Tensor, " T"], grid: AttentionGrid, *, time_span: int
) -> Int64[Tensor, "G 1 S S"]:
    """Interval between each query and key of the grid, in the query's unit.

        r_ij = min(|round(elapsed_i / unit_i) - round(elapsed_j / unit_i)|, time_span)

    Args:
        elapsed: seconds since the first token of the row, >= 0.
        units: seconds that are one step of the interval, >= 1.
        grid: which token attends to which.
        time_span: largest interval.
    Returns: intervals in 0..time_span; arbitrary ones where the grid has no pair.
    Source: TiSASRec (Li et al. 2020), section 3.1, personalised time intervals.
    """
    elapsed, units = (values[grid.slot_tokens].view(grid.shape) for values in (elapsed, units))
    of_keys = rounded_quotient(elapsed[:, None, :], units[:, :, None])
    of_queries = rounded_quotient(elapsed, units)[:, :, None]
    return (of_queries - of_keys).abs().clamp(max=time_span)[:, None]


@dataclass(frozen=True)
class PaddingKeys:
    """Padding slots before the items of a row, as keys that hold no item."""

    visible: Bool[Tensor, "T L"]
    """Which slots are padding of the token's row."""
    interval: Int64[Tensor, " T"]
    """Interval of each query to all padding."""
    keys: Float[Tensor, "L D"]
    """Positions of keys."""
    values: Float[Tensor, "L D"]
    """Positions of values."""


@dataclass(frozen=True)
class Relations:
    """What the layers of a step share besides the tokens."""

    grid: AttentionGrid
    key_positions: Float[Tensor, "T D"] | None = None
    value_positions: Float[Tensor, "T D"] | None = None
    intervals: Int64[Tensor, "G 1 S S"] | None = None
    key_intervals: Float[Tensor, "R D"] | None = None
    """Table of intervals 0..R-1 for keys."""
    value_intervals: Float[Tensor, "R D"] | None = None
    padding: PaddingKeys | None = None


class IntervalAttentionLayer(nn.Module):
    """One layer: attention and feed-forward sublayers, each added to its normalised input.

        q0 = LN(x)    Q = W_q q0 + b_q    K = W_k x + b_k    V = W_v x + b_v
        a_ij = softmax_j( Q_i . (K_j + PK_j + TK[r_ij]) / sqrt(d) )        j <= i in the same row
        y = LN(q0 + sum_j dropout(a)_ij (V_j + PV_j + TV[r_ij]))
        x' = dropout(W_2 relu(dropout(W_1 y + b_1)) + b_2) + y

    Args:
        hidden_size: D, a multiple of num_heads; d = D / num_heads.
        num_heads: attention heads, >= 1.
        dropout_rate: on attention weights and in the feed-forward sublayer, in [0, 1).
    Source: TiSASRec (Li et al. 2020), section 3.
    """

    def __init__(self, *, hidden_size: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.num_heads, self.dropout_rate = num_heads, dropout_rate
        self.attention_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.query, self.key, self.value, self.inner, self.outer = (
            nn.Linear(hidden_size, hidden_size) for _ in range(5)
        )

    def forward(self, x: Float[Tensor, "T D"], relations: Relations, dtype: torch.dtype) -> Float[Tensor, "T D"]:
        """States of all tokens.

        Args:
            x: states before the layer.
            relations: positions and intervals.
            dtype: of the products with weights; attention is in the dtype of x.
        Returns: states after the layer, in the dtype of x.
        """
        normal = self.attention_norm(x)
        query = linear(self.query, normal, dtype).to(x.dtype)
        key, value = (linear(layer, x, dtype).to(x.dtype) for layer in (self.key, self.value))
        y = self.feed_forward_norm(normal + self._attend(query, key, value, relations))
        inner = F.relu(self._drop(linear(self.inner, y, dtype)))
        return cast(Tensor, self._drop(linear(self.outer, inner, dtype).to(x.dtype)) + y)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, relations: Relations) -> Float[Tensor, "T D"]:
        grid = relations.grid
        if relations.key_positions is not None and relations.value_positions is not None:
            key, value = key + relations.key_positions, value + relations.value_positions
        query, key, value = (
            self._slots(x, grid) for x in (query * (query.shape[1] / self.num_heads) ** -0.5, key, value)
        )
        scores = query @ key.mT
        if relations.intervals is not None:
            assert relations.key_intervals is not None
            by_interval = query @ self._heads(relations.key_intervals).mT
            scores = scores + by_interval.gather(3, relations.intervals.expand(-1, self.num_heads, -1, -1))
        scores = scores + grid.bias
        if relations.padding is not None:
            scores = torch.cat([scores, self._padding_scores(query, relations, relations.padding)], dim=3)
        weights = self._drop(scores.softmax(-1))
        of_tokens = weights[..., : grid.shape[1]]
        attended = of_tokens @ value
        if relations.intervals is not None:
            attended = attended + self._interval_values(of_tokens, relations.intervals, relations)
        if relations.padding is not None:
            attended = attended + self._padding_values(weights[..., grid.shape[1] :], relations, relations.padding)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)[grid.token_slots]

    def _slots(self, x: Tensor, grid: AttentionGrid) -> Float[Tensor, "G heads S d"]:
        """Tokens in the slots of the grid."""
        return x[grid.slot_tokens].view(*grid.shape, self.num_heads, -1).transpose(1, 2)

    def _heads(self, table: Tensor) -> Float[Tensor, "heads R d"]:
        return table.view(len(table), self.num_heads, -1).transpose(0, 1)

    def _interval_values(
        self, weights: Tensor, intervals: Tensor, relations: Relations
    ) -> Float[Tensor, "G heads S d"]:
        """sum_j a_ij TV[r_ij], by the sum of the weights of each interval."""
        assert relations.value_intervals is not None
        index = intervals.expand_as(weights)
        by_interval = weights.new_zeros(*weights.shape[:-1], len(relations.value_intervals)).scatter_add(
            3, index, weights
        )
        return by_interval @ self._heads(relations.value_intervals)

    def _padding_scores(
        self, query: Tensor, relations: Relations, padding: PaddingKeys
    ) -> Float[Tensor, "G heads S L"]:
        """Scores of the padding slots, whose key is b_k + PK + TK[interval]."""
        scores = query @ self._heads(padding.keys + self.key.bias).mT
        if relations.key_intervals is not None:
            of_queries = self._slots(relations.key_intervals[padding.interval], relations.grid)
            scores = scores + (query * of_queries).sum(-1, keepdim=True)
        visible = padding.visible[relations.grid.slot_tokens].view(*relations.grid.shape, -1)[:, None]
        return scores.masked_fill(~visible, -torch.inf)

    def _padding_values(
        self, weights: Tensor, relations: Relations, padding: PaddingKeys
    ) -> Float[Tensor, "G heads S d"]:
        """Attention to the padding slots, whose value is b_v + PV + TV[interval]."""
        attended = weights @ self._heads(padding.values + self.value.bias)
        if relations.value_intervals is not None:
            of_queries = self._slots(relations.value_intervals[padding.interval], relations.grid)
            attended = attended + weights.sum(-1, keepdim=True) * of_queries
        return attended

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout_rate, training=self.training)
