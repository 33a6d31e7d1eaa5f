"""From scores to cross-entropies and their gradient, in place: one Triton kernel on CUDA, torch elsewhere.

In torch it is about ten kernels, each of which reads or writes the scores. Triton is imported when the first CUDA scores
arrive, and on no other machine.
"""

from __future__ import annotations

import functools
import math
import subprocess

import torch
from jaxtyping import Float, Int64
from torch import Tensor

LOSS_CAP = -math.log(torch.finfo(torch.float32).tiny)
"""87.3, the loss of the smallest probability that float32 holds with all its digits."""

WIDE_BLOCK, NARROW_BLOCK = 4096, 1024
"""Columns that a program holds at a time. Two sizes, whatever the catalogue, so that few kernels are compiled."""


def softmax_residual_(
    scores: Float[Tensor, "*P rows columns"],
    targets: Int64[Tensor, " N"],
    *,
    bias: Float[Tensor, "N V"] | None = None,
    first_row: int,
    num_columns: int,
) -> Float[Tensor, "*P N"]:
    """The loss of each row; `scores` become the loss's gradient with respect to them.

        x = scores + bias, with -inf in columns that are no items
        losses = logsumexp(x) - x[target]
        scores = softmax(x) - one_hot(target)

    Args:
        scores: of at least N rows, adjacent columns, float32, bfloat16 or float16; targets and bias are the same for all P.
            Rows after the first N fill a chunk up and come back finite where they were. Overwritten.
        targets: column of each row's own item, in first_row..num_columns-1; -1 = not asked: its row and loss come back
            finite where its scores are, and mean nothing.
        bias: added to the scores in columns before num_columns.
        first_row: columns before it are no items.
        num_columns: nor are this column and those after it.
    Returns: float32, capped at LOSS_CAP. A NaN in a row, or no column above -inf, makes the row and its loss NaN.
    """
    run = triton_softmax_residual_ if scores.is_cuda and _has_triton() else torch_softmax_residual_
    return run(scores, targets, bias, first_row, num_columns)


def torch_softmax_residual_(
    scores: Tensor, targets: Tensor, bias: Tensor | None, first_row: int, num_columns: int
) -> Tensor:
    """`softmax_residual_` in torch; the probabilities and from them the losses are rounded to the dtype of the scores."""
    count = len(targets)
    if bias is not None:
        scores[..., :count, :num_columns] += bias
    scores[..., :first_row] = -math.inf
    scores[..., num_columns:] = -math.inf
    torch.softmax(scores, dim=-1, out=scores)  # each row is read before it is written
    own = ..., torch.arange(count, device=scores.device), targets.clamp(min=0)
    probability = scores[own]
    scores[own] = probability - 1  # scatter_ and scatter_add_ would copy the whole of it
    return -probability.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def triton_softmax_residual_(
    scores: Tensor, targets: Tensor, bias: Tensor | None, first_row: int, num_columns: int
) -> Tensor:
    """`softmax_residual_` in one kernel, which computes in float32; rows after the first N stay as they are."""
    if scores.ndim > 2:
        each = [triton_softmax_residual_(part, targets, bias, first_row, num_columns) for part in scores]
        return torch.stack(each)
    count, columns = len(targets), scores.shape[1]
    losses = torch.empty(count, dtype=torch.float32, device=scores.device)
    if not count:
        return losses
    from athwe_core.losses.residual_triton import softmax_residual  # noqa: PLC0415 - Triton is not on every machine

    block = WIDE_BLOCK if columns > NARROW_BLOCK else NARROW_BLOCK
    with torch.cuda.device_of(scores):  # Triton starts kernels on the current device; for CPU tensors this does nothing
        softmax_residual[(count,)](
            scores,
            targets,
            bias,
            losses,
            scores.stride(0),
            targets.stride(0),
            0 if bias is None else bias.stride(0),
            0 if bias is None else bias.stride(1),
            columns,
            first_row,
            num_columns,
            CAP=LOSS_CAP,
            BLOCK=block,
            num_warps=block // 512,
        )
    return losses


@functools.cache
def _has_triton() -> bool:
    """Whether kernels can be made here: it takes Triton, and a C compiler with Python's headers to reach the driver."""
    try:
        from triton.runtime import driver  # noqa: PLC0415 - not on every machine

        driver.active.get_current_target()
    except (ImportError, RuntimeError, OSError, AssertionError, subprocess.SubprocessError):
        return False
    return True
