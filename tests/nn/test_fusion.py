"""Fusion of sources: each kind against its equation, sources of unlike leading axes, one source alone."""

import pytest
import torch
from torch import Tensor

from athwe_core.nn.fusion import FusionKind, SourceFusion


def fusion(kind: FusionKind, num_sources: int = 3, size: int = 4) -> SourceFusion:
    module = SourceFusion(kind, num_sources=num_sources, size=size)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def sources(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def by_loops(module: SourceFusion, vectors: list[Tensor]) -> Tensor:
    """The equation for one vector of each source."""
    if module.kind == "sum":
        return vectors[0] + vectors[1] + vectors[2]
    if module.kind == "concat":
        return module.joined.weight @ torch.cat(vectors) + module.joined.bias
    scores = []
    for vector in vectors:
        inner = (module.inner.weight @ vector + module.inner.bias).clamp(min=0)
        scores.append(module.outer.weight[0] @ inner)
    weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    return weights[0] * vectors[0] + weights[1] * vectors[1] + weights[2] * vectors[2]


@pytest.mark.parametrize("kind", ["sum", "concat", "gate"])
def test_each_vector_is_fused_as_the_equation_says(kind: FusionKind) -> None:
    module, given = fusion(kind), sources((5, 2, 4), (5, 2, 4), (1, 2, 4))
    found = module(given)
    assert found.shape == (5, 2, 4)
    for i in range(5):
        for j in range(2):
            expected = by_loops(module, [given[0][i, j], given[1][i, j], given[2][0, j]])
            torch.testing.assert_close(found[i, j], expected)


@pytest.mark.parametrize("kind", ["sum", "concat", "gate"])
def test_parts_sum_to_the_fusion_and_are_each_of_one_source(kind: FusionKind) -> None:
    module, given = fusion(kind), sources((5, 2, 4), (5, 2, 4), (1, 2, 4))
    parts = module.parts(given)
    bias = module.joined.bias if kind == "concat" else 0
    torch.testing.assert_close(parts[0] + parts[1] + parts[2] + bias, module(given))
    for j, source in enumerate(given):
        alone = [torch.zeros_like(other) for other in given]
        alone[j] = source
        expected = module.weights(given)[..., j, None] * source if kind == "gate" else module(alone) - bias
        torch.testing.assert_close(parts[j].expand(5, 2, 4), expected.expand(5, 2, 4))


def test_weights_of_the_gate_sum_to_one() -> None:
    weights = fusion("gate").weights(sources((5, 4), (5, 4), (1, 4)))
    assert weights.shape == (5, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5))


@pytest.mark.parametrize("kind", ["sum", "concat", "gate"])
def test_one_source_is_left_as_it_is(kind: FusionKind) -> None:
    module, (given,) = fusion(kind, num_sources=1), sources((5, 4))
    assert torch.equal(module([given]), given)
    assert list(module.parameters()) == []
