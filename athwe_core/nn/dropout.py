"""Dropout from random bytes: on a CPU a tenth of the cost of one Bernoulli draw per element."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_WORD_MIN = -(
    2**63
)  # the default range of random_() never sets the top bit, which would drop every eighth element forever


def random_bytes(count: int) -> Tensor:
    """`count` uniform bytes from the default CPU generator, as uint8."""
    words = torch.empty((count + 7) // 8, dtype=torch.int64)
    return words.random_(_WORD_MIN, None).view(torch.uint8)[:count]


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        # bytes >= threshold as 0 or 1 by arithmetic on bytes: comparing to bool and multiplying by it is ten times slower
        keep = random_bytes(x.numel()).clamp_(threshold - 1, threshold).sub_(threshold - 1)
        scale = keep.view(x.shape).to(x.dtype).mul_(256.0 / (256 - threshold))
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale, None


def dropout(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate); identity when not training.

    On CPU, unless compiled, the rate is rounded to 1/256 and the scale follows it, so that the expectation stays exact.
    Randomness comes from torch's default generator, which the training loop seeds before each step.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    return _ByteDropout.apply(x, min(round(rate * 256), 255))
