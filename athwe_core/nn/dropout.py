"""Dropout from random bytes: on a CPU it costs a tenth of one Bernoulli draw for each element."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROUNDING = 0.02
"""Largest relative error of the dropped and of the kept share that a faster draw may bring."""
_of_thread = threading.local()
_WORD_MIN = -(2**63)
# The default range of random_() never sets the top bit of a word: every eighth byte would stay below 128.


@contextmanager
def dropout_generator(generator: torch.Generator) -> Iterator[None]:
    """Draw the dropout of this thread on a CPU from `generator` instead of torch's default generator.

    Compiled code and other devices always draw from torch's default generators.

    Args:
        generator: a CPU generator.
    Yields: once; the generator of before holds again afterwards.
    """
    before = _generator()
    _of_thread.generator = generator
    try:
        yield
    finally:
        _of_thread.generator = before


def replayed_dropout() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for `torch.utils.checkpoint.checkpoint(context_fn=...)`: the second pass draws what the first one drew.

    Returns: the context of the first pass and the context of the pass that computes it again, each to be entered once.
    """
    generator = _generator()
    if generator is None:  # torch replays its default generators itself
        return nullcontext(), nullcontext()
    again = torch.Generator()
    again.set_state(generator.get_state())
    return nullcontext(), dropout_generator(again)


def _generator() -> torch.Generator | None:
    """The generator of this thread; None = torch's default generator."""
    return getattr(_of_thread, "generator", None)


def random_bytes(count: int) -> Tensor:
    """Uniform random bytes from the generator of `dropout_generator`, or from torch's default CPU generator.

    Args:
        count: number of bytes, >= 0.
    Returns: (count,) uint8.
    """
    words = torch.empty((count + 7) // 8, dtype=torch.int64)
    return words.random_(_WORD_MIN, None, generator=_generator()).view(torch.uint8)[:count]


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

    On a CPU, unless compiled, the rate is rounded to a multiple of 1/256 where that changes neither the dropped nor the kept
    share by more than 2 %. The scale uses the rounded rate, so the expectation is exact. Other rates, such as 0.001, are
    exact and slower. Random numbers come from the generator of `dropout_generator` there, else from torch's default ones.

    Args:
        x: any shape, floating point.
        rate: probability in [0, 1).
        training: False = identity.
    Returns: a tensor like x; x itself where nothing is dropped.
    Source: Srivastava et al. 2014.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    threshold = round(rate * 256)
    if abs(threshold / 256 - rate) > ROUNDING * min(rate, 1 - rate):
        keep = torch.empty_like(x, requires_grad=False).bernoulli_(1 - rate, generator=_generator())
        return x * (keep / (1 - rate))
    return _ByteDropout.apply(x, threshold)


class Dropout(nn.Dropout):
    """`dropout` as a module, for layers of torch."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements while training.

        Args:
            x: any shape, floating point.
        Returns: a tensor like x.
        """
        return dropout(x, self.p, training=self.training)


def with_fast_dropout(layer: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> nn.Module:
    """A Transformer layer of torch that drops as `dropout` does, except inside the attention.

    Args:
        layer: changed in place.
    Returns: the layer.
    """
    for name, part in list(layer.named_children()):
        if type(part) is nn.Dropout:
            setattr(layer, name, Dropout(part.p))
    return layer
