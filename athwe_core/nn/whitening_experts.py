"""A mixture of linear experts from frozen features to item vectors, each with a learned shift (UniSRec, TedRec)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.nn.dropout import dropout
from athwe_core.nn.multiply_add import sum_of_products

LEAST_NOISE = 0.01
"""Added to the learned deviation of the gates' noise."""


class WhiteningExperts(nn.Module):
    """Shifted linear maps of a feature vector, mixed by its gate.

        g = softmax(x W_gate + noise * (softplus(x W_noise) + 0.01))        y = sum_k g_k W_k (dropout(x) - b_k)

    Args:
        feature_size: F >= 1.
        hidden_size: D >= 1.
        num_experts: E >= 1.
        dropout_rate: on the experts' input, in [0, 1); the gate reads x without it.
        gate_noise: False leaves W_noise out.
        num_shifts: S >= 1, different shifts b_k of each expert, such as one for each position.
    Source: UniSRec (Hou et al., KDD 2022), section 2.1.   Differs: the published code draws a dropout mask for each expert;
        here they share one, so that all experts are one product.
    """

    def __init__(
        self,
        *,
        feature_size: int,
        hidden_size: int,
        num_experts: int,
        dropout_rate: float,
        gate_noise: bool = True,
        num_shifts: int = 1,
    ) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        # Parameters, which the model initialises.
        self.gate_weight = nn.Parameter(torch.empty(feature_size, num_experts))
        self.noise_weight = nn.Parameter(torch.empty(feature_size, num_experts)) if gate_noise else None
        self.shift_bias = nn.Parameter(torch.empty(num_experts, num_shifts, feature_size))
        self.expert_weight = nn.Parameter(torch.empty(num_experts, feature_size, hidden_size))

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights: zeros for shifts and gates, so that all experts begin with the same gate.

        Args:
            std: of the experts' weights, normal with mean 0.
            generator: draws them; None = torch's default generator.
        """
        for parameter in self.parameters():
            parameter.zero_()
        self.expert_weight.normal_(0, std, generator=generator)

    def forward(
        self,
        x: Float[Tensor, "n F"],
        *,
        noise: Float[Tensor, "n E"] | None = None,
        shifts: Int64[Tensor, " n"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n D"]:
        """Map feature vectors.

        Args:
            x: features.
            noise: standard normal draws for the gates; None = no noise.
            shifts: which of the S shifts each vector takes; None = the first.
            dtype: of the experts' product and of the result. Gates are in float32.
        Returns: vectors in `dtype`.
        """
        E, features, D = self.expert_weight.shape
        logits = x.float() @ self.gate_weight
        if noise is not None and self.noise_weight is not None:
            logits = logits + noise * (F.softplus(x.float() @ self.noise_weight) + LEAST_NOISE)
        gates = logits.softmax(-1).to(dtype)
        weight = self.expert_weight.to(dtype)
        joined = weight.transpose(0, 1).reshape(features, E * D)
        experts = (dropout(x.to(dtype), self.dropout_rate, training=self.training) @ joined).view(-1, E, D)
        moved = self._moved(dtype)
        moved = moved[:, 0] if shifts is None else moved[:, shifts].transpose(0, 1)
        by_expert = gates[..., None].unbind(1), (experts - moved).unbind(1)
        return sum_of_products(zip(*by_expert, strict=True))

    def of_zeros(self, noise: Float[Tensor, "B S E"] | None = None) -> Float[Tensor, "_ S D"]:
        """The vectors of features that are 0, such as those of padding, at each shift: no expert's product is needed.

        Args:
            noise: as in `forward`, for B vectors at each of the S shifts; None = no noise.
        Returns: vectors in float32, with a first axis of 1 without noise.
        """
        moved = self._moved(torch.float32)
        gates = moved.new_zeros(1, moved.shape[1], len(moved))
        if noise is not None and self.noise_weight is not None:
            gates = noise * (F.softplus(gates) + LEAST_NOISE)
        return -torch.einsum("bse,esd->bsd", gates.softmax(-1), moved)

    def _moved(self, dtype: torch.dtype) -> Float[Tensor, "E S D"]:
        """W_k b_k of every expert and shift."""
        return torch.bmm(self.shift_bias.to(dtype), self.expert_weight.to(dtype))
