"""Wavelet alignment of the modalities (ATHWE): decompose along time, let each band of one modality gate in the others.

    low'_m = sum_s sigmoid(G_ms low_s) * low_s      (and for each high_j with its own G)
    e'_m = e_m + w_m (reconstruct(low'_m, high'_m) - e_m)

Two decompositions, one interface. `centred` is the decimated transform of pytorch_wavelets at each row's true length: it
looks ahead. `causal` is undecimated: position t depends on positions <= t only, which makes all-position training legal.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pywt
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


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
    x: Float[Tensor, "T C"], positions: Int64[Tensor, " T"], *, name: str, levels: int
) -> tuple[Float[Tensor, "T C"], list[Float[Tensor, "T C"]]]:
    """Undecimated causal decomposition of every row: (low_J, [high_1 .. high_J]); their sum is x.

        low_0 = x      low_j[t] = sum_k c_k low_{j-1}[t - k 2^(j-1)]      high_j = low_{j-1} - low_j

    Before a row's first token its first value is repeated, so a constant row stays constant.

    Args:
        x: rows end to end.
        positions: index of each token in its row, 0 = oldest.
        name: wavelet. levels: J >= 1.
    """
    taps = smoothing_filter(name)
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
        # Parameters: gates[band, s, m] is G_ms of that band, band 0 = low, band j = high_j; applied from the right.
        self.gates = nn.Parameter(torch.empty(1 + levels, M, D, M * D))
        self.weight = nn.Parameter(torch.empty(M))

    def forward(
        self, tokens: Float[Tensor, "T M D"], positions: Int64[Tensor, " T"], offsets: Int64[Tensor, " B1"]
    ) -> Float[Tensor, "T M D"]:
        """Aligned tokens; `positions` in each row and row `offsets` tell the rows of the stream apart."""
        if self.form == "causal":
            low, highs = causal_decompose(tokens.flatten(1), positions, name=self.name, levels=self.levels)
            aligned = [self._align(band, index) for index, band in enumerate([low, *highs])]
            merged = causal_reconstruct(aligned[0], aligned[1:])
        else:
            merged = self._align_centred(tokens.flatten(1), offsets)
        residual = merged.view_as(tokens) - tokens
        return torch.addcmul(tokens, self.weight[:, None], residual)

    def decompose(self, row: Float[Tensor, "n M D"]) -> list[Float[Tensor, "_ M D"]]:
        """The bands [low_J, high_1 .. high_J] of one row that `forward` aligns; `centred` ones are shorter than it."""
        x = row.flatten(1)
        if self.form == "causal":
            positions = torch.arange(len(x), device=x.device)
            low, highs = causal_decompose(x, positions, name=self.name, levels=self.levels)
            bands = [low, *highs]
        else:
            low, highs = self._centred_transform(x)(x.T[None])
            bands = [band[0].T for band in (low, *highs)]
        return [band.reshape(-1, *row.shape[1:]) for band in bands]

    def _align(self, band: Float[Tensor, "*T K"], index: int) -> Float[Tensor, "*T K"]:
        """sum_s sigmoid(G_ms x_s) * x_s for every target m at once."""
        M, D = self.gates.shape[1:3]
        sources = band.reshape(-1, M, D).transpose(0, 1)
        gates = torch.bmm(sources, self.gates[index]).sigmoid_().view(M, -1, M, D)
        return torch.einsum("stmd,std->tmd", gates, sources).reshape(band.shape)

    def _align_centred(self, x: Float[Tensor, "T C"], offsets: Int64[Tensor, " B1"]) -> Float[Tensor, "T C"]:
        """Decimated transform (zero mode) of all rows of one length at a time."""
        from pytorch_wavelets import DWT1DInverse  # noqa: PLC0415 - heavy, and only this form needs it

        forward = self._centred_transform(x)
        inverse = DWT1DInverse(wave=self.name, mode="zero").to(x.device, x.dtype)
        merged = torch.zeros_like(x)
        for tokens in _rows_by_length(offsets):
            length = tokens.shape[1]
            low, highs = forward(x[tokens].transpose(1, 2))
            bands = [
                self._align(band.transpose(1, 2), index).transpose(1, 2) for index, band in enumerate([low, *highs])
            ]
            rebuilt = inverse((bands[0], bands[1:])).transpose(1, 2)[:, :length]
            merged = merged.index_copy(0, tokens.flatten(), rebuilt.reshape(-1, x.shape[1]))
        return merged

    def _centred_transform(self, x: Tensor) -> nn.Module:
        """The decomposition (b, C, n) -> low, [high_1 .. high_J] with the device and dtype of x."""
        from pytorch_wavelets import DWT1DForward  # noqa: PLC0415 - see above

        return DWT1DForward(J=self.levels, wave=self.name, mode="zero").to(x.device, x.dtype)


def _rows_by_length(offsets: Int64[Tensor, " B1"]) -> Iterator[Int64[Tensor, "b n"]]:
    """Token indices of all rows of each length that occurs."""
    lengths = offsets.diff()
    for length in lengths.unique().tolist():
        yield offsets[:-1][lengths == length][:, None] + torch.arange(length, device=offsets.device)
