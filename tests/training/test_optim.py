"""Dense weights move as by torch's Adam, a sparse id table by its lazy rule, and the state comes back exactly."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.network import Network
from athwe_core.training.optim import Optimizers

LR, BETAS, EPS = 0.01, (0.9, 0.999), 1e-8


@pytest.fixture
def network(make_config: Callable, catalogue: Catalogue, time_range: TimeRange) -> Network:
    config = make_config("athwe", "losses.catalogue.kind=sampled")
    counted = replace(catalogue, target_counts=torch.ones(catalogue.num_rows, dtype=torch.int64))
    return Network(config.model, config.losses, counted, time_range)


def step(network: Network, optimizers: Optimizers, rows: list[int], factor: float) -> None:
    optimizers.zero_grad()
    table = network.tables(torch.tensor(rows))
    (table.square() * factor).sum().backward()
    optimizers.step()


def lazy_adam(table: Tensor, touched: list[list[int]], factors: list[float]) -> Tensor:
    """Row by row: only touched rows have their moments decayed and moved."""
    table = table.clone()
    first, second = torch.zeros_like(table), torch.zeros_like(table)
    for t, (rows, factor) in enumerate(zip(touched, factors, strict=True), start=1):
        for row in rows:
            gradient = 2 * factor * table[row]
            first[row] = BETAS[0] * first[row] + (1 - BETAS[0]) * gradient
            second[row] = BETAS[1] * second[row] + (1 - BETAS[1]) * gradient**2
            scale = LR * (1 - BETAS[1] ** t) ** 0.5 / (1 - BETAS[0] ** t)
            table[row] -= scale * first[row] / (second[row].sqrt() + EPS)
    return table


def test_the_id_table_moves_by_the_lazy_rule(network: Network) -> None:
    touched, factors = [[1, 4, 7], [4, 5], [1, 4]], [1.0, 3.0, -0.5]
    before = network.tables.id.detach().clone()
    optimizers = Optimizers(network, lr=LR)
    for rows, factor in zip(touched, factors, strict=True):
        step(network, optimizers, rows, factor)
    torch.testing.assert_close(network.tables.id.detach(), lazy_adam(before, touched, factors))
    untouched = [0, 2, 3, 6, 8]
    assert torch.equal(network.tables.id.detach()[untouched], before[untouched])


def test_the_other_weights_move_as_by_adam(network: Network) -> None:
    twin = network.tables.projections["text"].weight.detach().clone().requires_grad_()
    bias = network.tables.projections["text"].bias.detach().clone().requires_grad_()
    features = network.tables.get_buffer("text_features")[[2, 3]]
    plain = torch.optim.Adam([twin, bias], lr=LR)
    optimizers = Optimizers(network, lr=LR)
    for factor in (1.0, 2.0):
        step(network, optimizers, [2, 3], factor)
        plain.zero_grad()
        ((features @ twin.T + bias).square() * factor).sum().backward()
        plain.step()
    torch.testing.assert_close(network.tables.projections["text"].weight, twin)


def test_the_state_comes_back_exactly(network: Network) -> None:
    optimizers = Optimizers(network, lr=LR)
    step(network, optimizers, [1, 4], 1.0)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value.clone() for name, value in optimizers.state().items()}
    assert state["tables.id/step"].dtype == torch.int64
    step(network, optimizers, [4, 9], 2.0)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    again = Optimizers(network, lr=LR)
    again.load_state(state)
    step(network, again, [4, 9], 2.0)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in expected.items())


def test_the_state_of_another_network_is_refused(network: Network) -> None:
    with pytest.raises(KeyError, match="elsewhere"):
        Optimizers(network, lr=LR).load_state({"elsewhere.weight/exp_avg": torch.zeros(2)})


def test_a_dense_id_table_is_moved_with_the_rest(make_network: Callable, make_config: Callable) -> None:
    network = make_network(make_config("athwe"))
    before = network.tables.id.detach().clone()
    optimizers = Optimizers(network, lr=LR)
    optimizers.zero_grad()
    network.tables().square().sum().backward()
    optimizers.step()
    assert (network.tables.id.detach() != before).all()
