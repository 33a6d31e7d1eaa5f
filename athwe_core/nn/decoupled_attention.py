"""Attention whose scores come from several sources, each with queries and keys of its own (DIF-SR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout
from athwe_core.nn.fusion import FusionKind, SourceFusion
from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.transformer import (
    ONE,
    AttentionGrid,
    LayerSizes,
    TransformerLayer,
    last_token_attention,
    masked_softmax,
)

HIDDEN = -1e9
"""Score of a key that a query must not see."""


class SummedScoresLayer(TransformerLayer):
    """A Transformer layer whose attention scores are the sum of those of the items and of side information.

        F = sum_j (W_qj s_j)(W_kj s_j)^T        a = softmax(F / sqrt(D / h) + mask) W_v x

    The sources include the items themselves. The sum is one product of queries and keys that are joined along their width.

    Args:
        side_sizes: width of each side source, multiples of num_heads.
        sizes: as in `TransformerLayer`.
    Source: DIF-SR (Xie et al., SIGIR 2022), section 4.2. The scale is that of the items' queries for all sources.
    """

    def __init__(self, *, side_sizes: Sequence[int], **sizes: Unpack[LayerSizes]) -> None:
        super().__init__(num_modalities=1, **sizes)
        self.sides = nn.ModuleList(nn.Linear(size, 2 * size) for size in side_sizes)  # query, then key
        self.scale = (sizes["hidden_size"] // sizes["num_heads"]) ** -0.5

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "1 T D"],
        sides: Sequence[Float[Tensor, "T _"]],
        grid: AttentionGrid,
        token_index: Int64[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "1 N D"]:
        """States of all tokens, or of those in `token_index`.

        Args:
            x: tokens.
            sides: side information of each token.
            grid: which token attends to which.
            token_index: tokens whose states are returned; None = all.
        Returns: states in the dtype of x.
        """
        value, pairs = self._pairs(x, sides, grid)
        attended = self._attend(*_joined(pairs), value, grid, self.scale)
        return self._finish(*self._of_tokens(x, attended, grid, token_index), ONE)

    def _pairs(
        self, x: Float[Tensor, "1 T D"], sides: Sequence[Float[Tensor, "T _"]], grid: AttentionGrid
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The value of all slots, and query and key of the items and of each side source."""
        query, key, value = self._heads(x, grid, ONE)
        found = [(query, key)]
        for layer, side in zip(self.sides, sides, strict=True):
            query, key = self._in_slots(linear(cast(nn.Linear, layer), side, x.dtype)[None], grid, parts=2)
            found.append((query, key))
        return value, found

    def attention_parts(
        self, x: Float[Tensor, "1 T D"], sides: Sequence[Float[Tensor, "T _"]], grid: AttentionGrid
    ) -> list[Float[Tensor, " T"]]:
        """Attention of the last token, mean over heads; for the inspection of single rows.

        Args:
            x, sides, grid: as in `forward`, of a batch of one row.
        Returns: the weights, then those that the scores of the items alone would give, then of each side source alone.
        """
        _, pairs = self._pairs(x, sides, grid)
        every = [_joined(pairs), *pairs]
        return [last_token_attention(masked_softmax(*pair, grid, self.scale), grid)[0] for pair in every]


