"""Touched rows of the id table move as by torch's SparseAdam, everything else as by its Adam."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.models.athwe.network import Network
from athwe_core.training.optim import LazyAdam, make_optimizer

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
