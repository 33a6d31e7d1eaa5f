"""Touched rows of the id table move as by torch's SparseAdam, everything else as by its Adam."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.models.athwe.network import Network
from athwe_core.training.optim import LazyAdam, make_optimizer, scheduled_rate

LR = 0.01
STEPS = (([1, 4, 7], 1.0), ([4, 5], 3.0), ([1, 4], -0.5))


@pytest.fixture
def network(make_config: Callable, catalogue: Catalogue, time_range: TimeRange) -> Network:
    config = make_config("athwe", "losses.catalogue.kind=sampled")
    counted = replace(catalogue, target_counts=torch.ones(catalogue.num_item_rows, dtype=torch.int64))
    return Network(config.model, config.losses, counted, time_range)


def step(network: Network, optimizer: torch.optim.Optimizer, rows: list[int], factor: float) -> None:
    optimizer.zero_grad()
    (network.tables(torch.tensor(rows)).square() * factor).sum().backward()
    optimizer.step()


def test_touched_rows_move_as_by_sparse_adam_and_the_others_stay(network: Network) -> None:
    twin = network.tables.id.weight.detach().clone().requires_grad_()
    before = twin.detach().clone()
    optimizer, reference = make_optimizer(network, lr=LR), torch.optim.SparseAdam([twin], lr=LR)
    for rows, factor in STEPS:
        step(network, optimizer, rows, factor)
        reference.zero_grad()
        found = torch.nn.functional.embedding(torch.tensor(rows), twin, sparse=True)
        (found.square() * factor).sum().backward()
        reference.step()
    torch.testing.assert_close(network.tables.id.weight, twin)
    untouched = [0, 2, 3, 6, 8]
    assert torch.equal(network.tables.id.weight.detach()[untouched], before[untouched])
    assert not torch.equal(network.tables.id.weight.detach()[[1, 4, 5, 7]], before[[1, 4, 5, 7]])


def test_a_row_that_comes_twice_in_a_gradient_moves_by_their_sum(network: Network) -> None:
    twin = copy.deepcopy(network)
    step(network, make_optimizer(network, lr=LR), [3, 3], 1.0)
    step(twin, make_optimizer(twin, lr=LR), [3], 2.0)
    torch.testing.assert_close(network.tables.id.weight, twin.tables.id.weight)


def test_the_other_weights_move_as_by_adam(network: Network) -> None:
    layer = network.tables.projections["text"]
    weight, bias = (value.detach().clone().requires_grad_() for value in (layer.weight, layer.bias))
    features = network.tables.get_buffer("text_features")
    optimizer, plain = make_optimizer(network, lr=LR), torch.optim.Adam([weight, bias], lr=LR)
    for rows, factor in STEPS:
        step(network, optimizer, rows, factor)
        plain.zero_grad()
        ((features[rows] @ weight.T + bias).square() * factor).sum().backward()
        plain.step()
    torch.testing.assert_close(layer.weight, weight)
    torch.testing.assert_close(layer.bias, bias)


def test_the_state_comes_back_exactly(network: Network) -> None:
    optimizer = make_optimizer(network, lr=LR)
    step(network, optimizer, *STEPS[0])
    twin = copy.deepcopy(network)
    again = make_optimizer(twin, lr=LR)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, each_optimizer in ((network, optimizer), (twin, again)):
        step(each, each_optimizer, *STEPS[1])
    expected: dict[str, Tensor] = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in twin.state_dict().items())


def test_a_dense_id_table_is_moved_by_plain_adam(make_network: Callable, make_config: Callable) -> None:
    network = make_network(make_config("athwe"))
    optimizer = make_optimizer(network, lr=LR)
    assert not isinstance(optimizer, LazyAdam)
    before = network.tables.id.weight.detach().clone()
    optimizer.zero_grad()
    network.tables().square().sum().backward()
    optimizer.step()
    assert (network.tables.id.weight.detach() != before).all()


def test_weight_decay_moves_matrices_as_by_adamw_and_leaves_vectors_to_adam(network: Network) -> None:
    layer = network.tables.projections["text"]
    weight, bias = (value.detach().clone().requires_grad_() for value in (layer.weight, layer.bias))
    features = network.tables.get_buffer("text_features")
    optimizer = make_optimizer(network, lr=LR, weight_decay=0.5)
    reference = torch.optim.AdamW(
        [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}], lr=LR, weight_decay=0.5
    )
    for rows, factor in STEPS:
        step(network, optimizer, rows, factor)
        reference.zero_grad()
        ((features[rows] @ weight.T + bias).square() * factor).sum().backward()
        reference.step()
    torch.testing.assert_close(layer.weight, weight)
    torch.testing.assert_close(layer.bias, bias)


def test_weight_decay_shrinks_only_the_touched_rows_of_a_lazy_table(network: Network) -> None:
    twin = copy.deepcopy(network)
    before = network.tables.id.weight.detach().clone()
    step(network, make_optimizer(network, lr=LR, weight_decay=0.5), [1, 4], 1.0)
    step(twin, make_optimizer(twin, lr=LR), [1, 4], 1.0)
    expected = twin.tables.id.weight.detach().clone()
    expected[[1, 4]] -= LR * 0.5 * before[[1, 4]]
    torch.testing.assert_close(network.tables.id.weight.detach(), expected)


def test_one_cycle_rises_to_the_rate_and_falls_to_its_last_share(make_config: Callable) -> None:
    kind = "training.schedule.kind=one-cycle"
    settings = make_config("sasrec", kind, "training.lr=0.004", "training.schedule.final=0.1").training
    rates = [scheduled_rate(settings, done=done) for done in (0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0.002, 0.004, 0.004 * (0.1 + 0.9 / 2), 0.0004])


def test_a_constant_rate_is_the_rate_itself(make_config: Callable) -> None:
    settings = make_config("sasrec", "training.lr=0.004").training
    assert [scheduled_rate(settings, done=done) for done in (0.01, 1.0)] == [0.004, 0.004]


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_a_cycle_may_be_all_rise_or_all_fall(make_config: Callable, warmup: float) -> None:
    settings = make_config("sasrec", "training.schedule.kind=one-cycle", f"training.schedule.warmup={warmup}").training
    rates = [scheduled_rate(settings, done=step / 10) for step in range(1, 11)]
    assert rates == sorted(rates, reverse=warmup == 0)
    assert rates[-1] == pytest.approx(settings.lr * (1.0 if warmup else 0.02))
