"""Mixtures of experts: interactive between the modalities, temporal by the time of a token (HM4SR section 4.2, ATHWE)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout
from athwe_core.nn.multiply_add import sum_of_products


class MoEOutput(NamedTuple):
    """Result of a mixture of experts."""

    tokens: Float[Tensor, "T M D"]
    """Tokens after the mixture."""
    gates: Float[Tensor, "T ... E"]
    """Weight of each expert for each token, in [0, 1]; they sum to 1 over E."""


class InteractiveMoE(nn.Module):
    """Every expert reads all modalities; each modality m has experts and a gate of its own.

        e'_m = e_m + alpha_m sum_i softmax(W_m e_m + b_m)_i (W_im [e_id; e_text; e_image] + b_im)

    All experts of all modalities are one product M D -> M E D.

    Args:
        hidden_size: D >= 1.
        num_modalities: M >= 1.
        num_experts: E >= 1, experts of each modality.
        alpha_init: initial residual weight alpha of each of the M modalities; the model sets it.
    Source: HM4SR eq. 7-10.
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

    def forward(self, tokens: Float[Tensor, "T M D"], dtype: torch.dtype | None = None) -> MoEOutput:
        """Add the experts' outputs to the tokens.

        Args:
            tokens: embeddings of all modalities.
            dtype: of the experts' product; None = that of the tokens.
        Returns: tokens in their own dtype, and gates (T, M, E).
        """
        T, M, D = tokens.shape
        dtype, E = dtype or tokens.dtype, self.gate_bias.shape[1]
        logits = torch.einsum("tmd,med->tme", tokens, self.gate_weight) + self.gate_bias
        gates = logits.softmax(-1)
        weight = self.expert_weight.view(M * E * D, M * D).to(dtype)
        experts = F.linear(tokens.reshape(T, M * D).to(dtype), weight, self.expert_bias.flatten().to(dtype))
        by_expert = gates.to(dtype)[..., None].unbind(2), experts.view(T, M, E, D).unbind(2)
        mixed = sum_of_products(zip(*by_expert, strict=True)).to(tokens.dtype)
        return MoEOutput(torch.addcmul(tokens, self.alpha[:, None], mixed), gates)


class DenseTemporalMoE(nn.Module):
    """Experts that scale a token element by element, mixed by the time embedding r of the token.

        g = softmax(W r + b)        e' = sum_i g_i (W_i * e) = (g @ W) * e

    Args:
        hidden_size: D >= 1.
        num_modalities: M >= 1.
        time_width: R, width of the time embedding.
        num_experts: E >= 1.
        experts_trainable: False = the experts keep their initial values; they are saved all the same.
    Source: HM4SR eq. 14-16.   Differs: the published code neither trains nor saves the experts.
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

    def forward(self, tokens: Float[Tensor, "T M D"], time: Float[Tensor, "T R"]) -> MoEOutput:
        """Scale the tokens.

        Args:
            tokens: embeddings of all modalities.
            time: time embedding of each token.
        Returns: scaled tokens, and gates (T, E).
        """
        gates = torch.addmm(self.gate_bias, time, self.gate_weight.T).softmax(-1)
        return MoEOutput((gates @ self.experts).view_as(tokens) * tokens, gates)


class SparseTemporalMoE(nn.Module):
    """The top k of the routed experts, their gates renormalised, plus shared experts with weight 1.

        p = softmax(G dropout(relu(W r + b)) + c)       g = p where p is among the top k, else 0
        e' = (sum_i g_i / sum(g) W_i + sum_s W_s) * e

    Args:
        hidden_size: D >= 1.
        num_modalities: M >= 1.
        time_width: R, width of the time embedding r.
        num_experts: E >= 1, routed experts.
        num_shared: shared experts, >= 0.
        top_k: routed experts of each token, in 1..E.
        dropout_rate: on the routing input, in [0, 1).
        experts_trainable: as in `DenseTemporalMoE`.
    Source: ATHWE.   Differs: the published code neither trains nor saves the experts.
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

    def forward(self, tokens: Float[Tensor, "T M D"], time: Float[Tensor, "T R"]) -> MoEOutput:
        """Scale the tokens.

        Args:
            tokens: embeddings of all modalities.
            time: time embedding of each token.
        Returns: scaled tokens, and gates (T, E).
        """
        routing = torch.addmm(self.routing_bias, time, self.routing_weight.T).relu()
        routing = dropout(routing, self.dropout_rate, training=self.training)
        probabilities = torch.addmm(self.gate_bias, routing, self.gate_weight.T).softmax(-1)
        if self.top_k < probabilities.shape[-1]:
            kept = probabilities.topk(self.top_k, dim=-1).indices
            probabilities = probabilities * torch.zeros_like(probabilities).scatter_(-1, kept, 1.0)
        gates = probabilities / probabilities.sum(-1, keepdim=True)
        scale = gates @ self.experts + self.shared_experts.sum(0)
        return MoEOutput(scale.view_as(tokens) * tokens, gates)
