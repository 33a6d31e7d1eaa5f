import math
from typing import Any

import pytest
import torch
from torch import Tensor

from athwe_core.losses.contrastive import (
    contrastive_loss,
    excluded_pairs,
    exclusion_bias,
    symmetric_contrastive_loss,
)


def loss_of(anchors: Tensor, candidates: Tensor, bias: Tensor, *, temperature: float, **options: Any) -> Tensor:
    """One loss alone."""
    return contrastive_loss(anchors[None], candidates[None], bias, temperatures=[temperature], **options)[0]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return a @ b / (a.norm() * b.norm())


def double_loop(anchors: Tensor, candidates: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    losses = []
    for i, anchor in enumerate(anchors):
        total = torch.zeros(())
        for j, candidate in enumerate(candidates):
            if not excluded[i, j]:
                total = total + torch.exp(cosine(anchor, candidate) / temperature)
        losses.append(total.log() - cosine(anchor, candidates[i]) / temperature)
    return torch.stack(losses).mean()


TARGETS = torch.tensor([3, 5, 3, 8, 5, 9])
USERS = torch.tensor([0, 0, 1, 2, 2, 3])


def test_excluded_pairs_by_hand() -> None:
    # the same target: (0, 2) and (1, 4); the same user: (0, 1) and (3, 4)
    expected = torch.tensor(
        [
            [0, 1, 1, 0, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [1, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 1, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    ).bool()
    assert torch.equal(excluded_pairs(TARGETS, USERS), expected)


def test_exclusion_bias_is_0_where_a_pair_counts_and_silences_the_others() -> None:
    bias = exclusion_bias(torch.tensor([[False, True], [False, False]]))
    assert bias.exp().tolist() == [[1.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_is_the_double_loop_with_exclusions(temperature: float) -> None:
    torch.manual_seed(8)
    anchors, candidates = torch.randn(6, 4), torch.randn(6, 4)
    excluded = excluded_pairs(TARGETS, USERS)
    found = loss_of(anchors, candidates, exclusion_bias(excluded), temperature=temperature)
    torch.testing.assert_close(found, double_loop(anchors, candidates, excluded, temperature), atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_double_loop() -> None:
    torch.manual_seed(9)
    inputs = [torch.randn(6, 4, requires_grad=True) for _ in range(2)]
    excluded = excluded_pairs(TARGETS, USERS)
    fused = torch.autograd.grad(loss_of(*inputs, exclusion_bias(excluded), temperature=0.5), inputs)
    plain = torch.autograd.grad(double_loop(*inputs, excluded, 0.5), inputs)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_several_at_once_are_each_alone() -> None:
    torch.manual_seed(10)
    inputs = [torch.randn(3, 6, 4, requires_grad=True) for _ in range(2)]
    bias, temperatures = exclusion_bias(excluded_pairs(TARGETS, USERS)), [0.1, 0.5, 2.0]
    found = contrastive_loss(*inputs, bias, temperatures=temperatures)
    alone = [loss_of(*pair, bias, temperature=t) for *pair, t in zip(*inputs, temperatures, strict=True)]
    torch.testing.assert_close(found, torch.stack(alone))
    slope = torch.tensor([1.0, -2.0, 3.0])
    expected = torch.autograd.grad(torch.stack(alone) @ slope, inputs)
    for ours, theirs in zip(torch.autograd.grad(found @ slope, inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_rows_that_are_all_alone_cost_nothing() -> None:
    same_user = torch.zeros(4, dtype=torch.int64)
    bias = exclusion_bias(excluded_pairs(torch.arange(4), same_user))
    loss = loss_of(torch.randn(4, 3), torch.randn(4, 3), bias, temperature=0.1)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_an_excluded_pair_has_no_gradient() -> None:
    candidates = torch.randn(2, 3, requires_grad=True)
    bias = exclusion_bias(torch.tensor([[False, True], [True, False]]))
    loss_of(torch.randn(2, 3), candidates, bias, temperature=1.0).backward()
    assert candidates.grad.abs().max() < 1e-6


def test_a_zero_vector_gives_a_finite_loss_and_gradient() -> None:
    anchors = torch.zeros(3, 4, requires_grad=True)
    loss = loss_of(anchors, torch.randn(3, 4), torch.zeros(3, 3), temperature=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3))
    assert anchors.grad.isfinite().all()


def test_padding_has_no_loss_and_repels_nothing() -> None:
    torch.manual_seed(10)
    inputs = [torch.randn(9, 4, requires_grad=True) for _ in range(2)]
    targets, users = torch.cat([TARGETS, torch.tensor([-1, -1, -1])]), torch.cat([USERS, torch.tensor([-1, -1, 2])])
    bias = exclusion_bias(excluded_pairs(targets, users))
    found = loss_of(*inputs, bias, temperature=0.5, target_mask=targets >= 0)
    whole = [value[:6] for value in inputs]
    expected = loss_of(*whole, exclusion_bias(excluded_pairs(TARGETS, USERS)), temperature=0.5)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def symmetric_loop(first: Tensor, second: Tensor, excluded: Tensor, temperature: float, similarity: str) -> Tensor:
    z, N = torch.cat([first, second]), len(first)
    alike = cosine if similarity == "cosine" else torch.dot
    losses = []
    for i in range(2 * N):
        total = torch.zeros(())
        for j in range(2 * N):
            if j != i and not excluded[i % N, j % N]:
                total = total + torch.exp(alike(z[i], z[j]) / temperature)
        losses.append(total.log() - alike(z[i], z[(i + N) % (2 * N)]) / temperature)
    return torch.stack(losses).mean()


NONE_EXCLUDED = torch.zeros(6, 6, dtype=torch.bool)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("has_excluded", [False, True])
def test_the_symmetric_loss_and_its_gradients_are_the_double_loop(
    similarity: Any, temperature: float, has_excluded: bool
) -> None:
    torch.manual_seed(11)
    views = [torch.randn(6, 4, requires_grad=True) for _ in range(2)]
    excluded = excluded_pairs(TARGETS, USERS) if has_excluded else None
    found = symmetric_contrastive_loss(*views, temperature=temperature, similarity=similarity, excluded=excluded)
    pairs = NONE_EXCLUDED if excluded is None else excluded
    expected = symmetric_loop(*views, pairs, temperature, similarity)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(found, views), torch.autograd.grad(expected, views)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_the_symmetric_loss_of_equal_views_by_hand() -> None:
    # each vector has its partner and two orthogonal ones: log(e + 1 + 1) - 1
    views = torch.eye(2)
    found = symmetric_contrastive_loss(views, views, temperature=1.0, similarity="dot")
    assert found.item() == pytest.approx(math.log(math.e + 2) - 1)


def test_a_single_row_finds_its_other_view_without_loss() -> None:
    found = symmetric_contrastive_loss(torch.randn(1, 4), torch.randn(1, 4), temperature=1.0, similarity="cosine")
    assert found.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("has_excluded", [False, True])
def test_padding_changes_nothing_in_the_symmetric_loss(has_excluded: bool) -> None:
    torch.manual_seed(12)
    views = [torch.randn(8, 4, requires_grad=True) for _ in range(2)]
    targets, users = torch.cat([TARGETS, torch.tensor([-1, -1])]), torch.cat([USERS, torch.tensor([-1, 0])])
    own = excluded_pairs(TARGETS, USERS) if has_excluded else None
    found = symmetric_contrastive_loss(
        *views,
        temperature=0.5,
        similarity="dot",
        excluded=excluded_pairs(targets, users) if has_excluded else None,
        target_mask=targets >= 0,
    )
    expected = symmetric_contrastive_loss(
        *[view[:6] for view in views], temperature=0.5, similarity="dot", excluded=own
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, views), torch.autograd.grad(expected, views))
