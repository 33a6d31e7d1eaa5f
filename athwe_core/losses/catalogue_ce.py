"""Cross-entropy over the whole catalogue that makes its gradient in the forward pass and never keeps (N, V)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.losses.residual_kernel import softmax_residual_

CHUNK_ELEMENTS = 2**25
"""Scores held at a time: 64 MiB in bfloat16. Fewer, larger chunks are faster: each adds a (V, K) gradient."""

ROW_MULTIPLE = 64
"""Rows and columns of half-precision products are filled up to a multiple of this: oneDNN compiles a kernel for each shape it
has not met (14 ms where the product takes 3), and tensor cores want their rows aligned."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Forward: for each chunk of rows, scores -> probabilities -> minus one at the target -> both gradients.

    Rows that are not asked have the state 0, so that what stands in their scores adds nothing to the table's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        first_row: int,
        compute_dtype: torch.dtype,
        chunk_elements: int,
        num_targets: int | Tensor,
    ) -> Tensor:
        N, V = states.shape[-2], table.shape[-2]
        scores_a_row = table[..., 0].numel()
        multiple = 1 if compute_dtype == torch.float32 else ROW_MULTIPLE
        chunk = _chunk_rows(N, scores_a_row, chunk_elements, multiple)
        target_mask = targets >= 0
        h = _padded(states * target_mask[:, None], compute_dtype, chunk)
        w = _padded(table, compute_dtype, multiple)
        losses, state_grads = [states[..., :0, 0]], [h[..., :0, :]]
        table_grad = None
        for first in range(0, N, chunk):
            rows, asked = slice(first, first + chunk), slice(first, min(first + chunk, N))
            residual = h[..., rows, :] @ w.mT  # the scores, until they are overwritten: one chunk is held at a time
            own_bias = None if bias is None else bias[asked]
            losses.append(
                softmax_residual_(residual, targets[asked], bias=own_bias, first_row=first_row, num_columns=V)
            )
            state_grads.append((residual @ w)[..., : asked.stop - first, :])
            chunk_grad = (residual.mT @ h[..., rows, :])[..., :V, :]
            table_grad = chunk_grad if table_grad is None else table_grad.to(table.dtype).add_(chunk_grad)
            del residual, chunk_grad
        if table_grad is None:
            table_grad = torch.zeros_like(table)
        state_grad = torch.cat(state_grads, dim=-2).to(states.dtype) * target_mask[:, None]
        ctx.save_for_backward(state_grad, table_grad)
        ctx.num_targets = num_targets
        return (torch.cat(losses, dim=-1) * target_mask).sum(-1) / num_targets

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        state_grad, table_grad = ctx.saved_tensors
        scale = (grad / ctx.num_targets)[
            ..., None, None
        ]  # of some dimensions: a half-precision gradient takes its dtype
        return state_grad * scale, table_grad * scale, None, None, None, None, None, None


def _chunk_rows(N: int, scores_a_row: int, chunk_elements: int, multiple: int) -> int:
    """Rows of a chunk: as equal as they can be, a multiple where that many fit."""
    most = max(chunk_elements // scores_a_row, 1)
    if most < multiple:
        return most
    number = max(-(-N // (most - most % multiple)), 1)
    return -(-N // (number * multiple)) * multiple or multiple


def _padded(x: Tensor, dtype: torch.dtype, multiple: int) -> Tensor:
    """x in `dtype`, with zero rows up to a multiple."""
    count, width = x.shape[-2:]
    padding = -count % multiple
    if padding == 0:
        return x.to(dtype)
    filled = x.new_empty(*x.shape[:-2], count + padding, width, dtype=dtype)
    filled[..., :count, :], filled[..., count:, :] = x, 0
    return filled


def catalogue_cross_entropy(
    states: Float[Tensor, "*P N K"],
    table: Float[Tensor, "*P V K"],
    targets: Int64[Tensor, " N"],
    *,
    bias: Float[Tensor, "N V"] | None = None,
    first_row: int = 0,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
    num_targets: int | Tensor | None = None,
) -> Float[Tensor, "*P"]:
    """Mean cross-entropy of the next item against every row of `table`.

        F.cross_entropy(states @ table.T + bias, targets)

    Args:
        states: user vectors [h_id; h_text; h_image]; or several such problems with the same targets, one behind the other.
        table: item vectors.
        targets: row of the next item, in first_row..V-1; -1 = not asked: no loss and no gradient.
        bias: added to the scores, without a gradient of its own.
        first_row: rows of the table before it are no items: 1 for a table whose row 0 is the padding.
        compute_dtype: dtype of the three products and of the probabilities; accumulation is in float32.
        chunk_elements: most scores held at a time; the result is the same to rounding.
        num_targets: rows that the mean is over, where these are a part of them; None = N.
    Returns: scalar, or one for each problem, float32. A NaN in the inputs gives NaN. A row's loss is capped at 87.3, where
        its probability underflows; its gradient is not.
    Source: HM4SR eq. 19-20. No second-order gradient: the first-order one is made in the forward pass.
    """
    num_targets = len(targets) if num_targets is None else num_targets
    return _CatalogueCrossEntropy.apply(
        states, table, targets, bias, first_row, compute_dtype, chunk_elements, num_targets
    )
