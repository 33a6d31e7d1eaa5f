import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.sampled_ce import LogUniformSampler, sampled_cross_entropy

COUNTS = torch.tensor([0, 5, 0, 40, 5, 10])
"""Of the padding and five items; by popularity 3, 5, 1, 4, 2."""


def sampler(num_negatives: int) -> LogUniformSampler:
    return LogUniformSampler(COUNTS, num_negatives=num_negatives)


def expected_shares() -> dict[int, float]:
    return {item: math.log((rank + 2) / (rank + 1)) / math.log(6) for rank, item in enumerate((3, 5, 1, 4, 2))}


def test_the_expected_counts_are_those_of_the_targets_and_of_the_draws() -> None:
    found = sampler(8).expected_count(torch.arange(1, 6), num_targets=12)
    expected = [12 * COUNTS[item] / 60 + 8 * expected_shares()[item] for item in range(1, 6)]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert sampler(8).expected_count(torch.arange(1, 6), num_targets=0).sum().item() == pytest.approx(8)


def test_the_draws_come_as_often_as_expected_and_never_hit_the_padding() -> None:
    drawn = sampler(200_000).draw(torch.Generator().manual_seed(0))
    times = Counter(drawn.tolist())
    assert set(times) == {1, 2, 3, 4, 5}
    for item, share in expected_shares().items():
        assert times[item] / 200_000 == pytest.approx(share, abs=4 * (share / 200_000) ** 0.5)


def test_the_draws_repeat_with_their_generator() -> None:
    first, again, other = (sampler(50).draw(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_catalogue_of_one_item_is_drawn_from() -> None:
    one = LogUniformSampler(torch.tensor([0, 3]), num_negatives=4)
    assert one.draw(torch.Generator().manual_seed(0)).tolist() == [1, 1, 1, 1]
    assert one.expected_count(torch.tensor([1]), num_targets=2).tolist() == [6.0]


def double_loop(states: Tensor, candidates: Tensor, own: Tensor, log_weight: Tensor) -> Tensor:
    losses = []
    for state, mine in zip(states, own.tolist(), strict=True):
        total = torch.exp(state @ candidates[mine])
        for c, candidate in enumerate(candidates):
            if c != mine:
                total = total + log_weight[c].exp() * torch.exp(state @ candidate)
        losses.append(total.log() - state @ candidates[mine])
    return torch.stack(losses).mean()


def test_value_and_gradients_are_those_of_the_double_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    states, candidates = (torch.randn(n, 4, generator=generator, requires_grad=True) for n in (6, 5))
    own, log_weight = torch.tensor([0, 4, 2, 2, 1, 0]), torch.randn(5, generator=generator)
    ours = sampled_cross_entropy(states, candidates, own, log_weight)
    plain = double_loop(states, candidates, own, log_weight)
    torch.testing.assert_close(ours, plain)
    for found, expected in zip(
        torch.autograd.grad(ours, (states, candidates)),
        torch.autograd.grad(plain, (states, candidates)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_padding_has_no_loss_and_no_gradient() -> None:
    generator = torch.Generator().manual_seed(6)
    states, candidates = torch.randn(4, 3, generator=generator, requires_grad=True), torch.randn(5, 3)
    targets, log_weight = torch.tensor([2, -1, 0, -1]), torch.randn(5, generator=generator)
    found = sampled_cross_entropy(states, candidates, targets, log_weight)
    kept = targets >= 0
    torch.testing.assert_close(found, double_loop(states[kept], candidates, targets[kept], log_weight))
    (gradient,) = torch.autograd.grad(found, states)
    assert gradient.any(1).tolist() == kept.tolist()


def test_with_every_item_once_it_is_the_loss_of_the_whole_catalogue() -> None:
    generator = torch.Generator().manual_seed(4)
    states, table = torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator)
    own = torch.tensor([0, 8, 3, 3, 5, 1])
    found = sampled_cross_entropy(states, table, own, torch.zeros(9))
    torch.testing.assert_close(found, catalogue_cross_entropy(states, table, own))


def test_the_estimated_sum_over_the_catalogue_has_the_right_mean() -> None:
    generator = torch.Generator().manual_seed(5)
    V, K = 40, 3
    table, state = torch.randn(V + 1, K, generator=generator), torch.randn(K, generator=generator)
    counts = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(1, V + 1)])
    drawer = LogUniformSampler(counts, num_negatives=20)
    scores = (table @ state).exp().double()
    estimates = []
    for _ in range(4000):
        targets = torch.multinomial(counts.double(), 6, replacement=True, generator=generator)
        items, times = torch.cat([targets, drawer.draw(generator)]).unique(return_counts=True)
        estimates.append((times / drawer.expected_count(items, num_targets=6) * scores[items]).sum())
    found = torch.stack(estimates)
    assert found.mean().item() == pytest.approx(scores[1:].sum().item(), abs=4 * (found.std() / 4000**0.5).item())
