"""Dropout from random bytes: on a CPU it costs a tenth of one Bernoulli draw for each element."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_WORD_MIN = -(2**63)
# The default range of random_() never sets the top bit of a word: every eighth byte would stay below 128.


def random_bytes(count: int) -> Tensor:
    """Uniform random bytes from torch's default CPU generator.

    Args:
        count: number of bytes, >= 0.
    Returns: (count,) uint8.
    """
    words = torch.empty((count + 7) // 8, dtype=torch.int64)
    return words.random_(_WORD_MIN, None).view(torch.uint8)[:count]


class _ByteDropout(torch.autograd.Function):
    """Keeps an element where its random byte is at least the threshold; saves the scaled mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        # 1 where the byte is at least the threshold, else 0. Comparing and multiplying by a bool takes ten times as long.
        keep = random_bytes(x.numel()).clamp_(threshold - 1, threshold).sub_(threshold - 1)
        scale = keep.view(x.shape).to(x.dtype).mul_(256.0 / (256 - threshold))
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale, None


def dropout(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate).

    On a CPU, unless compiled, the rate is rounded to a multiple of 1/256, and at most 255/256. The scale uses the rounded
    rate, so the expectation is exact. Random numbers come from torch's default generator.

    Args:
        x: any shape, floating point.
        rate: probability in [0, 1).
        training: False = identity.
    Returns: a tensor like x; x itself where nothing is dropped.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    return _ByteDropout.apply(x, min(round(rate * 256), 255))