class FusedScoresLayer(SummedScoresLayer):
    """The same with a learned fusion of each query's scores, over rows of L slots.

        F_i = fusion_j (S_j)_i,    S_j = (W_qj s_j)(W_kj s_j)^T

    (S_j)_i has one score for each of the L slots, so the fusion knows a slot by its number.

    Args:
        fusion: see `SourceFusion`.
        length: L.
        reads_all: whether the fusion reads the scores of all slots, those of later items and of padding too, as published.
            False = it reads 0 in their place, so that no state depends on them.
        items_at: place of the items among the sources in the order of the fusion, as an index into `side_sizes`.
        side_sizes, sizes: as in `SummedScoresLayer`.
    Source: DIF-SR, section 4.2.   Differs: with `reads_all` False, see there.
    """

    is_later: Tensor

    def __init__(
        self,
        *,
        fusion: FusionKind,
        length: int,
        reads_all: bool,
        items_at: int,
        side_sizes: Sequence[int],
        **sizes: Unpack[LayerSizes],
    ) -> None:
        super().__init__(side_sizes=side_sizes, **sizes)
        self.fusion = SourceFusion(fusion, num_sources=len(side_sizes) + 1, size=length)
        self.reads_all = reads_all
        self.items_at = items_at
        self.register_buffer("is_later", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "B L D"],
        sides: Sequence[Float[Tensor, "_ L _"]],
        is_item: Bool[Tensor, "B L"],
        slot: Int64[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B q D"]:
        """States of all slots (q = L), or of one slot of each row (q = 1).

        Args:
            x: states of all slots, padding included.
            sides: side information of each slot; with a first axis of 1 where it is the same for all rows.
            is_item: False = padding, which no query attends to.
            slot: the slot of each row whose state is returned; None = all.
        Returns: states in the dtype of x.
        """
        value, sources = self.sources(x, sides)
        hidden = self.is_later | ~is_item[:, None]  # (B, L, L)
        if slot is not None:
            row = torch.arange(len(x), device=x.device)
            sources = [(query.expand(len(x), -1, -1, -1)[row, :, slot, None], key) for query, key in sources]
            x, hidden = x[row, slot, None], hidden[row, slot, None]
        weights = self._weights(self.fusion(self.scores(sources, slot)), hidden)
        attended = (dropout(weights, self.attention_dropout, training=self.training) @ value).transpose(1, 2)
        return self._finish(x.flatten(0, 1)[None], attended.flatten(2).flatten(0, 1)[None], ONE).view(x.shape)

    def _weights(self, scores: Float[Tensor, "B heads q L"], hidden: Bool[Tensor, "B q L"]) -> Tensor:
        return (scores * self.scale).masked_fill(hidden[:, None], HIDDEN).softmax(-1)

    def attention_parts(  # type: ignore[override]
        self, x: Float[Tensor, "1 L D"], sides: Sequence[Float[Tensor, "1 L _"]], is_item: Bool[Tensor, "1 L"]
    ) -> list[Float[Tensor, " n"]]:
        """Attention of the last item, mean over heads; for the inspection of single rows.

        Args:
            x, sides, is_item: as in `forward`, of a batch of one row with n items.
        Returns: the weights, then those that the items' part of the fused scores alone would give, then of each side source.
        """
        scores, n = self.scores(self.sources(x, sides)[1]), int(is_item.sum())
        parts = self.fusion.parts(scores)
        parts.insert(0, parts.pop(self.items_at))
        hidden = self.is_later | ~is_item[:, None]
        return [self._weights(part, hidden)[0, :, n - 1, :n].mean(0) for part in (self.fusion(scores), *parts)]

    def sources(
        self, x: Float[Tensor, "B L D"], sides: Sequence[Float[Tensor, "_ L _"]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What scores are made of.

        Args:
            x, sides: as in `forward`.
        Returns: the value (B, heads, L, d) of each slot, and query and key of each source in the order of the fusion.
        """
        query, key, value = self._split(self._linear("qkv", x.flatten(0, 1)[None], ONE).view(*x.shape[:2], -1), 3)
        found = [
            self._split(linear(cast(nn.Linear, layer), side, x.dtype), 2)
            for layer, side in zip(self.sides, sides, strict=True)
        ]
        found.insert(self.items_at, (query, key))
        return value, cast(list[tuple[Tensor, Tensor]], found)

    def scores(
        self, sources: Sequence[tuple[Tensor, Tensor]], slot: Int64[Tensor, " B"] | None = None
    ) -> list[Float[Tensor, "_ heads q L"]]:
        """Scores of each source as the fusion reads them.

        Args:
            sources: queries and keys.
            slot: the slot of each row's query where it has one; None = queries of all slots.
        Returns: a tensor for each source, with a first axis of 1 where that is the same for all rows.
        """
        found = [query @ key.transpose(-1, -2) for query, key in sources]
        if self.reads_all:
            return found
        is_later = self.is_later if slot is None else self.is_later[slot, None, None]
        return [scores.masked_fill(is_later, 0.0) for scores in found]

    def _split(self, x: Float[Tensor, "n L _"], parts: int) -> tuple[Tensor, ...]:
        """Parts (n, heads, L, d) of joined projections."""
        return x.view(*x.shape[:2], parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One query and one key, whose product is the sum of the products of all pairs."""
    return torch.cat([query for query, _ in pairs], dim=-1), torch.cat([key for _, key in pairs], dim=-1)
