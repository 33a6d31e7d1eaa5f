"""One Transformer encoder for each modality, stacked: weights have a leading modality axis and products are batched over it.

Layers compute in the dtype of their input, float32 or bfloat16; torch's kernels sum in float32 for both. Weights stay in
float32 and are cast where they are used.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout

LAYER_NORM_EPS = 1e-12
"""As in the published code of HM4SR and of SASRec in RecBole."""

Activation = Literal["gelu", "relu"]
Encoders = tuple[slice, ...]
"""Encoder of each leading slice of the tokens, as ranges: (slice(0, 3), slice(1, 3)) stands for encoders 0, 1, 2, 1, 2."""

ONE: Encoders = (slice(0, 1),)
"""The encoder of a model that has one."""


def _select(weight: Float[Tensor, "M ..."], encoders: Encoders, like: Tensor) -> Float[Tensor, "m ..."]:
    """The weights of these encoders, in the dtype of `like`."""
    weight = weight.to(like.dtype)
    parts = [weight if run == slice(0, len(weight)) else weight[run] for run in encoders]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class StackedLayerNorm(nn.Module):
    """Layer normalisation with its own weight and bias for each modality.

    Args:
        num_modalities: M >= 1.
        hidden_size: D >= 1.
        eps: added to the variance.
    Source: Ba et al. 2016.
    """

    def __init__(self, *, num_modalities: int, hidden_size: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        # Parameters.
        self.weight = nn.Parameter(torch.empty(num_modalities, 1, hidden_size))
        self.bias = nn.Parameter(torch.empty(num_modalities, 1, hidden_size))

    def forward(self, x: Float[Tensor, "m T D"], encoders: Encoders) -> Float[Tensor, "m T D"]:
        """Normalise over the last axis.

        Args:
            x: tokens of m encoders.
            encoders: whose weight and bias each of the m slices takes.
        Returns: normalised tokens, in the dtype of x.
        """
        normal = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return torch.addcmul(_select(self.bias, encoders, x), normal, _select(self.weight, encoders, x))


class AttentionGrid:
    """Attention pattern of a batch: rows lie in G bins of S slots, and a slot attends to itself and earlier slots of its row.

    One product over all bins takes the place of one for each row length; the mask is block-diagonal and causal. An empty
    slot holds a copy of the last token and attends to empty slots only; no token reads its result.

    Args:
        grid_tokens: token in each slot, -1 = empty.
        token_slots: flat slot of each token.
        rows: row of each token.
        kept: tokens that later ones of their row attend to; each attends to itself all the same. None = all tokens.
    """

    def __init__(
        self,
        grid_tokens: Int64[Tensor, "G S"],
        token_slots: Int64[Tensor, " T"],
        rows: Int64[Tensor, " T"],
        *,
        kept: Bool[Tensor, " T"] | None = None,
    ) -> None:
        self.shape = grid_tokens.shape
        self.slot_tokens = torch.where(grid_tokens >= 0, grid_tokens, rows.shape[0] - 1).flatten()
        self.token_slots = token_slots
        row_of_slot = torch.where(grid_tokens >= 0, rows[grid_tokens.clamp(min=0)], -1)
        same_row = row_of_slot[:, :, None] == row_of_slot[:, None, :]
        self.allowed: Bool[Tensor, "G S S"] = same_row.tril_()
        if kept is not None:
            itself = torch.eye(self.shape[1], dtype=torch.bool, device=rows.device)
            self.allowed &= kept[self.slot_tokens].view(self.shape)[:, None] | itself
        self.bias = torch.zeros(self.shape[0], 1, *self.allowed.shape[1:], device=rows.device)
        self.bias.masked_fill_(~self.allowed[:, None], -math.inf)


class _Rearranged(torch.autograd.Function):
    """Tokens to slots, or slots to tokens. The gradient is a gather too, which takes half the time of an index_add.

    An empty slot reads the last token, and in the backward pass the gradient of the last token. That value stays in empty
    slots. They are read by padding tokens only; where there are any, the last token is one of them and its gradient is 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "m T D"], there: Tensor, back: Tensor) -> Float[Tensor, "m S D"]:
        ctx.save_for_backward(back)
        return x.index_select(1, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(1, ctx.saved_tensors[0]), None, None


class StackedTransformer(nn.Module):
    """M Transformer encoders: post-norm, exact gelu, causal within each row.

        x = LN(x + dropout(W_o attention(x)))       x = LN(x + dropout(W_2 gelu(W_1 x + b_1) + b_2))

    Args:
        num_modalities: M >= 1, number of encoders.
        hidden_size: D, a multiple of num_heads.
        inner_size: width of the feed-forward sublayer, >= 1.
        num_layers: layers of each encoder, >= 1.
        num_heads: attention heads, >= 1.
        dropout_rate: on attention weights and on the outputs of both sublayers, in [0, 1).
        activation: of the feed-forward sublayer.
        attention_bias: False leaves the biases of query, key, value and W_o out.
        eps: of the layer normalisations.
    Source: HM4SR eq. 18; the layers are those of SASRec in RecBole.
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
        activation: Activation = "gelu",
        attention_bias: bool = True,
        eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(
                num_modalities=num_modalities,
                hidden_size=hidden_size,
                inner_size=inner_size,
                num_heads=num_heads,
                dropout_rate=dropout_rate,
                activation=activation,
                attention_bias=attention_bias,
                eps=eps,
            )
            for _ in range(num_layers)
        )

    def forward(
        self,
        x: Float[Tensor, "m T D"],
        grid: AttentionGrid,
        encoders: Encoders,
        token_index: Int64[Tensor, " N"] | None,
    ) -> Float[Tensor, "m N D"]:
        """Encode rows of tokens.

        Args:
            x: input of the first layer, for each of m encoders.
            grid: which token attends to which.
            encoders: which of the M encoders each of the m leading slices of x belongs to.
            token_index: tokens whose states are returned; the last layer computes no others. None = all.
        Returns: states of these tokens after the last layer, in the dtype of x.
        """
        for layer in self.layers[:-1]:
            x = layer(x, grid, encoders)
        return self.layers[-1](x, grid, encoders, token_index)

    def attention(
        self, x: Float[Tensor, "m T D"], grid: AttentionGrid, encoders: Encoders
    ) -> list[Float[Tensor, "m heads T T"]]:
        """Attention weights of every layer, before dropout; for the inspection of single rows.

        Args:
            x, encoders: as in `forward`.
            grid: of a batch that lies in one bin.
        Returns: for each layer, `[m, head, t, s]` is the weight of token s for token t, in [0, 1]; they sum to 1 over s.
        """
        assert grid.shape[0] == 1, f"expected a batch of one bin, got {grid.shape[0]}"
        slots, weights = grid.token_slots, []
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            of_slots = layer.attention_weights(x, grid, encoders)[:, 0]
            weights.append(of_slots[:, :, slots[:, None], slots])
            x = layer(x, grid, encoders)
        return weights


class LayerSizes(TypedDict):
    """Keyword arguments of `TransformerLayer` for one encoder, which layers with another attention pass on."""

    hidden_size: int
    inner_size: int
    num_heads: int
    dropout_rate: float
    attention_dropout: float


class TransformerLayer(nn.Module):
    """One layer of all encoders: attention and feed-forward sublayers, each added to its input and normalised.

    A subclass with another attention has a `forward` of its own, made of `_heads`, `_attend`, `_of_tokens` and `_finish`.

    Args:
        num_modalities, hidden_size, inner_size, num_heads, dropout_rate, activation, attention_bias, eps: as in
            `StackedTransformer`.
        attention_dropout: rate on the attention weights, in [0, 1); None = dropout_rate.
    Source: Vaswani et al. 2017.
    """

    def __init__(
        self,
        *,
        num_modalities: int,
        hidden_size: int,
        inner_size: int,
        num_heads: int,
        dropout_rate: float,
        activation: Activation = "gelu",
        attention_bias: bool = True,
        eps: float = LAYER_NORM_EPS,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        M, D, inner = num_modalities, hidden_size, inner_size
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.activation = F.gelu if activation == "gelu" else F.relu
        self.attention_dropout = dropout_rate if attention_dropout is None else attention_dropout
        # Parameters. The three blocks of qkv are query, key, value.
        self.qkv_weight = nn.Parameter(torch.empty(M, D, 3 * D))
        self.qkv_bias = nn.Parameter(torch.empty(M, 1, 3 * D)) if attention_bias else None
        self.out_weight = nn.Parameter(torch.empty(M, D, D))
        self.out_bias = nn.Parameter(torch.empty(M, 1, D)) if attention_bias else None
        self.inner_weight = nn.Parameter(torch.empty(M, D, inner))
        self.inner_bias = nn.Parameter(torch.empty(M, 1, inner))
        self.outer_weight = nn.Parameter(torch.empty(M, inner, D))
        self.outer_bias = nn.Parameter(torch.empty(M, 1, D))
        self.attention_norm = StackedLayerNorm(num_modalities=M, hidden_size=D, eps=eps)
        self.feed_forward_norm = StackedLayerNorm(num_modalities=M, hidden_size=D, eps=eps)

    def forward(self, x: Tensor, grid: AttentionGrid, encoders: Encoders, token_index: Tensor | None = None) -> Tensor:
        """States of all tokens, or of those in `token_index`, with the arguments of `StackedTransformer.forward`."""
        query, key, value = self._heads(x, grid, encoders)
        attended = self._attend(query, key, value, grid)
        return self._finish(*self._of_tokens(x, attended, grid, token_index), encoders)

    def attention_weights(self, x: Tensor, grid: AttentionGrid, encoders: Encoders) -> Tensor:
        """Attention weights (m, G, heads, S, S) between all slots, before dropout, with the arguments of `forward`."""
        query, key, _ = self._heads(x, grid, encoders)
        return masked_softmax(query, key, grid)

    def _linear(self, name: str, x: Tensor, encoders: Encoders, columns: slice = slice(None)) -> Tensor:
        weight = _select(getattr(self, f"{name}_weight")[..., columns], encoders, x)
        bias = getattr(self, f"{name}_bias")
        if bias is None:
            return torch.bmm(x, weight)
        return torch.baddbmm(_select(bias[..., columns], encoders, x), x, weight)

    def _heads(self, x: Tensor, grid: AttentionGrid, encoders: Encoders) -> tuple[Tensor, ...]:
        """Query, key and value (m, G, heads, S, D / heads) of all slots."""
        return self._in_slots(self._linear("qkv", x, encoders), grid, parts=3)

    def _in_slots(self, x: Tensor, grid: AttentionGrid, *, parts: int) -> tuple[Tensor, ...]:
        """Tokens (m, T, parts * heads * d) as `parts` tensors (m, G, heads, S, d) of all slots."""
        slots = _Rearranged.apply(x, grid.slot_tokens, grid.token_slots)
        return slots.view(len(x), *grid.shape, parts, self.num_heads, -1).permute(3, 0, 1, 4, 2, 5).unbind()

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, grid: AttentionGrid, scale: float | None = None
    ) -> Float[Tensor, "m slots D"]:
        """Attention outputs of all slots, heads joined; scale of the scores, None = 1 / sqrt(width of a query)."""
        m = len(query)
        if self.training and query.device.type == "cpu":
            # torch's fused kernel has no dropout on a CPU, and its backward pass in bf16 is slower than these products
            weights = masked_softmax(query, key, grid, scale)
            attended = dropout(weights, self.attention_dropout, training=True) @ value
        else:
            query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
            bias = grid.bias.to(query.dtype).repeat(m, 1, 1, 1)
            rate = self.attention_dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate, scale=scale)
        return attended.transpose(-3, -2).reshape(m, -1, self.out_weight.shape[1])

    def _of_tokens(
        self, x: Tensor, attended: Tensor, grid: AttentionGrid, token_index: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and attention outputs of all tokens, or of those in `token_index`."""
        if token_index is None:
            return x, _Rearranged.apply(attended, grid.token_slots, grid.slot_tokens)
        return x.index_select(1, token_index), attended.index_select(1, grid.token_slots[token_index])

    def _finish(self, x: Tensor, attended: Tensor, encoders: Encoders) -> Tensor:
        """What comes after the attention: its output layer, then the feed-forward sublayer."""
        x = self.attention_norm(x + self._drop(self._linear("out", attended, encoders)), encoders)
        outer = self._linear("outer", self.activation(self._linear("inner", x, encoders)), encoders)
        return self.feed_forward_norm(x + self._drop(outer), encoders)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout_rate, training=self.training)


def last_token_attention(weights: Float[Tensor, "m G heads S S"], grid: AttentionGrid) -> Float[Tensor, "m T"]:
    """Weights of the last token for each token, mean over heads; for the inspection of single rows.

    Args:
        weights: between all slots.
        grid: of a batch that lies in one bin.
    Returns: weights in [0, 1] of each encoder, which sum to 1.
    """
    assert grid.shape[0] == 1, f"expected a batch of one bin, got {grid.shape[0]}"
    slots = grid.token_slots
    return weights[:, 0, :, slots[-1]].mean(1)[:, slots]


def masked_softmax(query: Tensor, key: Tensor, grid: AttentionGrid, scale: float | None = None) -> Tensor:
    """Attention weights between all slots.

    Args:
        query, key: (m, G, heads, S, d) of all slots.
        grid: which slot attends to which.
        scale: of the scores; None = 1 / sqrt(d).
    Returns: weights (m, G, heads, S, S) in [0, 1], which sum to 1 over the last axis.
    """
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
    scores += grid.bias.to(scores.dtype)
    return scores.softmax(-1)
