"""Attention by shared delays of a frequency band, mixed with attention over time in that band (FEARec).

Signals run over the L slots of a row. All transforms are products with L x L matrices: at L = 50 these were faster than FFTs,
15 ms instead of 57, forward and backward on one CPU thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from athwe_core.nn.dropout import dropout
from athwe_core.nn.transformer import ONE, LayerSizes, TransformerLayer

HIDDEN = -1e9
"""Score of a key that a query must not see."""


def frequency_bands(*, length: int, num_layers: int, global_ratio: float) -> list[tuple[int, int]]:
    """First frequency of each layer's band and the one after its last; the first layer has the highest ones.

        M = L // 2 + 1        low_i = int(M (1 - w) - i s)        high_i = int(M - i s)

    w = g and s = floor(M (1 - g) / (n - 1)) where the ratio g exceeds 1 / n: bands overlap. Else w = 1 / n and s = M / n.

    Args:
        length: L >= 2.
        num_layers: n >= 1.
        global_ratio: g in (0, 1], share of the frequencies in each band.
    Returns: a range of frequencies for each layer, which may be empty where M < n.
    Source: FEARec, section 4.2, and the rounding of its code.
    """
    M = length // 2 + 1
    share, step = 1 / num_layers, M / num_layers
    if global_ratio > share:
        share, step = global_ratio, float(math.floor(M * (1 - global_ratio) / (num_layers - 1)))
    return [(int(M * (1 - share) - i * step), int(M - i * step)) for i in range(num_layers)]


def band_matrix(length: int, band: tuple[int, int]) -> Float[Tensor, "L L"]:
    """The projection on a band of frequencies: B x = irfft(rfft(x) on the band, 0 elsewhere).

    Args:
        length: L.
        band: first frequency, and the one after the last.
    Returns: B in float32, a symmetric matrix.
    """
    spectrum = torch.fft.rfft(torch.eye(length, dtype=torch.float64, device="cpu"), dim=0)
    is_inside = torch.zeros(length // 2 + 1, 1, dtype=torch.float64, device="cpu")
    is_inside[slice(*band)] = 1
    return torch.fft.irfft(spectrum * is_inside, n=length, dim=0).float()


def disjoint_bands(bands: Sequence[tuple[int, int]], *, length: int) -> list[tuple[int, int]]:
    """Ranges of frequencies that together are all, such that each is inside or outside of every band.

    Args:
        bands: of `frequency_bands`.
        length: L.
    Returns: first frequency and the one after the last of each range, ascending.
    """
    edges = sorted({0, length // 2 + 1, *(edge for band in bands for edge in band)})
    return list(pairwise(edges))


def energy_shares(x: Float[Tensor, "L D"], bands: Sequence[tuple[int, int]]) -> list[float]:
    """The share of each band in the sum of squares of a signal, which it has by Parseval's theorem.

    Args:
        x: D signals over L slots.
        bands: disjoint ones.
    Returns: shares in [0, 1]; they sum to 1 where the bands hold all frequencies. NaN for a signal of zeros.
    """
    parts = torch.stack([(band_matrix(len(x), band).to(x) @ x).square().sum() for band in bands])
    return (parts / x.square().sum()).tolist()


class FrequencyAttentionLayer(TransformerLayer):
    """A Transformer layer whose attention has two branches, on q, k, v from linear layers and the band projection B.

        corr[d] = mean over heads and channels of sum_t (B q)[(t + d) mod L] k[t]
        f[t]    = sum_{d in delays} softmax(corr)_d v[(t + d) mod L]
        a       = masked attention on B q, B k, B v
        context = (1 - r) f + r a                          or f alone

    `delays` are the K = int(topk_factor ln L) largest of corr: of each row in evaluation, of the mean over the rows of the
    batch in training. f sees later slots and padding, and so does B.

    Without `reads_all` nothing wraps around, and each slot t has delays of its own, in training too:

        B is its lower triangle:  (B x)[t] = sum_{s <= t} B[t, s] x[s]
        corr[t, d] = mean over heads and channels of sum_{d <= s <= t} (B q)[s] k[s - d]         0 <= d <= t
        f[t]       = sum_{d in delays of t} softmax(corr[t])_d v[t - d]

    Args:
        length: L.
        band: see `frequency_bands`.
        topk_factor: > 0.
        dual_domain: False = f alone.
        spatial_ratio: r in [0, 1].
        filters_time_branch: False = a is attention on q, k and v as they are.
        reads_all: whether a slot sees all slots of its row, as published.
        sizes: as in `TransformerLayer`.
    Source: FEARec (Du et al., SIGIR 2023), section 4.2, in the form of its code: f has no scale, no mask and no dropout.
        `reads_all=False` is ours.
    """

    band: Tensor
    is_later: Tensor
    delay: Tensor
    """[t, j]: delay from slot t to slot j."""
    pair: Tensor
    """[d, t]: pair ((t + d) mod L, t) in a flattened (L, L) matrix."""

    def __init__(
        self,
        *,
        length: int,
        band: tuple[int, int],
        topk_factor: float,
        dual_domain: bool,
        spatial_ratio: float,
        filters_time_branch: bool,
        reads_all: bool = True,
        **sizes: Unpack[LayerSizes],
    ) -> None:
        super().__init__(num_modalities=1, **sizes)
        self.reads_all = reads_all
        self.num_delays = min(max(int(topk_factor * math.log(length)), 1), length)
        self.spatial_ratio = spatial_ratio if dual_domain else 0.0
        self.filters_time_branch = filters_time_branch
        slots = torch.arange(length)
        projection = band_matrix(length, band)
        self.register_buffer("band", projection if reads_all else projection.tril(), persistent=False)
        self.register_buffer("is_later", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)
        self.register_buffer("delay", (slots - slots[:, None]) % length, persistent=False)
        self.register_buffer("pair", ((slots + slots[:, None]) % length) * length + slots, persistent=False)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "B L D"],
        is_item: Bool[Tensor, "B L"],
        slot: Int64[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B q D"]:
        """States of all slots (q = L), or of one slot of each row (q = 1).

        Args:
            x: states of all slots, padding included; without `reads_all` rows may have fewer than L slots.
            is_item: False = padding. A row without items counts in no mean over the batch.
            slot: the slot of each row whose state is returned; None = all.
        Returns: states in the dtype of x.
        """
        q, k, v = self.projections(x)
        row = torch.arange(len(x), device=x.device)
        context = self._delay_weights(q, k, is_item, slot).to(x.dtype) @ v
        if self.spatial_ratio > 0:
            if self.filters_time_branch:
                q, k, v = (self._filtered(part) for part in (q, k, v))
            hidden = self._later(q) | ~is_item[:, None]
            if slot is not None:
                q, hidden = q[row, slot, None], hidden[row, slot, None]
            context = (1 - self.spatial_ratio) * context + self.spatial_ratio * self._over_time(q, k, v, hidden)
        if slot is not None:
            x = x[row, slot, None]
        return self._finish(x.flatten(0, 1)[None], context.flatten(0, 1)[None], ONE).view(x.shape)

    def attention_parts(self, x: Float[Tensor, "1 L D"], is_item: Bool[Tensor, "1 L"]) -> list[Float[Tensor, " n"]]:
        """Attention of the last item to each item; for the inspection of single rows.

        Args:
            x, is_item: as in `forward`, of a batch of one row with n items.
        Returns: the weights of both branches, mixed as their outputs are, then those by delays and those over time, mean over
            heads; one of them alone without a branch over time. What delays give to padding is left out, so their weights
            sum to less than 1.
        """
        q, k, _ = self.projections(x)
        n = int(is_item.sum())
        by_delay = self._delay_weights(q, k, is_item, None)[0, n - 1, :n]
        if self.spatial_ratio == 0:
            return [by_delay]
        if self.filters_time_branch:
            q, k = (self._filtered(part) for part in (q, k))
        over_time = self._time_weights(q, k, self._later(q) | ~is_item[:, None])[0, :, n - 1, :n].mean(0)
        return [(1 - self.spatial_ratio) * by_delay + self.spatial_ratio * over_time, by_delay, over_time]

    def _delay_weights(
        self, q: Tensor, k: Tensor, is_item: Tensor, slot: Int64[Tensor, " B"] | None
    ) -> Float[Tensor, "B q L"]:
        """What each slot, or `slot`, takes of each slot by its delays, 0 for those that are not picked; in float32."""
        if not self.reads_all:
            every = self._own_delay_weights(q, k)
            return every if slot is None else every[torch.arange(len(q), device=q.device), slot, None]
        corr = self.correlation(q, k)
        delays = self.pick(corr, is_item.any(1))
        weights = torch.zeros_like(corr).scatter(1, delays, corr.gather(1, delays).softmax(-1))
        if slot is not None:
            return weights.gather(1, self.delay[slot])[:, None]
        return weights.index_select(1, self.delay.flatten()).view(len(q), *self.delay.shape)

    def _own_delay_weights(self, q: Tensor, k: Tensor) -> Float[Tensor, "B L L"]:
        """What each slot takes of each earlier one by its own delays; in float32."""
        corr = self.own_correlation(q, k)
        largest = corr.topk(min(self.num_delays, corr.shape[2]))
        by_delay = torch.zeros_like(corr).scatter(2, largest.indices, largest.values.softmax(-1))
        return self._turned(by_delay)

    def _turned(self, x: Float[Tensor, "B L L"]) -> Float[Tensor, "B L L"]:
        """x[b, t, t - j] at [b, t, j], and 0 at later j: from slots to delays, and back."""
        t = torch.arange(x.shape[1], device=x.device)
        back = (t[:, None] - t).clamp(min=0)
        return x.gather(2, back.expand_as(x)).masked_fill(self._later(x), 0)

    def _filtered(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """B x."""
        L = x.shape[1]
        return self.band[:L, :L].to(x.dtype) @ x

    def _later(self, x: Float[Tensor, "B L _"]) -> Bool[Tensor, "L L"]:
        """Whether a slot is later than another one."""
        L = x.shape[1]
        return self.is_later[:L, :L]

    def projections(self, x: Float[Tensor, "B L D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the linear layers.

        Args:
            x: states of all slots.
        Returns: q, k and v (B, L, D), heads side by side.
        """
        joined = self._linear("qkv", x.flatten(0, 1)[None], ONE).view(*x.shape[:2], -1)
        return cast(tuple[Tensor, Tensor, Tensor], joined.chunk(3, dim=-1))

    def correlation(self, q: Float[Tensor, "B L D"], k: Float[Tensor, "B L D"]) -> Float[Tensor, "B L"]:
        """How well the rows match themselves after a delay.

        Args:
            q, k: from `projections`.
        Returns: corr of each row and delay, in float32.
        """
        B, L, D = q.shape
        products = (self._filtered(q) @ k.mT).float().flatten(1)
        return products.index_select(1, self.pair.flatten()).view(B, L, L).sum(-1) / D

    def own_correlation(self, q: Float[Tensor, "B L D"], k: Float[Tensor, "B L D"]) -> Float[Tensor, "B L L"]:
        """How well the rows up to each slot match themselves after a delay.

        Args:
            q, k: from `projections`.
        Returns: corr of each row, slot and delay, in float32; minus infinity for a delay that reaches before the row.
        """
        products = (self._filtered(q) @ k.mT).float()
        return (self._turned(products).cumsum(1) / q.shape[-1]).masked_fill(self._later(q), -torch.inf)

    def pick(self, corr: Float[Tensor, "B L"], row_mask: Bool[Tensor, " B"]) -> Int64[Tensor, "B K"]:
        """The delays with the largest correlations.

        Args:
            corr: from `correlation`.
            row_mask: rows that count in the mean over the batch.
        Returns: delays of each row, the largest correlation first; in training the same for all rows.
        """
        if not self.training:
            return corr.topk(self.num_delays).indices
        mean = (corr.detach() * row_mask[:, None]).sum(0)  # K is the same for the sum
        return mean.topk(self.num_delays).indices.expand(len(corr), -1)

    def _over_time(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Float[Tensor, "B q D"]:
        """Masked attention, heads joined."""
        weights = dropout(self._time_weights(q, k, hidden), self.attention_dropout, training=self.training)
        return (weights @ self._by_head(v)).transpose(1, 2).flatten(2)

    def _time_weights(self, q: Tensor, k: Tensor, hidden: Tensor) -> Float[Tensor, "B heads q L"]:
        q, k = self._by_head(q), self._by_head(k)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        return scores.masked_fill(hidden[:, None], HIDDEN).softmax(-1)

    def _by_head(self, x: Tensor) -> Float[Tensor, "B heads q d"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
