"""Cross-entropy over the whole catalogue that makes its gradient in the forward pass and never keeps (N, V)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHUNK_ELEMENTS = 2**25
"""Scores held at a time: 64 MiB in bfloat16. Fewer, larger chunks are faster: each adds a (V, K) gradient."""

_chunk_elements = ContextVar("chunk_elements", default=CHUNK_ELEMENTS)


@contextmanager
def chunks_of(elements: int) -> Iterator[None]:
    """Most scores held at a time inside, where a call does not say otherwise; the results are the same to rounding."""
    token = _chunk_elements.set(elements)
    try:
        yield
    finally:
        _chunk_elements.reset(token)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Forward: for each chunk of rows, scores -> probabilities -> minus one at the target -> both gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        compute_dtype: torch.dtype,
        chunk_elements: int,
        num_rows: int,
    ) -> Tensor:
        N, V = states.shape[0], table.shape[0]
        h, w = states.to(compute_dtype), table.to(compute_dtype)
        chunk = min(max(chunk_elements // V, 1), max(N, 1))
        losses, state_grads = [states.new_zeros(0)], [h.new_zeros(0, h.shape[1])]
        table_grad = None
        for first in range(0, N, chunk):
            rows = slice(first, min(first + chunk, N))
            scores = h[rows] @ w.T if bias is None else torch.addmm(bias[rows].to(compute_dtype), h[rows], w.T)
            residual = torch.softmax(scores, dim=-1)
            del scores  # two chunks at most are held at a time
            own = torch.arange(len(residual), device=residual.device), targets[rows]
            probability = residual[own]
            losses.append(-probability.float().clamp(min=torch.finfo(torch.float32).tiny).log())
            residual[own] = probability - 1  # scatter_ and scatter_add_ would copy the whole of it
            state_grads.append(residual @ w)
            chunk_grad = (residual.T @ h[rows]).to(table.dtype)
            table_grad = chunk_grad if table_grad is None else table_grad.add_(chunk_grad)
            del residual, chunk_grad
        if table_grad is None:
            table_grad = torch.zeros_like(table)
        ctx.save_for_backward(torch.cat(state_grads).to(states.dtype), table_grad)
        ctx.num_rows = num_rows
        return torch.cat(losses).sum() / num_rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None, None]:
        state_grad, table_grad = ctx.saved_tensors
        scale = grad / ctx.num_rows
        return state_grad * scale, table_grad * scale, None, None, None, None, None


def catalogue_cross_entropy(
    states: Float[Tensor, "N K"],
    table: Float[Tensor, "V K"],
    targets: Int64[Tensor, " N"],
    *,
    bias: Float[Tensor, "N V"] | None = None,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int | None = None,
    num_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next item against every row of `table`.

        F.cross_entropy(states @ table.T + bias, targets)

    Args:
        states: user vectors [h_id; h_text; h_image].
        table: item vectors, one row per item; leave the padding row out by `table[1:]` and `targets - 1`.
        targets: row of the next item, in 0..V-1.
        bias: added to the scores, without a gradient of its own.
        compute_dtype: dtype of the three products and of the probabilities; accumulation is in float32.
        chunk_elements: most scores held at a time; None = as `chunks_of` says, else CHUNK_ELEMENTS.
        num_rows: rows that the mean is over, where these are a part of them; None = N.
    Returns: scalar, float32. A NaN in the inputs gives NaN. A row's loss is capped at 87.3, where its probability
        underflows; its gradient is not.
    Source: HM4SR eq. 19-20. No second-order gradient: the first-order one is made in the forward pass.
    """
    chunk_elements = _chunk_elements.get() if chunk_elements is None else chunk_elements
    num_rows = len(states) if num_rows is None else num_rows
    return _CatalogueCrossEntropy.apply(states, table, targets, bias, compute_dtype, chunk_elements, num_rows)
