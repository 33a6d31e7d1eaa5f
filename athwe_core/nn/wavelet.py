"""Wavelet alignment of the modalities (ATHWE): decompose along time, let each band of one modality gate in the others.

    low'_m = sum_s sigmoid(G_ms low_s) * low_s      (and for each high_j with its own G)
    e'_m = e_m + w_m (reconstruct(low'_m, high'_m) - e_m)

Two decompositions, one interface. `centred` is the decimated transform of pytorch_wavelets at each row's true length: it
looks ahead. `causal` is undecimated: position t depends on positions <= t only, which makes all-position training legal.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.nn.multiply_add import sum_of_products

LENGTH_MULTIPLE = 8
"""Rows of the centred form are filled up to a multiple of this: a product for each multiple in place of each length."""
FILL_ROWS = 256
"""Half-precision products over all rows of a band are filled up to a multiple of this, so that few shapes occur."""


@functools.cache
def smoothing_filter(name: str) -> tuple[float, ...]:
    """The wavelet's reconstruction low-pass over its sum, most recent tap first, in the direction of the smaller delay."""
    taps = np.asarray(pywt.Wavelet(name).rec_lo, np.float64)
    taps = taps / taps.sum()
    delay = float(np.arange(len(taps)) @ taps)
    if delay > (len(taps) - 1) / 2:
        taps = taps[::-1]
    return tuple(taps.tolist())


def causal_decompose(
    x: Float[Tensor, "T C"], positions: Int64[Tensor, " T"], *, taps: tuple[float, ...], levels: int
) -> tuple[Float[Tensor, "T C"], list[Float[Tensor, "T C"]]]:
    """Undecimated causal decomposition of every row: (low_J, [high_1 .. high_J]); their sum is x.

        low_0 = x      low_j[t] = sum_k c_k low_{j-1}[t - k 2^(j-1)]      high_j = low_{j-1} - low_j

    Before a row's first token its first value is repeated, so a constant row stays constant.

    Args:
        x: rows end to end.
        positions: index of each token in its row, 0 = oldest.
        taps: from `smoothing_filter`. levels: J >= 1.
    """
    here = torch.arange(len(x), device=x.device)
    low, highs = x, []
    for level in range(levels):
        smooth = taps[0] * low
        for k in range(1, len(taps)):
            earlier = low.index_select(0, here - positions.clamp(max=k << level))
            smooth = torch.add(smooth, earlier, alpha=taps[k])
        highs.append(low - smooth)
        low = smooth
    return low, highs


def causal_reconstruct(low: Float[Tensor, "T C"], highs: list[Float[Tensor, "T C"]]) -> Float[Tensor, "T C"]:
    """The inverse of `causal_decompose`: the sum of all bands."""
    return sum(highs, start=low)


