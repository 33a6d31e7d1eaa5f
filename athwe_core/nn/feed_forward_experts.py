"""Feed-forward experts, mixed by a gate of each token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout
from athwe_core.nn.transformer import LAYER_NORM_EPS


class FeedForwardExperts(nn.Module):
    """A sublayer of feed-forward experts, all of which every token uses.

        g = softmax(G x + c)        y = LN(x + dropout(sum_e g_e (W_2e relu(W_1e x + b_1e) + b_2e)))

    All experts are two products: the gates scale the inner states before the second one.

    Args:
        hidden_size: D >= 1.
        inner_size: width inside an expert, >= 1.
        num_experts: E >= 1.
        dropout_rate: on the output, in [0, 1).
    Source: Shazeer et al. 2017, with every expert in use.
    """

    def __init__(self, *, hidden_size: int, inner_size: int, num_experts: int, dropout_rate: float) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        # Parameters, which the model initialises.
        self.gate = nn.Linear(hidden_size, num_experts)
        self.inner = nn.Linear(hidden_size, num_experts * inner_size)
        self.outer_weight = nn.Parameter(torch.empty(num_experts, inner_size, hidden_size))
        self.outer_bias = nn.Parameter(torch.empty(num_experts, hidden_size))
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        """Mix the experts' outputs.

        Args:
            x: tokens.
        Returns: tokens after the sublayer.
        """
        gates = self.gate(x).softmax(-1)
        inner = F.relu(self.inner(x)).unflatten(-1, (gates.shape[-1], -1)) * gates[..., None]
        mixed = inner.flatten(-2) @ self.outer_weight.flatten(0, 1) + gates @ self.outer_bias
        y: Tensor = self.norm(x + dropout(mixed, self.dropout_rate, training=self.training))
        return y
