"""Fusion of two signals over time in the frequency domain (TedRec).

Signals run over the L slots of a row. Transforms are products with real matrices: at L = 50 such products were faster than
FFTs in `frequency_attention`, and torch's compiler has no code for complex numbers.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


def spectrum_matrix(length: int) -> Float[Tensor, "M2 L"]:
    """The orthonormal real FFT of a signal: M = L // 2 + 1 real parts, then as many imaginary parts.

    Args:
        length: L >= 1.
    Returns: matrix in float32 with M2 = 2 M rows.
    """
    spectrum = torch.fft.rfft(torch.eye(length, dtype=torch.float64, device="cpu"), dim=0, norm="ortho")
    return torch.cat([spectrum.real, spectrum.imag]).float()


def signal_matrix(length: int) -> Float[Tensor, "L M2"]:
    """The inverse of `spectrum_matrix`.

    Args:
        length: L >= 1.
    Returns: matrix in float32 with M2 = 2 M columns. Imaginary parts of frequency 0 have no effect, nor for an even L those
        of L / 2.
    """
    M = length // 2 + 1
    unit = torch.eye(M, dtype=torch.complex128, device="cpu")
    return torch.fft.irfft(torch.cat([unit, 1j * unit], dim=1), n=length, dim=0, norm="ortho").float()


class FrequencyFusion(nn.Module):
    """A filter of one signal, and its product with another one, both in the frequency domain, each with a gate.

        a = F^-1(F(x) * C)        n = F^-1(F(y) * F(x))
        f_t = 2 (a_t sigmoid(w_a . a_t + b_a) + n_t sigmoid(w_n . n_t + b_n))

    Both are circular convolutions over the row: with c = F^-1(C),

        a_t = sum_s c_{(t - s) mod L} x_s / sqrt(L)        n_t = sum_s y_{(t - s) mod L} x_s / sqrt(L)

    so that a slot sees later ones and padding too. Without `reads_all` the sums end at s = t: nothing wraps around. They are
    products of the spectra of signals of length 2 L, then, whose second half is 0.

    Args:
        length: L.
        hidden_size: D.
        has_filter: False leaves a out.
        has_product: False leaves n out.
        reads_all: whether a slot sees all slots of its row, as published.
    Source: TedRec (Xu et al., CIKM 2024); `reads_all=False` is ours.
    """

    spectrum: Tensor
    signal: Tensor
    lengthened: Tensor | None
    """From C to the spectrum of c with zeros after it."""

    def __init__(
        self, *, length: int, hidden_size: int, has_filter: bool, has_product: bool, reads_all: bool = True
    ) -> None:
        super().__init__()
        transformed = length if reads_all else 2 * length
        self.register_buffer("spectrum", spectrum_matrix(transformed)[:, :length], persistent=False)
        self.register_buffer(
            "signal", signal_matrix(transformed)[:length] * (transformed / length) ** 0.5, persistent=False
        )
        lengthened = None if reads_all else (self.spectrum @ signal_matrix(length)).contiguous()
        self.register_buffer("lengthened", lengthened, persistent=False)
        # Parameters, which the model initialises. C: real parts, then imaginary parts.
        self.filter = nn.Parameter(torch.empty(2 * (length // 2 + 1), hidden_size)) if has_filter else None
        self.filter_gate = nn.Linear(hidden_size, 1) if has_filter else None
        self.product_gate = nn.Linear(hidden_size, 1) if has_product else None

    def forward(self, x: Float[Tensor, "B L D"], y: Float[Tensor, "_ L D"] | None) -> Float[Tensor, "B L D"]:
        """Fuse.

        Args:
            x: the filtered signal; its padding counts with `reads_all`.
            y: the signal it is multiplied with; None without product.
        Returns: f.
        """
        of_x, parts = self.spectrum @ x, []
        if self.filter is not None:
            spectrum = self.filter if self.lengthened is None else self.lengthened @ self.filter
            parts.append(self._gated(of_x, spectrum[None], self.filter_gate))
        if y is not None:
            parts.append(self._gated(of_x, self.spectrum @ y, self.product_gate))
        return 2 * (parts[0] if len(parts) == 1 else parts[0] + parts[1])

    def _gated(self, first: Tensor, second: Tensor, gate: nn.Module | None) -> Tensor:
        """Complex product of two spectra as a signal, with its gate."""
        (a, b), (c, d) = first.chunk(2, dim=1), second.chunk(2, dim=1)
        signal = self.signal @ torch.cat([a * c - b * d, a * d + b * c], dim=1)
        return signal * torch.sigmoid(cast(nn.Linear, gate)(signal))