class WaveletAlignment(nn.Module):
    """Aligns the modalities band by band.

    Args:
        hidden_size, num_modalities: D, M.
        name: discrete wavelet. levels: J. form: `causal` or `centred`.
        weight_init: initial residual weight of each of the M modalities.
    Differs: the published code feeds the padding positions into the transform as well; rows here have their true length.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_modalities: int,
        name: str,
        levels: int,
        form: str,
        weight_init: tuple[float, ...],
    ) -> None:
        super().__init__()
        M, D = num_modalities, hidden_size
        self.name, self.levels, self.form = name, levels, form
        self.weight_init = weight_init
        self.taps = smoothing_filter(name)
        # Parameters: gates[band, s, m] is G_ms of that band, band 0 = low, band j = high_j; applied from the right.
        self.gates = nn.Parameter(torch.empty(1 + levels, M, D, M * D))
        self.weight = nn.Parameter(torch.empty(M))

    def forward(
        self,
        tokens: Float[Tensor, "T M D"],
        positions: Int64[Tensor, " T"],
        offsets: Int64[Tensor, " B1"],
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "T M D"]:
        """Aligned tokens; `positions` in each row and row `offsets` tell the rows of the stream apart; gates in `dtype`."""
        dtype = dtype or tokens.dtype
        if self.form == "causal":
            low, highs = causal_decompose(tokens.flatten(1), positions, taps=self.taps, levels=self.levels)
            aligned = [self._align(band, index, dtype) for index, band in enumerate([low, *highs])]
            merged = causal_reconstruct(aligned[0].to(tokens.dtype), aligned[1:])
        else:
            merged = self._align_centred(tokens.flatten(1), offsets, dtype)
        return tokens.lerp(merged.view_as(tokens), self.weight[:, None])

    def decompose(self, row: Float[Tensor, "n M D"]) -> list[Float[Tensor, "_ M D"]]:
        """The bands [low_J, high_1 .. high_J] of one row that `forward` aligns; `centred` ones are shorter than it."""
        x = row.flatten(1)
        if self.form == "causal":
            positions = torch.arange(len(x), device=x.device)
            low, highs = causal_decompose(x, positions, taps=self.taps, levels=self.levels)
            bands = [low, *highs]
        else:
            analysis, _, sizes = self._maps(len(x), x)
            bands = list((analysis @ x).split(sizes))
        return [band.reshape(-1, *row.shape[1:]) for band in bands]

    def _align(self, band: Float[Tensor, "n K"], index: int, dtype: torch.dtype) -> Float[Tensor, "n K"]:
        """sum_s sigmoid(G_ms x_s) * x_s for every target m at once, in `dtype`."""
        M, D = self.gates.shape[1:3]
        # one copy; where nothing is to be cast, `to` makes none whatever the format
        sources = band.view(-1, M, D).transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
        return _Gated.apply(sources.contiguous(), self.gates[index].to(dtype)).flatten(1)

    def _align_centred(
        self, x: Float[Tensor, "T C"], offsets: Int64[Tensor, " B1"], dtype: torch.dtype
    ) -> Float[Tensor, "T C"]:
        """Decimated transform (zero mode) of all rows, gates of all of them at once.

        Rows stand beside each other, filled up with zeros to a few lengths. That changes nothing: the transform continues a
        row with zeros anyway, a gated zero is zero, and no coefficient beyond a row's own reaches back into it.
        """
        grids = list(_rows_by_length(offsets))
        tokens = torch.cat([grid.flatten() for grid in grids])
        rows = F.pad(x, (0, 0, 0, 1)).index_select(0, tokens).split([grid.numel() for grid in grids])
        maps = [self._maps(len(grid), x) for grid in grids]
        split = [
            (analysis @ part.view(len(grid), -1)).to(dtype).split(sizes)
            for (analysis, _, sizes), part, grid in zip(maps, rows, grids, strict=True)
        ]
        aligned = [self._align_all(list(parts), j, dtype) for j, parts in enumerate(zip(*split, strict=True))]
        rebuilt = [
            synthesis @ torch.cat(bands).to(x.dtype)
            for (_, synthesis, _), bands in zip(maps, zip(*aligned, strict=True), strict=True)
        ]
        slots = tokens.new_empty(len(x) + 1)
        slots[tokens] = torch.arange(len(tokens), device=x.device)
        return torch.cat([part.view(-1, x.shape[1]) for part in rebuilt]).index_select(0, slots[:-1])

    def _align_all(
        self, parts: list[Float[Tensor, "_ _"]], index: int, dtype: torch.dtype
    ) -> list[Float[Tensor, "_ _"]]:
        """The band `index` of all rows, which lie side by side in the columns, aligned."""
        flat = [part.reshape(-1, self.gates.shape[1] * self.gates.shape[2]) for part in parts]
        counts = [len(part) for part in flat]
        padding = flat[0].new_zeros(-sum(counts) % FILL_ROWS if dtype != torch.float32 else 0, flat[0].shape[1])
        aligned = self._align(torch.cat([*flat, padding]), index, dtype)
        return [own.view_as(part) for own, part in zip(aligned.split([*counts, len(padding)]), parts, strict=False)]

    def _maps(self, length: int, like: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        return centred_maps(self.name, self.levels, length, like.dtype, like.device)


class _Gated(torch.autograd.Function):
    """sum_s sigmoid(x_s G_s) * x_s; of what lies between, only the gates are kept."""

    @staticmethod
    def forward(ctx: Any, sources: Float[Tensor, "S n D"], weight: Float[Tensor, "S D K"]) -> Float[Tensor, "n M D"]:
        S, n, D = sources.shape
        gates = torch.bmm(sources, weight).sigmoid_().view(S, n, -1, D)
        ctx.save_for_backward(sources, weight, gates)
        return sum_of_products(zip(gates, sources[:, :, None], strict=True))

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "n M D"]) -> tuple[Tensor, Tensor]:
        sources, weight, gates = ctx.saved_tensors
        slope = torch.ops.aten.sigmoid_backward(grad * sources[:, :, None], gates).flatten(2)
        direct = sum_of_products((grad[:, m], gates[:, :, m]) for m in range(grad.shape[1]))
        return torch.baddbmm(direct, slope, weight.mT), torch.bmm(sources.mT, slope)


@functools.lru_cache(maxsize=1024)
def centred_maps(
    name: str, levels: int, length: int, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "P n"], Float[Tensor, "n P"], list[int]]:
    """The decimated transform of pytorch_wavelets and its inverse at one length, as matrices.

    Both are linear: the matrices are what they make of unit vectors. A product of a few numbers takes microseconds where the
    convolutions take a kernel for each length and number of rows.

    Returns: analysis and synthesis, and how many of the P coefficients belong to each of [low_J, high_1 .. high_J].
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)  # on each import of it
        from pytorch_wavelets import DWT1DForward, DWT1DInverse  # noqa: PLC0415 - heavy, and only this form needs it

    with torch.inference_mode(False), torch.no_grad():
        forward = DWT1DForward(J=levels, wave=name, mode="zero").double()
        inverse = DWT1DInverse(wave=name, mode="zero").double()
        low, highs = forward(torch.eye(length, dtype=torch.float64)[:, None])
        responses = [band[:, 0] for band in (low, *highs)]
        sizes = [band.shape[1] for band in responses]
        low_units, *high_units = torch.eye(sum(sizes), dtype=torch.float64)[:, None].split(sizes, dim=-1)
        synthesis = inverse((low_units, high_units))[:, 0, :length].T
        return torch.cat(responses, dim=1).T.to(device, dtype), synthesis.to(device, dtype), sizes


def _rows_by_length(offsets: Int64[Tensor, " B1"]) -> Iterator[Int64[Tensor, "n b"]]:
    """Grids of token indices, a row in each column, for each multiple of `LENGTH_MULTIPLE` that rows are filled up to.

    The index after the last token stands for padding.
    """
    lengths = offsets.diff()
    filled = lengths + -lengths % LENGTH_MULTIPLE
    for length in filled[filled > 0].unique().tolist():
        chosen = filled == length
        position = torch.arange(length, device=offsets.device)[:, None]
        yield torch.where(position < lengths[chosen], offsets[:-1][chosen] + position, offsets[-1])
