"""Every level of memory_saving comes to the same losses and gradients."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from setups import setup_of
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config import Config
from athwe_core.data.packing import pack
from athwe_core.data.rows import training_rows
from athwe_core.training.build import TrainingSetup
from athwe_core.training.memory_saving import LEVELS, MemorySaving, saving_memory
from athwe_core.training.step import compute_gradients

SHRINK = 2**16
"""LEVELS are meant for catalogues of many thousand items; of the 13 items here a chunk shall hold a few rows too."""
SMALL_LEVELS = tuple(replace(level, chunk_elements=level.chunk_elements // SHRINK) for level in LEVELS)
LENGTHS = (8, 5, 3, 7, 4, 6, 8, 9)
SPREAD = 0.3

ProcessGroup = tuple[TrainingSetup, PackedBatch, Config]


@pytest.fixture
def make_world(
    make_config: Callable[..., Config], make_data: Callable[..., Any], catalogue: Catalogue, time_range: TimeRange
) -> Callable[..., ProcessGroup]:
    """A network with dropout and a batch of all users."""

    def make(preset: str, batching: str, *overrides: str) -> ProcessGroup:
        settings = ("model.dropout=0.3", f"training.batching={batching}", *overrides)
        config = make_config(preset, *settings)
        data, length = make_data(LENGTHS), config.model.max_length
        rows = training_rows(data.split, batching=batching, max_length=length)
        batch = pack(data, rows, torch.arange(len(rows)).numpy(), max_length=length)
        counts = torch.arange(catalogue.num_item_rows).flip(0)
        items = replace(catalogue, target_counts=counts if "losses.catalogue.kind=sampled" in overrides else None)
        setup = setup_of(config, items, time_range, torch.float32)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # large enough for every stage to matter
            for parameter in setup.model.parameters():
                parameter.normal_(0, SPREAD, generator=generator)
        return setup, batch, config

    return make


def losses_and_gradients(
    world: ProcessGroup, memory_saving: MemorySaving, *, step: int = 3
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    setup, batch, config = world
    setup.model.zero_grad(set_to_none=True)
    terms = compute_gradients(setup, batch, config, epoch=1, step=step, memory_saving=memory_saving)
    gradients = {name: p.grad for name, p in setup.model.named_parameters() if p.grad is not None}
    return terms, {name: g.to_dense() if g.is_sparse else g.clone() for name, g in gradients.items()}


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize(
    ("preset", "batching", "overrides"),
    [
        ("hm4sr", "packed", ()),
        ("hm4sr", "prefix", ()),
        ("athwe", "packed", ("losses.cluster.weight=1",)),
        ("athwe", "prefix", ("losses.cluster.weight=1",)),
        ("athwe", "packed", ("losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=5")),
        ("athwe-published", "prefix", ()),
    ],
)
def test_every_level_gives_the_same_losses_and_gradients_with_dropout(
    preset: str, batching: str, overrides: tuple[str, ...], level: int, make_world: Callable[..., ProcessGroup]
) -> None:
    world = make_world(preset, batching, *overrides)
    expected_terms, expected = losses_and_gradients(world, LEVELS[0])
    terms, found = losses_and_gradients(world, SMALL_LEVELS[level])
    assert terms.keys() == expected_terms.keys()
    for name, value in expected_terms.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_difference(found[name], gradient) < 1e-5, name


def test_another_draw_of_dropout_would_be_noticed(make_world: Callable[..., ProcessGroup]) -> None:
    """The comparison above is not blind: the masks of another step give other losses."""
    world = make_world("athwe", "packed")
    here, there = (losses_and_gradients(world, LEVELS[0], step=step)[0]["total"].item() for step in (3, 4))
    assert abs(here - there) > 1e-3 * here


def test_the_levels_do_what_they_say(make_world: Callable[..., ProcessGroup], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of the catalogue grow in number; at the last level each stage of the network runs twice."""
    world = make_world("athwe", "packed")
    network = world[0].model
    stages = (network.interactive_moe, network.wavelet, network.temporal_moe, network.transformer.layers[0])
    kinds = {type(stage) for stage in stages}
    assert len(kinds) == 4
    calls: list[str] = []

    def count(place: Any, name: str, label: str) -> None:
        real = getattr(place, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            calls.append(label)
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, counted)

    for kind in kinds:
        count(kind, "forward", kind.__name__)
    real_softmax = torch.softmax

    def softmax(scores: Tensor, **options: Any) -> Tensor:
        if scores.shape[1] == len(world[0].model.item_table()):
            calls.append("chunk")
        return real_softmax(scores, **options)

    monkeypatch.setattr(torch, "softmax", softmax)
    counts = []
    for memory_saving in SMALL_LEVELS:
        calls.clear()
        losses_and_gradients(world, memory_saving)
        counts.append({name: calls.count(name) for name in set(calls)})
    assert counts[0]["chunk"] < counts[1]["chunk"] < counts[2]["chunk"]
    names = {kind.__name__ for kind in kinds}
    assert [counts[1][name] for name in names] == [counts[0][name] for name in names]
    assert [counts[2][name] for name in names] == [2 * counts[0][name] for name in names]


def test_the_network_is_as_before_after_a_step(make_world: Callable[..., ProcessGroup]) -> None:
    """Also after one that was broken off."""
    network = make_world("athwe", "packed")[0].model
    before = {name: stage.forward.__func__ for name, stage in network.named_modules() if name}

    def broken_off() -> None:
        with saving_memory(network, LEVELS[-1]):
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        broken_off()
    assert {name: stage.forward.__func__ for name, stage in network.named_modules() if name} == before
