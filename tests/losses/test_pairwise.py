import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from athwe_core.losses.pairwise import binary_cross_entropy, bpr_loss, item_scores, uniform_negatives

Loss = Callable[..., Tensor]
TARGETS = torch.tensor([3, 1, -1, 7])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bpr_loop(positive: list[float], negative: list[list[float]], targets: list[int]) -> float:
    losses = []
    for p, row, target in zip(positive, negative, targets, strict=True):
        if target >= 0:
            losses.append(sum(-math.log(1e-10 + sigmoid(p - n)) for n in row) / len(row))
    return sum(losses) / len(losses)


def bce_loop(positive: list[float], negative: list[list[float]], targets: list[int]) -> float:
    losses = []
    for p, row, target in zip(positive, negative, targets, strict=True):
        if target >= 0:
            losses.append(-math.log(sigmoid(p)) + sum(-math.log(1 - sigmoid(n)) for n in row) / len(row))
    return sum(losses) / len(losses)


LOSSES = [(bpr_loss, bpr_loop), (binary_cross_entropy, bce_loop)]
BOTH = pytest.mark.parametrize("loss", [bpr_loss, binary_cross_entropy])


@pytest.mark.parametrize(("loss", "loop"), LOSSES)
@pytest.mark.parametrize("num_negatives", [1, 5])
def test_the_loss_is_the_loop(loss: Loss, loop: Callable[..., float], num_negatives: int) -> None:
    generator = torch.Generator().manual_seed(num_negatives)
    positive = 3 * torch.randn(4, generator=generator)
    negative = 3 * torch.randn(4, num_negatives, generator=generator)
    expected = loop(positive.tolist(), negative.tolist(), TARGETS.tolist())
    assert loss(positive, negative, TARGETS).item() == pytest.approx(expected, rel=1e-5)


def test_equal_scores_cost_log_2_for_each_comparison() -> None:
    positive, negative, targets = torch.zeros(2), torch.zeros(2, 3), torch.tensor([1, 2])
    assert bpr_loss(positive, negative, targets).item() == pytest.approx(math.log(2))
    assert binary_cross_entropy(positive, negative, targets).item() == pytest.approx(2 * math.log(2))


@BOTH
def test_the_gradient_is_that_of_finite_differences(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(1)
    positive = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, n: loss(p, n, TARGETS), (positive, negative))


@BOTH
def test_padding_has_no_loss_and_no_gradient(loss: Loss) -> None:
    positive = torch.tensor([1.0, -1.0, 1e4, 2.0], requires_grad=True)
    negative = torch.tensor([[0.5], [0.0], [-3.0], [1.0]], requires_grad=True)
    kept = TARGETS >= 0
    padded, alone = loss(positive, negative, TARGETS), loss(positive[kept], negative[kept], TARGETS[kept])
    torch.testing.assert_close(padded, alone)
    expected = torch.autograd.grad(alone, (positive, negative))
    torch.testing.assert_close(torch.autograd.grad(padded, (positive, negative)), expected)
    assert expected[0][2] == 0


@BOTH
def test_a_batch_of_padding_costs_nothing(loss: Loss) -> None:
    positive, negative = torch.ones(3, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    found = loss(positive, negative, torch.full((3,), -1))
    found.backward()
    assert found.item() == 0
    assert not positive.grad.any()
    assert not negative.grad.any()


@BOTH
@pytest.mark.parametrize("as_tensor", [False, True])
def test_parts_divided_by_the_targets_of_all_sum_to_the_whole(loss: Loss, as_tensor: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    positive, negative = torch.randn(4, generator=generator), torch.randn(4, 2, generator=generator)
    count = torch.tensor(3) if as_tensor else 3
    parts = [loss(positive[s], negative[s], TARGETS[s], num_targets=count) for s in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(parts[0] + parts[1], loss(positive, negative, TARGETS))


def test_a_hopeless_pair_is_capped_in_bpr_and_linear_in_bce() -> None:
    positive, negative, targets = torch.tensor([-100.0]), torch.tensor([[100.0]]), torch.tensor([1])
    assert bpr_loss(positive, negative, targets).item() == pytest.approx(-math.log(1e-10))
    assert binary_cross_entropy(positive, negative, targets).item() == pytest.approx(200)


def test_item_scores_are_entries_of_the_product_with_the_table() -> None:
    generator = torch.Generator().manual_seed(3)
    states, table = torch.randn(3, 4, generator=generator), torch.randn(6, 4, generator=generator)
    bias, items = torch.randn(6, generator=generator), torch.tensor([[1, 5], [2, 2], [-1, 0]])
    whole = states @ table.T + bias
    expected = [[whole[0, 1], whole[0, 5]], [whole[1, 2], whole[1, 2]], [whole[2, 0], whole[2, 0]]]
    found = item_scores(states, table, items, bias=bias)
    torch.testing.assert_close(found, torch.tensor(expected))
    torch.testing.assert_close(item_scores(states, table, items), found - bias[items.clamp(min=0)])


def test_item_scores_of_half_precision_vectors_are_summed_in_float32() -> None:
    states, table = torch.ones(1, 512, dtype=torch.bfloat16), torch.full((2, 512), 1.0078125, dtype=torch.bfloat16)
    found = item_scores(states, table, torch.tensor([[1]]))
    assert found.dtype == torch.float32
    assert found.item() == 516  # bfloat16 has 516 and 520, but a sum in it stops at 256


def draw(rows: list[int], items: list[int], targets: list[int], *, number: int, seed: int = 0, V: int = 7) -> Tensor:
    return uniform_negatives(
        torch.tensor(rows),
        torch.tensor(items),
        torch.tensor(targets),
        num_item_rows=V,
        num_negatives=number,
        generator=torch.Generator().manual_seed(seed),
    )


def test_negatives_are_every_unseen_item_equally_often() -> None:
    # row 0 has 2, 3 and 6, row 1 nothing but padding, row 2 has 1; out of order, with repeats and with padding
    rows, items = [2, 0, 0, 0, 0, 1, 0, 1], [1, 6, 2, 3, 2, 0, -1, -1]
    drawn = draw(rows, items, [0, 2, 1], number=30_000)
    for found, unseen in zip(drawn, ([1, 4, 5], [2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]), strict=True):
        times, share = Counter(found.tolist()), 1 / len(unseen)
        assert sorted(times) == unseen
        for item in unseen:
            assert times[item] / 30_000 == pytest.approx(share, abs=4 * (share / 30_000) ** 0.5)


def test_negatives_of_random_rows_are_never_seen_items() -> None:
    generator = torch.Generator().manual_seed(5)
    rows, items = (torch.randint(high, (200,), generator=generator).tolist() for high in (12, 31))
    drawn = draw(rows, items, list(range(12)), number=400, V=31)
    for row in range(12):
        seen = {item for r, item in zip(rows, items, strict=True) if r == row}
        assert set(drawn[row].tolist()) == set(range(1, 31)) - seen


def test_a_row_that_has_every_item_draws_from_all_of_them() -> None:
    assert set(draw([0, 0, 0], [1, 2, 3], [0], number=200, V=4).flatten().tolist()) == {1, 2, 3}


def test_negatives_repeat_with_their_generator() -> None:
    first, again, other = (draw([0], [1], [0], number=50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_negatives_reads_no_value_of_the_device() -> None:
    rows = torch.zeros(5, dtype=torch.int64, device="meta")
    generator = torch.Generator().manual_seed(0)
    found = uniform_negatives(rows, rows, rows, num_item_rows=9, num_negatives=3, generator=generator)
    assert found.is_meta
    assert found.shape == (5, 3)
