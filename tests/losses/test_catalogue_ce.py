import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.losses.catalogue_ce import catalogue_cross_entropy

SHAPES = [(1, 1, 1), (1, 2, 3), (7, 13, 5), (64, 33, 12), (33, 128, 8)]


def problem(N: int, V: int, K: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(N + V)
    states, table = torch.randn(N, K, generator=generator) * scale, torch.randn(V, K, generator=generator)
    return states, table, torch.randint(0, V, (N,), generator=generator)


def value_and_gradients(loss_of: object, states: Tensor, table: Tensor) -> list[Tensor]:
    states, table = states.clone().requires_grad_(), table.clone().requires_grad_()
    loss = loss_of(states, table)  # type: ignore[operator]
    return [loss.detach(), *torch.autograd.grad(3 * loss, (states, table))]  # 3: the outer gradient is passed on


def naive(states: Tensor, table: Tensor, targets: Tensor) -> list[Tensor]:
    return value_and_gradients(lambda h, w: F.cross_entropy(h @ w.T, targets), states, table)


@pytest.mark.parametrize(("N", "V", "K"), SHAPES)
@pytest.mark.parametrize("chunk_elements", [1, 50, 333, 2**25])
def test_value_and_gradients_are_as_near_to_float64_as_the_naive_float32(
    N: int, V: int, K: int, chunk_elements: int
) -> None:
    states, table, targets = problem(N, V, K)
    exact = naive(states.double(), table.double(), targets)
    plain = naive(states, table, targets)
    ours = value_and_gradients(
        lambda h, w: catalogue_cross_entropy(h, w, targets, chunk_elements=chunk_elements), states, table
    )
    for name, found, expected, reference in zip(("loss", "states", "table"), ours, exact, plain, strict=True):
        tolerance = 2 * (reference.double() - expected).abs().max() + 1e-6
        assert (found.double() - expected).abs().max() <= tolerance, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_elements", [50, 2000, 2**25])
def test_several_problems_at_once_are_each_alone(dtype: torch.dtype, chunk_elements: int) -> None:
    states, table, targets = problem(33, 13, 5)
    h = torch.stack([states, 0.1 * states.flip(0)]).requires_grad_()
    w = torch.stack([table, table.flip(1)]).requires_grad_()
    options = {"bias": torch.randn(33, 13), "compute_dtype": dtype, "chunk_elements": chunk_elements, "num_targets": 40}
    targets[3] = -1
    found = catalogue_cross_entropy(h, w, targets, **options)
    alone = torch.stack([catalogue_cross_entropy(*pair, targets, **options) for pair in zip(h, w, strict=True)])
    epsilon = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, alone, rtol=epsilon, atol=epsilon)
    slope = torch.tensor([1.0, -2.0])
    expected = torch.autograd.grad(alone @ slope, (h, w))
    for ours, theirs in zip(torch.autograd.grad(found @ slope, (h, w)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=epsilon, atol=epsilon)


@pytest.mark.parametrize(("N", "V", "K"), SHAPES)
@pytest.mark.parametrize("chunk_elements", [50, 2**25])
def test_bfloat16_products_stay_within_bfloat16_of_the_truth(N: int, V: int, K: int, chunk_elements: int) -> None:
    states, table, targets = problem(N, V, K, scale=0.3)
    exact = naive(states, table, targets)
    ours = value_and_gradients(
        lambda h, w: catalogue_cross_entropy(
            h, w, targets, compute_dtype=torch.bfloat16, chunk_elements=chunk_elements
        ),
        states,
        table,
    )
    epsilon = torch.finfo(torch.bfloat16).eps
    for name, found, expected in zip(("loss", "states", "table"), ours, exact, strict=True):
        assert found.dtype == torch.float32, name
        assert (found - expected).norm() <= 2 * epsilon * max(expected.norm().item(), 1), name


@pytest.mark.parametrize("chunk_elements", [50, 2**25])
def test_a_bias_is_added_to_the_scores(chunk_elements: int) -> None:
    states, table, targets = problem(7, 13, 5)
    bias = torch.randn(7, 13)
    bias[:, 12] = -1e9
    targets = targets % 12
    plain = value_and_gradients(lambda h, w: F.cross_entropy(h @ w.T + bias, targets), states, table)
    ours = value_and_gradients(
        lambda h, w: catalogue_cross_entropy(h, w, targets, bias=bias, chunk_elements=chunk_elements), states, table
    )
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_targets", [None, 3, torch.tensor(3)])
def test_padding_is_ignored_and_the_mean_is_over_targets_or_over_a_given_number(
    num_targets: int | Tensor | None,
) -> None:
    states, table, targets = problem(7, 13, 5)
    targets[[1, 6]] = -1
    plain = value_and_gradients(lambda h, w: F.cross_entropy(h @ w.T, targets, ignore_index=-1), states, table)
    ours = value_and_gradients(
        lambda h, w: catalogue_cross_entropy(h, w, targets, num_targets=num_targets), states, table
    )
    factor = 1 if num_targets is None else 5 / 3
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found, factor * expected)


def test_a_batch_of_padding_costs_nothing() -> None:
    states, table, _ = problem(4, 9, 3)
    loss, *gradients = value_and_gradients(
        lambda h, w: catalogue_cross_entropy(h, w, torch.full((4,), -1)), states, table
    )
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients)


def test_a_column_of_ones_makes_a_column_of_the_table_a_trainable_bias() -> None:
    states, table, targets = problem(7, 13, 5)
    bias = torch.randn(13, requires_grad=True)
    ours = catalogue_cross_entropy(
        torch.cat([states, torch.ones(7, 1)], dim=1), torch.cat([table, bias[:, None]], dim=1), targets
    )
    plain = F.cross_entropy(states @ table.T + bias, targets)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, bias), torch.autograd.grad(plain, bias))


def test_equal_scores_cost_the_logarithm_of_the_catalogue() -> None:
    loss = catalogue_cross_entropy(torch.zeros(4, 3), torch.randn(10, 3), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(10), rel=1e-6)


def test_very_wrong_scores_cost_what_they_cost_and_still_have_a_gradient() -> None:
    states, table, targets = torch.tensor([[1.0]]), torch.tensor([[0.0], [60.0]]), torch.tensor([0])
    ours = value_and_gradients(lambda h, w: catalogue_cross_entropy(h, w, targets), states, table)
    for found, expected in zip(ours, naive(states, table, targets), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_nan_state_makes_a_nan_loss() -> None:
    states, table, targets = problem(4, 9, 3)
    states[2, 1] = math.nan
    assert catalogue_cross_entropy(states, table, targets).isnan()


def test_a_frozen_table_is_fine() -> None:
    states, table, targets = problem(4, 9, 3)
    states.requires_grad_()
    catalogue_cross_entropy(states, table, targets).backward()
    expected = torch.autograd.grad(F.cross_entropy(states @ table.T, targets), states)[0]
    torch.testing.assert_close(states.grad, expected)
