import pytest
import torch
from torch import Tensor, nn

from athwe_core.nn.moe import DenseTemporalMoE, InteractiveMoE, SparseTemporalMoE

T, D, R = 9, 6, 5


def draw(module: nn.Module) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()


def sparse(**changes: object) -> SparseTemporalMoE:
    arguments: dict[str, object] = {
        "hidden_size": D,
        "num_modalities": 3,
        "time_width": R,
        "num_experts": 5,
        "num_shared": 2,
        "top_k": 3,
        "dropout_rate": 0.5,
        "experts_trainable": True,
    }
    layer = SparseTemporalMoE(**(arguments | changes))  # type: ignore[arg-type]
    draw(layer)
    return layer.eval()


def interactive_loop(layer: InteractiveMoE, tokens: Tensor) -> Tensor:
    """Eq. 7-10, one token, one target modality and one expert at a time."""
    rows = []
    for token in tokens:
        everything = token.flatten()
        for m, own in enumerate(token):
            gates = (layer.gate_weight[m] @ own + layer.gate_bias[m]).softmax(0)
            mixed = sum(
                gate * (layer.expert_weight[m, i] @ everything + layer.expert_bias[m, i])
                for i, gate in enumerate(gates)
            )
            rows.append(own + layer.alpha[m] * mixed)
    return torch.stack(rows).view_as(tokens)


@pytest.mark.parametrize(("num_modalities", "num_experts"), [(1, 1), (1, 3), (2, 4), (3, 1), (3, 4)])
def test_interactive_moe_is_the_loop_over_tokens_modalities_and_experts(num_modalities: int, num_experts: int) -> None:
    layer = InteractiveMoE(
        hidden_size=D, num_modalities=num_modalities, num_experts=num_experts, alpha_init=(0.5,) * num_modalities
    )
    draw(layer)
    tokens = torch.randn(T, num_modalities, D)
    mixed = layer(tokens)
    torch.testing.assert_close(mixed.tokens, interactive_loop(layer, tokens), atol=1e-5, rtol=1e-5)
    assert mixed.gates.shape == (T, num_modalities, num_experts)
    torch.testing.assert_close(mixed.gates.sum(-1), torch.ones(T, num_modalities))


def test_interactive_moe_with_alpha_0_changes_nothing() -> None:
    layer = InteractiveMoE(hidden_size=D, num_modalities=3, num_experts=4, alpha_init=(0.0, 0.0, 0.0))
    draw(layer)
    nn.init.zeros_(layer.alpha)
    tokens = torch.randn(T, 3, D)
    assert torch.equal(layer(tokens).tokens, tokens)


@pytest.mark.parametrize(("num_modalities", "num_experts"), [(1, 1), (2, 3), (3, 4)])
def test_dense_temporal_moe_is_the_sum_over_every_expert_of_every_token(num_modalities: int, num_experts: int) -> None:
    layer = DenseTemporalMoE(
        hidden_size=D, num_modalities=num_modalities, time_width=R, num_experts=num_experts, experts_trainable=True
    )
    draw(layer)
    tokens, time = torch.randn(T, num_modalities, D), torch.randn(T, R)
    outputs = layer.experts * tokens.flatten(1)[:, None]  # (T, E, M D): what the layer never builds
    gates = torch.stack([(layer.gate_weight @ r + layer.gate_bias).softmax(0) for r in time])
    mixed = layer(tokens, time)
    torch.testing.assert_close(mixed.tokens, (gates[..., None] * outputs).sum(1).view_as(tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed.gates, gates)


@pytest.mark.parametrize("top_k", [1, 3, 5])
@pytest.mark.parametrize("num_shared", [0, 1, 2])
def test_sparse_temporal_moe_is_the_loop_over_the_k_best_and_the_shared_experts(top_k: int, num_shared: int) -> None:
    layer = sparse(top_k=top_k, num_shared=num_shared)
    tokens, time = torch.randn(T, 3, D), torch.randn(T, R)
    expected = []
    for token, r in zip(tokens.flatten(1), time, strict=True):
        routing = torch.relu(layer.routing_weight @ r + layer.routing_bias)
        probabilities = (layer.gate_weight @ routing + layer.gate_bias).softmax(0)
        best = probabilities.argsort(descending=True)[:top_k]
        total = sum((expert * token for expert in layer.shared_experts), start=torch.zeros_like(token))
        for i in best:
            total = total + probabilities[i] / probabilities[best].sum() * layer.experts[i] * token
        expected.append(total)
    mixed = layer(tokens, time)
    torch.testing.assert_close(mixed.tokens, torch.stack(expected).view_as(tokens), atol=1e-5, rtol=1e-5)
    assert ((mixed.gates > 0).sum(-1) == top_k).all()
    torch.testing.assert_close(mixed.gates.sum(-1), torch.ones(T))


def test_sparse_temporal_moe_keeps_k_experts_where_all_tie() -> None:
    layer = sparse(top_k=2)
    nn.init.zeros_(layer.gate_weight)
    nn.init.zeros_(layer.gate_bias)
    gates = layer(torch.randn(T, 3, D), torch.randn(T, R)).gates
    assert ((gates == 0.5).sum(-1) == 2).all()


def test_sparse_temporal_moe_drops_routing_inputs_in_training_only() -> None:
    layer = sparse()
    tokens, time = torch.randn(T, 3, D), torch.randn(T, R)
    assert torch.equal(layer(tokens, time).gates, layer(tokens, time).gates)
    layer.train()
    assert not torch.equal(layer(tokens, time).gates, layer(tokens, time).gates)


@pytest.mark.parametrize("trainable", [True, False])
def test_experts_are_parameters_whether_trained_or_not(trainable: bool) -> None:
    dense = DenseTemporalMoE(hidden_size=D, num_modalities=3, time_width=R, num_experts=4, experts_trainable=trainable)
    for layer, names in ((dense, {"experts"}), (sparse(experts_trainable=trainable), {"experts", "shared_experts"})):
        assert names <= set(layer.state_dict())
        named = dict(layer.named_parameters())
        assert all(named[name].requires_grad is trainable for name in names)
