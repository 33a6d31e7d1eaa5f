import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from athwe_core.data.packing import pack
from athwe_core.data.rows import training_rows
from athwe_core.losses.auxiliary import category_loss, cluster_loss, expert_diversity

T, C = 7, 3


def test_category_loss_is_the_loop_over_tokens_and_categories() -> None:
    torch.manual_seed(11)
    logits, weight = torch.randn(T, C), torch.tensor([1.0, 0.0, 5.0, 2.0, 1.0, 3.0, 0.0])
    categories = torch.randint(0, 2, (T, C))
    total = 0.0
    for t in range(T):
        for c in range(C):
            p = 1 / (1 + math.exp(-logits[t, c]))
            total += weight[t].item() * -math.log(p if categories[t, c] else 1 - p) / C
    found = category_loss(logits, categories, weight)
    assert found.item() == pytest.approx(total / weight.sum().item(), rel=1e-5)


def test_cluster_loss_is_the_loop_over_tokens_that_have_a_cluster() -> None:
    torch.manual_seed(12)
    logits, weight = torch.randn(T, 4), torch.tensor([1.0, 2.0, 5.0, 0.0, 1.0, 3.0, 1.0])
    labels = torch.tensor([0, -1, 3, 1, -1, 2, 2])
    total = counted = 0.0
    for t, label in enumerate(labels.tolist()):
        if label >= 0:
            total += weight[t].item() * -logits[t].log_softmax(0)[label].item()
            counted += weight[t].item()
    assert cluster_loss(logits, labels, weight).item() == pytest.approx(total / counted, rel=1e-5)


def test_both_are_0_with_a_finite_gradient_where_nothing_counts() -> None:
    logits = torch.randn(T, C, requires_grad=True)
    none = category_loss(logits, torch.ones(T, C).long(), torch.zeros(T))
    unlabelled = cluster_loss(logits, torch.full((T,), -1), torch.ones(T))
    assert none.item() == unlabelled.item() == 0
    (none + unlabelled).backward()
    assert torch.equal(logits.grad, torch.zeros(T, C))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type_are_read(dtype: torch.dtype) -> None:
    logits = torch.randn(T, C)
    ones = torch.ones(T, C)
    expected = F.binary_cross_entropy_with_logits(logits, ones)
    torch.testing.assert_close(category_loss(logits, ones.to(dtype), torch.ones(T)), expected)


@pytest.mark.parametrize("max_length", [2, 4, 5])
def test_the_weighted_loss_of_packed_windows_is_the_mean_over_all_tokens_of_all_prefix_rows(
    make_data: Callable, max_length: int
) -> None:
    data = make_data([3, 4, 9, 17, 6])
    torch.manual_seed(13)
    logits, categories = torch.randn(14, C), torch.randint(0, 2, (14, C))
    losses = {}
    for batching in ("packed", "prefix"):
        rows = training_rows(data.split, batching=batching, max_length=max_length)
        batch = pack(data, rows, torch.arange(len(rows)).numpy(), max_length=max_length)
        items = batch.item_ids
        losses[batching] = category_loss(logits[items], categories[items], batch.prefix_weight)
        if batching == "prefix":
            every_token_of_every_row = F.binary_cross_entropy_with_logits(logits[items], categories[items].float())
    torch.testing.assert_close(losses["packed"], every_token_of_every_row)
    torch.testing.assert_close(losses["prefix"], every_token_of_every_row)


@pytest.mark.parametrize("num_experts", [2, 5])
def test_expert_diversity_is_the_mean_cosine_of_the_explicit_outputs(num_experts: int) -> None:
    torch.manual_seed(14)
    experts, tokens = torch.randn(num_experts, 6), torch.randn(T, 6)
    weight = torch.tensor([1.0, 0.0, 5.0, 2.0, 1.0, 3.0, 0.5])
    outputs = [(weight.sqrt()[:, None] * expert * tokens).flatten() for expert in experts]
    cosines = [
        outputs[i] @ outputs[j] / (outputs[i].norm() * outputs[j].norm())
        for i in range(num_experts)
        for j in range(num_experts)
        if i != j
    ]
    torch.testing.assert_close(
        expert_diversity(experts, tokens, weight), torch.stack(cosines).mean(), atol=1e-6, rtol=1e-5
    )


def test_diversity_of_hand_made_experts() -> None:
    tokens, weight = torch.ones(2, 2), torch.ones(2)
    assert expert_diversity(torch.tensor([[1.0, 0], [0, 2]]), tokens, weight).item() == pytest.approx(0)
    assert expert_diversity(torch.tensor([[1.0, 1], [3, 3]]), tokens, weight).item() == pytest.approx(1)
    assert expert_diversity(torch.tensor([[1.0, 1], [-3, -3]]), tokens, weight).item() == pytest.approx(-1)


def test_a_single_expert_is_as_diverse_as_can_be() -> None:
    assert expert_diversity(torch.randn(1, 6), torch.randn(T, 6), torch.ones(T)).item() == 0


def test_diversity_has_a_finite_gradient_where_a_channel_of_every_token_is_0() -> None:
    experts = torch.randn(3, 4, requires_grad=True)
    tokens = torch.randn(T, 4)
    tokens[:, 1] = 0
    tokens.requires_grad_()
    expert_diversity(experts, tokens, torch.ones(T)).backward()
    assert experts.grad.isfinite().all()
    assert tokens.grad.isfinite().all()
