"""A step that is not finite changes nothing, and the norm of the gradient is that of all weights."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from setups import setup_of

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config import Config
from athwe_core.data.packing import pack
from athwe_core.data.rows import training_rows
from athwe_core.errors import NonFiniteLossError
from athwe_core.training.build import TrainingSetup
from athwe_core.training.optim import make_optimizer
from athwe_core.training.step import check_finite, compute_gradients, gradient_norm, train_step

KINDS = {"full": (), "sampled": ("losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=3")}
World = tuple[TrainingSetup, PackedBatch, Config]


@pytest.fixture(params=KINDS)
def small(
    request: Any,
    catalogue: Catalogue,
    time_range: TimeRange,
    make_config: Callable[..., Config],
    make_data: Callable[..., Any],
) -> World:
    config = make_config("hm4sr", "losses.cp.weight=0", *KINDS[request.param])
    counts = torch.arange(catalogue.num_item_rows)
    items = Catalogue(catalogue.num_item_rows, catalogue.features, target_counts=counts)
    data = make_data([9, 8, 5, 4])
    rows = training_rows(data.split, batching="packed", max_length=6)
    return setup_of(config, items, time_range), pack(data, rows, np.arange(len(rows)), max_length=6), config


def everything(setup: TrainingSetup, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Copies of weights, moments and step counts."""
    weights = list(setup.model.parameters())
    moments = [value for weight in weights for value in optimizer.state[weight].values()]
    return [value.detach().clone() for value in (*weights, *moments)]


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("table", [True, False], ids=["gradient of the id table", "gradient of the positions"])
def test_a_gradient_that_is_not_finite_changes_nothing(small: World, value: float, table: bool) -> None:
    setup, batch, config = small
    optimizer = make_optimizer(setup.model, lr=0.01)
    train_step(setup, optimizer, batch, config, epoch=0, step=0)
    before = everything(setup, optimizer)
    weight = setup.model.get_parameter("tables.id.weight" if table else "position")
    handle = weight.register_hook(lambda gradient: gradient * value)
    terms = train_step(setup, optimizer, batch, config, epoch=0, step=1)
    handle.remove()
    assert terms["total"].isfinite()
    assert not terms["gradient_norm"].isfinite()
    assert all(map(torch.equal, everything(setup, optimizer), before))
    train_step(setup, optimizer, batch, config, epoch=0, step=1)
    assert all(value.isfinite().all() for value in everything(setup, optimizer))
    assert not torch.equal(
        setup.model.get_parameter("position"), before[list(dict(setup.model.named_parameters())).index("position")]
    )


def test_the_norm_is_of_all_gradients(small: World) -> None:
    setup, batch, config = small
    compute_gradients(setup, batch, config, epoch=0, step=0)
    found = float(gradient_norm(setup.model))
    dense = [weight.grad.to_dense() for weight in setup.model.parameters() if weight.grad is not None]
    assert found == pytest.approx(math.sqrt(sum(float(g.double().square().sum()) for g in dense)), rel=1e-5)


def test_the_norm_is_computed_without_reading_the_device(small: World) -> None:
    model = small[0].model.to("meta")
    for weight in model.parameters():
        weight.grad = torch.empty_like(weight)
    assert gradient_norm(model).is_meta


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (
            {"ce": 1.0, "idcl": math.nan, "gradient_norm": math.nan},
            "loss term idcl at epoch 2, step 4 must be finite, got nan",
        ),
        ({"ce": 1.0, "gradient_norm": math.inf}, "gradient norm at epoch 2, step 4 must be finite, got inf"),
    ],
)
def test_the_error_names_the_first_value(small: World, terms: dict[str, float], text: str) -> None:
    with pytest.raises(NonFiniteLossError, match=text):
        check_finite(terms, small[2], epoch=1, step=3)
