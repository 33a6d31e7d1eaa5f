"""Linear recurrence over packed rows as a parallel scan (LRURec's recurrent layer and its relatives)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Inexact, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_recurrence(
    x: Inexact[Tensor, "T C"], decay: Inexact[Tensor, " C"], positions: Int64[Tensor, " T"], *, max_length: int
) -> Inexact[Tensor, "T C"]:
    """States of a linear recurrence that starts anew at the first token of each row.

        h_t = decay * h_{t-1} + x_t,    h = 0 before the first token of a row

    Computed by doubling: after step k, h_t covers the latest 2^k tokens. So ceil(log2(max_length)) steps, each of T * C
    products, take the place of a loop over time. The gradient is the same scan in the other direction.

    Args:
        x: inputs, rows end to end; real or complex.
        decay: factor of each channel, real or complex, |decay| <= 1 for a stable recurrence.
        positions: index of each token in its row, 0 = oldest.
        max_length: upper bound of the row lengths; as a Python number it is known without waiting for the device.
    Returns: states in the widest dtype of x, decay and float32: bfloat16 inputs give float32, or complex64 with a complex
        decay.
    Source: the recurrence of the LRU (Orvieto et al. 2023), the scan of Hillis and Steele 1986. There is no second-order
        gradient.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, decay.dtype), torch.float32)
    return _LinearRecurrence.apply(x.to(dtype), decay.to(dtype), positions, max_length)


class _LinearRecurrence(torch.autograd.Function):
    """Saves the states only: the gradient needs no intermediate step of the scan."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: Tensor, positions: Tensor, max_length: int) -> Tensor:
        states = _scan(x, decay, positions, max_length, is_reversed=False)
        ctx.save_for_backward(states, decay, positions)
        ctx.max_length = max_length
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states, decay, positions = ctx.saved_tensors
        x_grad = _scan(grad, decay.conj(), positions, ctx.max_length, is_reversed=True)
        carried = x_grad[1:] * states[:-1].conj()
        decay_grad = carried.masked_fill_(positions[1:, None] == 0, 0).sum(0)
        return x_grad, decay_grad, None, None


def _scan(x: Tensor, decay: Tensor, positions: Tensor, max_length: int, *, is_reversed: bool) -> Tensor:
    """sum_j decay^j x_{t-j} over the earlier tokens of the row, or sum_j decay^j x_{t+j} over its later ones."""
    total, power, step = x.clone(memory_format=torch.contiguous_format), decay, 1
    while step < max_length:
        earlier, later = total[:-step], total[step:]
        source, goal = (later, earlier) if is_reversed else (earlier, later)
        other_row = positions[step:, None] < step  # tokens t and t - step
        goal += (power * source).masked_fill_(other_row, 0)  # the product is complete before it is added
        power, step = power * power, 2 * step
    return total
