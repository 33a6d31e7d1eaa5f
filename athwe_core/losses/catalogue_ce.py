"""Cross-entropy over the whole catalogue. The forward pass computes the gradients, so that no (N, V) tensor is kept."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import SeenItems
from athwe_core.losses.residual_kernel import softmax_residual_

CHUNK_ELEMENTS = 2**25
"""Scores held at a time, 64 MiB in bfloat16. Larger chunks are faster: each chunk adds a (V, K) gradient to the sum."""

ROW_MULTIPLE = 64
"""Rows and columns of half-precision products are padded to a multiple of this. oneDNN compiles a kernel for each new shape
(14 ms, where the product takes 3), and tensor cores need aligned rows."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """For each chunk of states: scores, probabilities, residual (minus 1 at the target), and from it both gradients.

    Padding has the state 0, so that its residual adds nothing to the gradient of the table.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        seen_items: Tensor | None,
        seen_terms: Tensor | None,
        first_row: int,
        compute_dtype: torch.dtype,
        chunk_elements: int,
        num_targets: int | Tensor,
    ) -> Tensor:
        N, V = states.shape[-2], table.shape[-2]
        row_elements = table[..., 0].numel()
        multiple = 1 if compute_dtype == torch.float32 else ROW_MULTIPLE
        chunk = _chunk_rows(N, row_elements, chunk_elements, multiple)
        target_mask = targets >= 0
        h = _padded(states * target_mask[:, None], compute_dtype, chunk)
        w = _padded(table, compute_dtype, multiple)
        losses, state_grads = [states[..., :0, 0]], [h[..., :0, :]]
        table_grad, term_grads = None, [] if seen_terms is None else [seen_terms[:0].to(compute_dtype)]
        for first in range(0, N, chunk):
            rows, unpadded = slice(first, first + chunk), slice(first, min(first + chunk, N))
            residual = h[..., rows, :] @ w.mT  # first the scores, which softmax_residual_ overwrites
            own_bias = None if bias is None else bias[unpadded]
            if seen_items is not None and seen_terms is not None:
                own_scores, own_items = residual[: unpadded.stop - first], seen_items[unpadded]
                own_scores.scatter_add_(1, own_items, seen_terms[unpadded].to(residual.dtype))
            losses.append(
                softmax_residual_(residual, targets[unpadded], bias=own_bias, first_row=first_row, num_columns=V)
            )
            if seen_items is not None:
                term_grads.append(own_scores.gather(1, own_items))
            state_grads.append((residual @ w)[..., : unpadded.stop - first, :])
            chunk_grad = (residual.mT @ h[..., rows, :])[..., :V, :]
            table_grad = chunk_grad if table_grad is None else table_grad.to(table.dtype).add_(chunk_grad)
            del residual, chunk_grad
        if table_grad is None:
            table_grad = torch.zeros_like(table)
        state_grad = torch.cat(state_grads, dim=-2).to(states.dtype) * target_mask[:, None]
        term_grad = None if seen_terms is None else torch.cat(term_grads).to(seen_terms.dtype) * target_mask[:, None]
        ctx.save_for_backward(state_grad, table_grad, term_grad)
        ctx.num_targets = num_targets
        return (torch.cat(losses, dim=-1) * target_mask).sum(-1) / num_targets

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        state_grad, table_grad, term_grad = ctx.saved_tensors
        scale = (grad / ctx.num_targets)[..., None, None]
        term_grad = None if term_grad is None else term_grad * scale
        return state_grad * scale, table_grad * scale, None, None, None, term_grad, None, None, None, None


def _chunk_rows(N: int, row_elements: int, chunk_elements: int, multiple: int) -> int:
    """Rows of a chunk: chunks are as equal as possible, and a multiple of `multiple` where that many rows fit."""
    most = max(chunk_elements // row_elements, 1)
    if most < multiple:
        return most
    number = max(-(-N // (most - most % multiple)), 1)
    return -(-N // (number * multiple)) * multiple or multiple


def _padded(x: Tensor, dtype: torch.dtype, multiple: int) -> Tensor:
    """x in `dtype`, padded with zero rows to a multiple."""
    count, width = x.shape[-2:]
    padding = -count % multiple
    if padding == 0:
        return x.to(dtype)
    padded = x.new_empty(*x.shape[:-2], count + padding, width, dtype=dtype)
    padded[..., :count, :], padded[..., count:, :] = x, 0
    return padded


def catalogue_cross_entropy(
    states: Float[Tensor, "*P N K"],
    table: Float[Tensor, "*P V K"],
    targets: Int64[Tensor, " N"],
    *,
    bias: Float[Tensor, "N V"] | None = None,
    seen: SeenItems | None = None,
    first_row: int = 0,
    compute_dtype: torch.dtype = torch.float32,
    chunk_elements: int = CHUNK_ELEMENTS,
    num_targets: int | Tensor | None = None,
) -> Float[Tensor, "*P"]:
    """Mean cross-entropy of the next item over all items.

        F.cross_entropy(seen.add_to(states @ table.T + bias), targets, ignore_index=-1)

    A trainable bias of the items is one more column of `table`, with a column of ones in `states`.

    Args:
        states: user vectors; with leading axes P, several problems with the same targets.
        table: item vectors.
        targets: index of the next item in the table, in first_row..V-1; -1 = padding: no loss and no gradient.
        bias: added to the scores; it gets no gradient.
        seen: terms for items of the histories, which get a gradient; for one problem only.
        first_row: entries of the table before it are not items: 1 for a table whose entry 0 is the padding.
        compute_dtype: dtype of the three products and of the probabilities; accumulation is in float32.
        chunk_elements: most scores held at a time, >= 1; the result is the same to rounding.
        num_targets: divisor of the mean, such as the targets of all processes; None = the targets that are not padding.
    Returns: scalar, or one for each problem; 0 when every target is padding. A NaN in the inputs gives NaN. The loss of a
        target is at most 87.3, where its probability underflows in float32; its gradient has no such limit.
    Source: HM4SR eq. 19-20. There is no second-order gradient.
    """
    if num_targets is None:
        num_targets = (targets >= 0).sum().clamp(min=1)
    assert seen is None or states.ndim == 2, "terms of seen items are for one problem"
    seen_items, seen_terms = (None, None) if seen is None else (seen.item_ids, seen.terms)
    return _CatalogueCrossEntropy.apply(
        states, table, targets, bias, seen_items, seen_terms, first_row, compute_dtype, chunk_elements, num_targets
    )
