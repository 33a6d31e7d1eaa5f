"""Feed-forward experts against a loop over tokens and experts."""

import torch
import torch.nn.functional as F

from athwe_core.nn.feed_forward_experts import FeedForwardExperts

D, INNER, E = 4, 3, 5


def build(dropout_rate: float = 0.0) -> FeedForwardExperts:
    experts = FeedForwardExperts(hidden_size=D, inner_size=INNER, num_experts=E, dropout_rate=dropout_rate)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(generator=generator)
    return experts.eval()


@torch.no_grad()
def test_it_is_a_loop_over_tokens_and_experts() -> None:
    experts, x = build(), torch.randn(2, 3, D, generator=torch.Generator().manual_seed(1))
    found = experts(x)
    first, shift = experts.inner.weight.view(E, INNER, D), experts.inner.bias.view(E, INNER)
    for i in range(2):
        for j in range(3):
            token = x[i, j]
            gates = (experts.gate.weight @ token + experts.gate.bias).softmax(0)
            mixed = torch.zeros(D)
            for e in range(E):
                inner = F.relu(first[e] @ token + shift[e])
                mixed = mixed + gates[e] * (inner @ experts.outer_weight[e] + experts.outer_bias[e])
            torch.testing.assert_close(found[i, j], experts.norm(token + mixed), atol=1e-5, rtol=1e-5)


def test_dropout_is_on_the_experts_output() -> None:
    experts, x = build(dropout_rate=0.5), torch.ones(1000, D)
    with torch.no_grad():
        still = experts(x)
        noisy = experts.train()(x)
    assert not torch.allclose(still, noisy)
