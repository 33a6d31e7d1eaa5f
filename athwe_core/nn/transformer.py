"""One Transformer per modality, stacked: every weight has a leading modality axis, every product is batched over it.

All is computed in the dtype of the tokens, float32 or bfloat16 (sums and softmax are in float32 inside torch's kernels for
both); weights are cast as they are read.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout

LAYER_NORM_EPS = 1e-12

Encoders = tuple[slice, ...]
"""Which of the M encoders each leading slice of the tokens is for, in runs: (slice(0, 3), slice(1, 3)) is 0, 1, 2, 1, 2."""


def _of(weight: Float[Tensor, "M ..."], encoders: Encoders, like: Tensor) -> Float[Tensor, "m ..."]:
    """Weights of the encoders, in the dtype of `like`."""
    weight = weight.to(like.dtype)
    parts = [weight if run == slice(0, len(weight)) else weight[run] for run in encoders]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class StackedLayerNorm(nn.Module):
    """Layer normalisation with its own scale and shift for each modality."""

    def __init__(self, *, num_modalities: int, hidden_size: int) -> None:
        super().__init__()
        # Parameters.
        self.weight = nn.Parameter(torch.empty(num_modalities, 1, hidden_size))
        self.bias = nn.Parameter(torch.empty(num_modalities, 1, hidden_size))

    def forward(self, x: Float[Tensor, "m T D"], encoders: Encoders) -> Float[Tensor, "m T D"]:
        """x normalised over D."""
        normal = F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
        return torch.addcmul(_of(self.bias, encoders, x), normal, _of(self.weight, encoders, x))


class AttentionGrid:
    """The attention pattern of a batch: rows laid into bins of S slots, each slot attends to earlier slots of its row.

    One product over all bins instead of one per length; the mask is block-diagonal and causal. An empty slot repeats the
    last token and attends only to empty slots: nothing reads it.
    """

    def __init__(
        self, grid_tokens: Int64[Tensor, "G S"], token_slots: Int64[Tensor, " T"], rows: Int64[Tensor, " T"]
    ) -> None:
        self.shape = grid_tokens.shape
        self.slot_tokens = torch.where(grid_tokens >= 0, grid_tokens, len(rows) - 1).flatten()
        self.token_slots = token_slots
        row_of_slot = torch.where(grid_tokens >= 0, rows[grid_tokens.clamp(min=0)], -1)
        same_row = row_of_slot[:, :, None] == row_of_slot[:, None, :]
        self.allowed: Bool[Tensor, "G S S"] = same_row.tril_()
        self.bias = torch.zeros(self.shape[0], 1, *self.allowed.shape[1:], device=rows.device)
        self.bias.masked_fill_(~self.allowed[:, None], -math.inf)


class _Rearranged(torch.autograd.Function):
    """Tokens to slots, or slots to tokens; the gradient goes the same way back: a gather each, where index_add takes twice.

    An empty slot reads the last token, and its gradient too. That stays among empty slots, of which no token reads but
    padding; and where there is padding, the last token is of it and has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "m T D"], there: Tensor, back: Tensor) -> Float[Tensor, "m S D"]:
        ctx.save_for_backward(back)
        return x.index_select(1, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(1, ctx.saved_tensors[0]), None, None


class StackedTransformer(nn.Module):
    """Post-norm Transformer encoders with exact gelu, causal within each row (HM4SR eq. 18).

    Args:
        num_modalities: M, encoders stacked.
        hidden_size, inner_size, num_layers, num_heads: as usual; num_heads divides hidden_size.
        dropout_rate: on attention weights and on both sublayers' outputs, in [0, 1).
    """

    def __init__(
        self,
        *,
        num_modalities: int,
        hidden_size: int,
        inner_size: int,
        num_layers: int,
        num_heads: int,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(
                num_modalities=num_modalities,
                hidden_size=hidden_size,
                inner_size=inner_size,
                num_heads=num_heads,
                dropout_rate=dropout_rate,
            )
            for _ in range(num_layers)
        )

    def forward(
        self, x: Float[Tensor, "m T D"], grid: AttentionGrid, encoders: Encoders, wanted: Int64[Tensor, " N"] | None
    ) -> Float[Tensor, "m N D"]:
        """States of the wanted tokens.

        Args:
            x: tokens after the mixtures of experts, normalised.
            grid: which token attends to which.
            encoders: which of the M encoders the m leading slices of x belong to.
            wanted: tokens whose state is asked; the last layer works on them only. None = all.
        """
        for layer in self.layers[:-1]:
            x = layer(x, grid, encoders)
        return self.layers[-1](x, grid, encoders, wanted)

    def attention(
        self, x: Float[Tensor, "m T D"], grid: AttentionGrid, encoders: Encoders
    ) -> list[Float[Tensor, "m heads T T"]]:
        """Attention weights of every layer, first layer first, for the arguments of `forward`, before dropout.

        `[layer][m, head, t, s]` is how much token t takes of token s; each t sums to 1. For looking at one row: the batch
        must lie in one bin.
        """
        assert grid.shape[0] == 1, f"expected a batch of one bin, got {grid.shape[0]}"
        slots, weights = grid.token_slots, []
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            of_slots = layer.weigh(x, grid, encoders)[:, 0]
            weights.append(of_slots[:, :, slots[:, None], slots])
            x = layer(x, grid, encoders)
        return weights


class TransformerLayer(nn.Module):
    """Attention and feed-forward sublayers of all modalities, each added to its input and normalised."""

    def __init__(
        self, *, num_modalities: int, hidden_size: int, inner_size: int, num_heads: int, dropout_rate: float
    ) -> None:
        super().__init__()
        M, D, inner = num_modalities, hidden_size, inner_size
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        # Parameters. The three blocks of qkv are query, key, value.
        self.qkv_weight = nn.Parameter(torch.empty(M, D, 3 * D))
        self.qkv_bias = nn.Parameter(torch.empty(M, 1, 3 * D))
        self.out_weight = nn.Parameter(torch.empty(M, D, D))
        self.out_bias = nn.Parameter(torch.empty(M, 1, D))
        self.inner_weight = nn.Parameter(torch.empty(M, D, inner))
        self.inner_bias = nn.Parameter(torch.empty(M, 1, inner))
        self.outer_weight = nn.Parameter(torch.empty(M, inner, D))
        self.outer_bias = nn.Parameter(torch.empty(M, 1, D))
        self.attention_norm = StackedLayerNorm(num_modalities=M, hidden_size=D)
        self.feed_forward_norm = StackedLayerNorm(num_modalities=M, hidden_size=D)

    def forward(self, x: Tensor, grid: AttentionGrid, encoders: Encoders, wanted: Tensor | None = None) -> Tensor:
        """States of every token, or of the wanted ones."""
        attended = self._attend(x, grid, encoders)
        if wanted is None:
            attended = _Rearranged.apply(attended, grid.token_slots, grid.slot_tokens)
        else:
            x, attended = x.index_select(1, wanted), attended.index_select(1, grid.token_slots[wanted])
        attended = self._linear("out", attended, encoders)
        x = self.attention_norm(x + self._drop(attended), encoders)
        outer = self._linear("outer", F.gelu(self._linear("inner", x, encoders)), encoders)
        return self.feed_forward_norm(x + self._drop(outer), encoders)

    def weigh(self, x: Tensor, grid: AttentionGrid, encoders: Encoders) -> Tensor:
        """Attention weights (m, G, H, S, S) of all slots, before dropout."""
        query, key, _ = self._heads(x, grid, encoders)
        return _attention_weights(query, key, grid)

    def _linear(self, name: str, x: Tensor, encoders: Encoders) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return torch.baddbmm(_of(bias, encoders, x), x, _of(weight, encoders, x))

    def _heads(self, x: Tensor, grid: AttentionGrid, encoders: Encoders) -> tuple[Tensor, ...]:
        """Query, key and value (m, G, H, S, D / H) of all slots."""
        qkv = _Rearranged.apply(self._linear("qkv", x, encoders), grid.slot_tokens, grid.token_slots)
        return qkv.view(len(x), *grid.shape, 3, self.num_heads, -1).permute(3, 0, 1, 4, 2, 5).unbind()

    def _attend(self, x: Tensor, grid: AttentionGrid, encoders: Encoders) -> Float[Tensor, "m slots D"]:
        """Attended values of all slots."""
        query, key, value = self._heads(x, grid, encoders)
        if self.training and x.device.type == "cpu":
            # torch's fused kernel has no dropout on a CPU, and its way back in bf16 is slower than these products
            attended = self._drop(_attention_weights(query, key, grid)) @ value
        else:
            query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
            bias = grid.bias.to(x.dtype).repeat(len(x), 1, 1, 1)
            rate = self.dropout_rate if self.training else 0.0
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate)
        return attended.transpose(-3, -2).reshape(len(x), -1, x.shape[-1])

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout_rate, training=self.training)


def _attention_weights(query: Tensor, key: Tensor, grid: AttentionGrid) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    scores += grid.bias.to(scores.dtype)
    return scores.softmax(-1)
