"""Wavelet alignment of the modalities (ATHWE): decompose each along time, gate the bands, add them up over the modalities.

Two decompositions share one interface. `centred` is the decimated transform of pytorch_wavelets, at each row's true length;
a token then depends on later ones. `causal` is undecimated: a token depends on itself and earlier ones only, so that all
positions of a row can be supervised at once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.nn.multiply_add import sum_of_products
from athwe_core.warning_filters import warnings_as

LENGTH_MULTIPLE = 8
"""In the centred form, row lengths are padded to a multiple of this, so that few products of different shape occur."""
COEFFICIENT_MULTIPLE = 256
"""The coefficients of a band are padded to a multiple of this in half precision, so that few shapes occur."""


@functools.cache
def smoothing_filter(name: str) -> tuple[float, ...]:
    """Taps of the smoothing filter of the causal form.

    Args:
        name: a discrete wavelet of PyWavelets, such as `haar` or `db4`.
    Returns: the wavelet's reconstruction low-pass filter, divided by its sum; first the tap of the most recent token. Of
        its two directions, the one with the smaller mean delay.
    Raises:
        ValueError: PyWavelets has no such wavelet.
    """
    taps = np.asarray(pywt.Wavelet(name).rec_lo, np.float64)
    taps = taps / taps.sum()
    delay = float(np.arange(len(taps)) @ taps)
    if delay > (len(taps) - 1) / 2:
        taps = taps[::-1]
    return tuple(taps.tolist())


def causal_decompose(
    x: Float[Tensor, "T C"], positions: Int64[Tensor, " T"], *, taps: tuple[float, ...], levels: int
) -> tuple[Float[Tensor, "T C"], list[Float[Tensor, "T C"]]]:
    """Undecimated causal decomposition of every row.

        low_0 = x      low_j[t] = sum_k c_k low_{j-1}[t - k 2^(j-1)]      high_j = low_{j-1} - low_j

    Before the first token of a row, its first value is repeated, so that a constant row stays constant.

    Args:
        x: rows end to end.
        positions: index of each token in its row, 0 = oldest.
        taps: c, from `smoothing_filter`.
        levels: J >= 1.
    Returns: low_J and [high_1, ..., high_J]; they sum to x.
    Source: the a trous algorithm (Holschneider et al. 1989), here with a one-sided filter.
    """
    here = torch.arange(x.shape[0], device=x.device)
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
    """The inverse of `causal_decompose`.

    Args:
        low, highs: bands as `causal_decompose` returns them.
    Returns: their sum.
    Source: the a trous algorithm (Holschneider et al. 1989).
    """
    return sum(highs, start=low)


class WaveletAlignment(nn.Module):
    """Each band of a modality becomes a gated sum of the same band of all modalities.

        low'_m = sum_s sigmoid(G_ms low_s) * low_s          and each high_j the same way, with its own G
        e'_m = e_m + w_m (reconstruct(low'_m, high'_m) - e_m)

    Args:
        hidden_size: D >= 1.
        num_modalities: M >= 1.
        name: a discrete wavelet of PyWavelets.
        levels: J >= 1.
        form: `causal` or `centred`.
        weight_init: initial residual weight w of each of the M modalities; the model sets it.
    Source: ATHWE; the causal form is ours.   Differs: the published code transforms the padding positions as well; rows
        here have their true length.
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
        """Align the modalities of each row.

        Args:
            tokens: rows end to end.
            positions: index of each token in its row, 0 = oldest.
            offsets: row b holds the tokens offsets[b]..offsets[b+1]-1.
            dtype: of the gates' products; None = that of the tokens.
        Returns: aligned tokens, in the dtype of `tokens`.
        """
        dtype = dtype or tokens.dtype
        if self.form == "causal":
            low, highs = causal_decompose(tokens.flatten(1), positions, taps=self.taps, levels=self.levels)
            aligned = [self._align(band, index, dtype) for index, band in enumerate([low, *highs])]
            merged = causal_reconstruct(aligned[0].to(tokens.dtype), aligned[1:])
        else:
            merged = self._align_centred(tokens.flatten(1), offsets, dtype)
        return tokens.lerp(merged.view_as(tokens), self.weight[:, None])

    def decompose(self, row: Float[Tensor, "n M D"]) -> list[Float[Tensor, "_ M D"]]:
        """Bands of one row, before the gates; for inspection.

        Args:
            row: the n tokens of the row.
        Returns: [low_J, high_1, ..., high_J]; in the centred form their lengths differ from n.
        """
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
        """sum_s sigmoid(G_ms x_s) * x_s for all modalities m at once, in `dtype`."""
        M, D = self.gates.shape[1:3]
        # `to` with a format copies once where it casts; where it does not cast, `contiguous` makes the copy
        sources = band.view(-1, M, D).transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
        return _Gated.apply(sources.contiguous(), self.gates[index].to(dtype)).flatten(1)

    def _align_centred(
        self, x: Float[Tensor, "T C"], offsets: Int64[Tensor, " B1"], dtype: torch.dtype
    ) -> Float[Tensor, "T C"]:
        """Decimated transform (zero mode) of all rows, with the gates of all of them in one product.

        Rows are padded with zeros to a few lengths. The result is the same: the transform continues a row with zeros, the
        gates map zero to zero, and coefficients past the row's own do not reach back into it.
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
        """Align band `index` of all rows; each part holds rows of one padded length in its columns."""
        flat = [part.reshape(-1, self.gates.shape[1] * self.gates.shape[2]) for part in parts]
        counts = [len(part) for part in flat]
        padding = flat[0].new_zeros(
            -sum(counts) % COEFFICIENT_MULTIPLE if dtype != torch.float32 else 0, flat[0].shape[1]
        )
        aligned = self._align(torch.cat([*flat, padding]), index, dtype)
        return [own.view_as(part) for own, part in zip(aligned.split([*counts, len(padding)]), parts, strict=False)]

    def _maps(self, length: int, like: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        return centred_maps(self.name, self.levels, length, like.dtype, like.device)


class _Gated(torch.autograd.Function):
    """sum_s sigmoid(x_s G_s) * x_s; keeps the gates for the backward pass, but not their products with x."""

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
    """The decimated transform of pytorch_wavelets and its inverse for one row length, as matrices.

    Both maps are linear, so their images of the unit vectors are the columns of their matrices. A small product takes
    microseconds; the convolutions would need a new kernel for each length and number of rows.

    Args:
        name: a discrete wavelet of PyWavelets.
        levels: J >= 1.
        length: n >= 1, tokens of the row.
        dtype, device: of the matrices; they are computed in float64.
    Returns: analysis, synthesis, and how many of the P coefficients belong to each of [low_J, high_1, ..., high_J].
    Source: ATHWE uses this transform in zero mode.
    """
    with warnings_as("ignore", "pkg_resources is deprecated"):  # on each import of it
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
    """Token indices of all rows of one padded length, a row in each column; one grid for each such length.

    The index after the last token stands for padding.
    """
    lengths = offsets.diff()
    padded = lengths + -lengths % LENGTH_MULTIPLE
    for length in padded[padded > 0].unique().tolist():
        chosen = padded == length
        position = torch.arange(length, device=offsets.device)[:, None]
        yield torch.where(position < lengths[chosen], offsets[:-1][chosen] + position, offsets[-1])
