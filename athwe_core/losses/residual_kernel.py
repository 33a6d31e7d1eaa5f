"""Cross-entropies and their gradient from scores, in place: one Triton kernel on CUDA, torch elsewhere.

In torch the same takes about ten kernels, each of which reads or writes all scores. Triton is imported at the first call with
scores on a CUDA device.
"""

from __future__ import annotations

import functools
import math
import subprocess

import torch
from jaxtyping import Float, Int64
from torch import Tensor

LOSS_CAP = -math.log(torch.finfo(torch.float32).tiny)
"""87.3, the loss of the smallest normal float32 probability."""

WIDE_BLOCK, NARROW_BLOCK = 4096, 1024
"""Columns that a program holds at a time. Two sizes serve all catalogues, so that few kernels are compiled."""


def softmax_residual_(
    scores: Float[Tensor, "*P rows columns"],
    targets: Int64[Tensor, " N"],
    *,
    bias: Float[Tensor, "N V"] | None = None,
    first_row: int,
    num_columns: int,
) -> Float[Tensor, "*P N"]:
    """Compute the loss of each row of scores, and overwrite the scores with the gradient of that loss.

        x = scores + bias, with -inf in columns that are not items
        losses = logsumexp(x) - x[target]
        scores = softmax(x) - one_hot(target)

    Args:
        scores: at least N rows with contiguous columns, in float32, bfloat16 or float16; overwritten. Targets and bias are
            the same for all P. Rows after the first N are padding; their result has no meaning, but is finite if they are.
        targets: target column of each row, in first_row..num_columns-1; -1 = padding, as above.
        bias: added to the scores in columns before num_columns.
        first_row: columns before it are not items.
        num_columns: this column and those after it are not items.
    Returns: float32 losses, at most LOSS_CAP. They and the row are NaN where the row has a NaN or no column above -inf.
    Source: HM4SR eq. 20 and its gradient.
    """
    run = triton_softmax_residual_ if scores.is_cuda and _has_triton() else torch_softmax_residual_
    return run(scores, targets, bias, first_row, num_columns)


def torch_softmax_residual_(
    scores: Tensor, targets: Tensor, bias: Tensor | None, first_row: int, num_columns: int
) -> Tensor:
    """`softmax_residual_` in torch, with the arguments of `softmax_residual_`.

    Probabilities, and the losses computed from them, are rounded to the dtype of the scores.
    """
    count = len(targets)
    if bias is not None:
        scores[..., :count, :num_columns] += bias
    scores[..., :first_row] = -math.inf
    scores[..., num_columns:] = -math.inf
    torch.softmax(scores, dim=-1, out=scores)  # torch reads a whole row before it writes it
    own = ..., torch.arange(count, device=scores.device), targets.clamp(min=0)
    probability = scores[own]
    scores[own] = probability - 1  # scatter_ and scatter_add_ would copy all scores
    return -probability.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def triton_softmax_residual_(
    scores: Tensor, targets: Tensor, bias: Tensor | None, first_row: int, num_columns: int
) -> Tensor:
    """`softmax_residual_` in one Triton kernel, with the arguments of `softmax_residual_`.

    The kernel computes in float32 and leaves rows after the first N unchanged.
    """
    if scores.ndim > 2:
        each = [triton_softmax_residual_(part, targets, bias, first_row, num_columns) for part in scores]
        return torch.stack(each)
    count, columns = len(targets), scores.shape[1]
    losses = torch.empty(count, dtype=torch.float32, device=scores.device)
    if not count:
        return losses
    from athwe_core.losses.residual_triton import softmax_residual  # noqa: PLC0415 - Triton is not on every machine

    block = WIDE_BLOCK if columns > NARROW_BLOCK else NARROW_BLOCK
    with torch.cuda.device_of(scores):  # Triton starts kernels on the current device
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
    """Whether Triton is installed and works; to reach the driver it needs a C compiler and Python's headers."""
    try:
        from triton.runtime import driver  # noqa: PLC0415 - not on every machine

        driver.active.get_current_target()
    except (ImportError, RuntimeError, OSError, AssertionError, subprocess.SubprocessError):
        return False
    return True
