"""The Triton kernel of `residual_kernel`, the only module that imports this one, at its first use of Triton."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _of_items(column, scores, bias, bias_column_stride, columns, first_row, num_columns):
    """Scores plus bias of one row in float32, -inf in columns that are not items."""
    x = tl.load(scores + column, mask=column < columns, other=0.0).to(tl.float32)
    if bias is not None:
        x += tl.load(bias + column * bias_column_stride, mask=column < num_columns, other=0.0).to(tl.float32)
    return tl.where((column >= first_row) & (column < num_columns), x, float("-inf"))


@triton.jit
@no_type_check
def softmax_residual(
    scores,
    targets,
    bias,
    losses,
    score_stride,
    target_stride,
    bias_row_stride,
    bias_column_stride,
    columns,
    first_row,
    num_columns,
    CAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program i computes row i in two passes over the columns: sum of exponentials, then residual."""
    row = tl.program_id(0).to(tl.int64)
    scores += row * score_stride
    own = tl.maximum(tl.load(targets + row * target_stride), 0)
    own_is_item = (own >= first_row) & (own < num_columns)
    own_score = tl.load(scores + own, mask=own_is_item, other=float("-inf")).to(tl.float32)
    if bias is not None:
        bias += row * bias_row_stride
        own_score += tl.load(bias + own * bias_column_stride, mask=own_is_item, other=0.0).to(tl.float32)

    highest, total = float("-inf"), 0.0
    for first in range(0, num_columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        x = _of_items(column, scores, bias, bias_column_stride, columns, first_row, num_columns)
        higher = tl.maximum(highest, tl.max(x, axis=0))
        shift = tl.where(higher == float("-inf"), 0.0, higher)  # all -inf so far: avoid -inf minus -inf
        total = total * tl.exp(highest - shift) + tl.sum(tl.exp(x - shift), axis=0)
        highest = higher

    loss = (highest - own_score) + tl.log(total)
    tl.store(losses + row, tl.where(loss > CAP, CAP, loss))  # a NaN is not above the cap

    scale = 1.0 / total
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        x = _of_items(column, scores, bias, bias_column_stride, columns, first_row, num_columns)
        probability = tl.exp(x - highest) * scale
        residual = tl.where(column == own, probability - 1.0, probability)
        tl.store(scores + column, residual.to(scores.dtype.element_ty), mask=column < columns)
