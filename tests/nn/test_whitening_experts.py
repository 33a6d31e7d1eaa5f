"""The mixture of shifted linear experts against a loop over experts."""

import pytest
import torch
import torch.nn.functional as F

from athwe_core.nn.whitening_experts import WhiteningExperts

FEATURES, D, E = 5, 3, 4


def build(*, num_shifts: int = 1, gate_noise: bool = True, dropout_rate: float = 0.0) -> WhiteningExperts:
    experts = WhiteningExperts(
        feature_size=FEATURES,
        hidden_size=D,
        num_experts=E,
        dropout_rate=dropout_rate,
        gate_noise=gate_noise,
        num_shifts=num_shifts,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(generator=generator)
    return experts.eval()


@pytest.mark.parametrize("num_shifts", [1, 6])
@pytest.mark.parametrize("has_noise", [True, False])
@torch.no_grad()
def test_it_is_a_loop_over_vectors_and_experts(num_shifts: int, has_noise: bool) -> None:
    experts, generator = build(num_shifts=num_shifts), torch.Generator().manual_seed(1)
    x = torch.randn(7, FEATURES, generator=generator)
    noise = torch.randn(7, E, generator=generator) if has_noise else None
    shifts = torch.randint(num_shifts, (7,), generator=generator) if num_shifts > 1 else None
    found = experts(x, noise=noise, shifts=shifts)
    for i in range(7):
        logits = x[i] @ experts.gate_weight
        if noise is not None:
            logits = logits + noise[i] * (F.softplus(x[i] @ experts.noise_weight) + 0.01)
        gates, row = logits.softmax(0), 0 if shifts is None else shifts[i]
        expected = sum(gates[k] * (x[i] - experts.shift_bias[k, row]) @ experts.expert_weight[k] for k in range(E))
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)


def test_initial_gates_are_equal() -> None:
    experts = build()
    experts.reset_parameters(0.5, torch.Generator().manual_seed(3))
    x = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(experts(x), x @ experts.expert_weight.mean(0))
    assert experts.expert_weight.std().item() == pytest.approx(0.5, rel=0.3)


def test_without_gate_noise_draws_change_nothing() -> None:
    experts, x = build(gate_noise=False), torch.ones(2, FEATURES)
    assert "noise_weight" not in dict(experts.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(experts(x, noise=torch.ones(2, E)), experts(x))


def test_dropout_is_on_the_experts_alone() -> None:
    """With all features dropped, gates still depend on x and only the shifts are left."""
    experts = build(dropout_rate=0.5).train()
    x = torch.randn(2000, FEATURES, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        noisy = experts(x[:1].expand(2000, -1))
        torch.testing.assert_close(noisy.mean(0), experts.eval()(x[:1])[0], atol=0.2, rtol=0.2)
    assert noisy.std(0).min() > 0.1


def test_products_in_bfloat16_stay_near() -> None:
    experts, x = build(), torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        low = experts(x, dtype=torch.bfloat16)
        assert low.dtype == torch.bfloat16
        torch.testing.assert_close(low.float(), experts(x), atol=0.2, rtol=0.1)


@pytest.mark.parametrize("has_noise", [False, True])
def test_vectors_of_zeros_are_those_of_features_that_are_zero(has_noise: bool) -> None:
    module = WhiteningExperts(feature_size=5, hidden_size=4, num_experts=3, dropout_rate=0.0, num_shifts=6)
    seeded = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=seeded)
        noise = torch.randn(2, 6, 3, generator=seeded) if has_noise else None
        found = module.of_zeros(noise)
        for b in range(len(found)):
            own = None if noise is None else noise[b]
            expected = module(torch.zeros(6, 5), noise=own, shifts=torch.arange(6))
            torch.testing.assert_close(found[b], expected)
