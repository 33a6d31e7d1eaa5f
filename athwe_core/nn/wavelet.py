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

import numpy as np
import pywt
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.nn.sums import sum_of_products


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
            smooth = smooth + taps[k] * low[here - torch.minimum(positions, positions.new_tensor(k << level))]
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
            merged = causal_reconstruct(aligned[0], aligned[1:])
        else:
            merged = self._align_centred(tokens.flatten(1), offsets, dtype)
        residual = merged.view_as(tokens) - tokens
        return torch.addcmul(tokens, self.weight[:, None], residual)

    def decompose(self, row: Float[Tensor, "n M D"]) -> list[Float[Tensor, "_ M D"]]:
        """The bands [low_J, high_1 .. high_J] of one row that `forward` aligns; `centred` ones are shorter than it."""
        x = row.flatten(1)
        if self.form == "causal":
            positions = torch.arange(len(x), device=x.device)
            low, highs = causal_decompose(x, positions, taps=self.taps, levels=self.levels)
            bands = [low, *highs]
        else:
            bands = [analysis @ x for analysis in self._maps(len(x), x)[0]]
        return [band.reshape(-1, *row.shape[1:]) for band in bands]

    def _align(self, band: Float[Tensor, "*T K"], index: int, dtype: torch.dtype) -> Float[Tensor, "*T K"]:
        """sum_s sigmoid(G_ms x_s) * x_s for every target m at once."""
        M, D = self.gates.shape[1:3]
        sources = band.reshape(-1, M, D).transpose(0, 1).to(dtype)
        gates = torch.bmm(sources, self.gates[index].to(dtype)).sigmoid_().view(M, -1, M, D)
        merged = sum_of_products(zip(gates, sources[:, :, None], strict=True))
        return merged.reshape(band.shape).to(band.dtype)

    def _align_centred(
        self, x: Float[Tensor, "T C"], offsets: Int64[Tensor, " B1"], dtype: torch.dtype
    ) -> Float[Tensor, "T C"]:
        """Decimated transform (zero mode) of all rows of one length at a time, gates of all rows at once."""
        groups = list(_rows_by_length(offsets))
        maps = [self._maps(group.shape[1], x) for group in groups]
        tokens = torch.cat([group.flatten() for group in groups])
        by_length = x.index_select(0, tokens).split([group.numel() for group in groups])
        rows = [part.view(*group.shape, -1) for part, group in zip(by_length, groups, strict=True)]
        bands: list[list[Tensor]] = []
        for index in range(1 + self.levels):
            parts = [analysis[index] @ part for (analysis, _), part in zip(maps, rows, strict=True)]
            aligned = self._align(torch.cat([part.flatten(0, 1) for part in parts]), index, dtype)
            sizes = [part.shape[0] * part.shape[1] for part in parts]
            bands.append([a.view_as(b) for a, b in zip(aligned.split(sizes), parts, strict=True)])
        rebuilt = [
            sum(s @ band for s, band in zip(synthesis, own, strict=True))
            for (_, synthesis), own in zip(maps, zip(*bands, strict=True), strict=True)
        ]
        merged = torch.cat([row.flatten(0, 1) for row in rebuilt])
        return torch.empty_like(x).index_copy(0, tokens, merged)

    def _maps(self, length: int, like: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return centred_maps(self.name, self.levels, length, like.dtype, like.device)


@functools.lru_cache(maxsize=1024)
def centred_maps(
    name: str, levels: int, length: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[Float[Tensor, "_ n"]], list[Float[Tensor, "n _"]]]:
    """The decimated transform of pytorch_wavelets and its inverse at one length, as matrices by band.

    Both are linear: the matrices are what they make of unit vectors. A product of a few numbers takes microseconds where the
    convolutions take a kernel for each length and number of rows.

    Returns: analysis matrices [low_J, high_1 .. high_J] and synthesis matrices, whose results add up to the row.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)  # on each import of it
        from pytorch_wavelets import DWT1DForward, DWT1DInverse  # noqa: PLC0415 - heavy, and only this form needs it

    with torch.inference_mode(False), torch.no_grad():
        forward = DWT1DForward(J=levels, wave=name, mode="zero").double()
        inverse = DWT1DInverse(wave=name, mode="zero").double()
        low, highs = forward(torch.eye(length, dtype=torch.float64)[:, None])
        responses = [band[:, 0] for band in (low, *highs)]
        synthesis = []
        for index, band in enumerate(responses):
            count = band.shape[1]
            units = [torch.zeros(count, 1, other.shape[1], dtype=torch.float64) for other in responses]
            units[index] = torch.eye(count, dtype=torch.float64)[:, None]
            synthesis.append(inverse((units[0], units[1:]))[:, 0, :length].T)
        analysis = [band.T for band in responses]
        return [a.to(device, dtype) for a in analysis], [s.to(device, dtype) for s in synthesis]


def _rows_by_length(offsets: Int64[Tensor, " B1"]) -> Iterator[Int64[Tensor, "b n"]]:
    """Token indices of all rows of each length above 0 that occurs."""
    lengths = offsets.diff()
    for length in lengths[lengths > 0].unique().tolist():
        yield offsets[:-1][lengths == length][:, None] + torch.arange(length, device=offsets.device)
