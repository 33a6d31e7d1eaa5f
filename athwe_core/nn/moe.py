"""The two levels of the mixture of experts (HM4SR eq. 7-16, ATHWE's sparse form)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout
from athwe_core.nn.multiply_add import sum_of_products


class Mixed(NamedTuple):
    """Tokens after a mixture of experts, and the gate weights that mixed them."""

    tokens: Float[Tensor, "T M D"]
    gates: Float[Tensor, "T ... E"]


class InteractiveMoE(nn.Module):
    """Every expert reads all modalities; each target modality routes for itself (eq. 7-10).

        e'_m = e_m + alpha_m sum_i softmax(W_m e_m + b_m)_i (W_im [e_id; e_text; e_image] + b_im)

    All experts of all target modalities are one M*D -> M*E*D product; the gates contract the expert axis.
    """

    def __init__(
        self, *, hidden_size: int, num_modalities: int, num_experts: int, alpha_init: tuple[float, ...]
    ) -> None:
        super().__init__()
        M, D, E = num_modalities, hidden_size, num_experts
        self.alpha_init = alpha_init
        # Parameters.
        self.alpha = nn.Parameter(torch.empty(M))
        self.gate_weight = nn.Parameter(torch.empty(M, E, D))
        self.gate_bias = nn.Parameter(torch.empty(M, E))
        self.expert_weight = nn.Parameter(torch.empty(M, E, D, M * D))
        self.expert_bias = nn.Parameter(torch.empty(M, E, D))

    def forward(self, tokens: Float[Tensor, "T M D"], dtype: torch.dtype | None = None) -> Mixed:
        """Tokens with what the experts add to them, and the gates (T, M, E); the experts' product is in `dtype`."""
        T, M, D = tokens.shape
        dtype, E = dtype or tokens.dtype, self.gate_bias.shape[1]
        logits = torch.einsum("tmd,med->tme", tokens, self.gate_weight) + self.gate_bias
        gates = logits.softmax(-1)
        weight = self.expert_weight.view(M * E * D, M * D).to(dtype)
        experts = F.linear(tokens.reshape(T, M * D).to(dtype), weight, self.expert_bias.flatten().to(dtype))
        by_expert = gates.to(dtype)[..., None].unbind(2), experts.view(T, M, E, D).unbind(2)
        mixed = sum_of_products(zip(*by_expert, strict=True)).to(tokens.dtype)
        return Mixed(torch.addcmul(tokens, self.alpha[:, None], mixed), gates)


class DenseTemporalMoE(nn.Module):
    """Time decides how much of each element-wise expert scales the token (eq. 14-16).

    g = softmax(W_2 r + b_2)        e' = sum_i g_i (W_i * e) = (g @ W) * e
    """

    def __init__(
        self, *, hidden_size: int, num_modalities: int, time_width: int, num_experts: int, experts_trainable: bool
    ) -> None:
        super().__init__()
        # Parameters.
        self.gate_weight = nn.Parameter(torch.empty(num_experts, time_width))
        self.gate_bias = nn.Parameter(torch.empty(num_experts))
        experts = torch.empty(num_experts, num_modalities * hidden_size)
        self.experts = nn.Parameter(experts, requires_grad=experts_trainable)

    def forward(self, tokens: Float[Tensor, "T M D"], time: Float[Tensor, "T R"]) -> Mixed:
        """Scaled tokens, and the gates (T, E) that the time embedding chose."""
        gates = torch.addmm(self.gate_bias, time, self.gate_weight.T).softmax(-1)
        return Mixed((gates @ self.experts).view_as(tokens) * tokens, gates)


class SparseTemporalMoE(nn.Module):
    """The k best of the routed experts, renormalised, and shared experts on top (ATHWE).

    g = topk(softmax(G dropout(relu(W r + b)) + c))     e' = (sum_i g_i / sum(g) W_i + sum_s W_s) * e
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_modalities: int,
        time_width: int,
        num_experts: int,
        num_shared: int,
        top_k: int,
        dropout_rate: float,
        experts_trainable: bool,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.dropout_rate = dropout_rate
        width = num_modalities * hidden_size
        # Parameters.
        self.routing_weight = nn.Parameter(torch.empty(width, time_width))
        self.routing_bias = nn.Parameter(torch.empty(width))
        self.gate_weight = nn.Parameter(torch.empty(num_experts, width))
        self.gate_bias = nn.Parameter(torch.empty(num_experts))
        self.experts = nn.Parameter(torch.empty(num_experts, width), requires_grad=experts_trainable)
        self.shared_experts = nn.Parameter(torch.empty(num_shared, width), requires_grad=experts_trainable)

    def forward(self, tokens: Float[Tensor, "T M D"], time: Float[Tensor, "T R"]) -> Mixed:
        """Scaled tokens, and the gates (T, E) that the time embedding chose."""
        routing = torch.addmm(self.routing_bias, time, self.routing_weight.T).relu()
        routing = dropout(routing, self.dropout_rate, training=self.training)
        probabilities = torch.addmm(self.gate_bias, routing, self.gate_weight.T).softmax(-1)
        if self.top_k < probabilities.shape[-1]:
            kept = probabilities.topk(self.top_k, dim=-1).indices
            probabilities = probabilities * torch.zeros_like(probabilities).scatter_(-1, kept, 1.0)
        gates = probabilities / probabilities.sum(-1, keepdim=True)
        scale = gates @ self.experts + self.shared_experts.sum(0)
        return Mixed(scale.view_as(tokens) * tokens, gates)
