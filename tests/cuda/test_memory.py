"""Memory that runs out for real: the device refuses. tests/training/test_out_of_memory.py is the CPU twin."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.config import Config
from athwe_core.data.packing import SOME_PADDING
from athwe_core.data.rows import epoch_batches, training_rows
from athwe_core.distributed import ALONE
from athwe_core.training.batches import BatchPacker, ReadyBatch
from athwe_core.training.build import TrainingSetup
from athwe_core.training.optim import GuardedAdam, make_optimizer
from athwe_core.training.out_of_memory import NoMemoryError, step_within_memory
from athwe_core.training.randomness import keyed_rng

pytestmark = pytest.mark.gpu
World = tuple[TrainingSetup, GuardedAdam, ReadyBatch, Config]


@contextmanager
def room(num_bytes: int) -> Iterator[None]:
    """At most this much more memory than what is in use."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + num_bytes) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def world(make_config: Callable[..., Config]) -> Iterator[World]:
    """A step of 4,096 targets on 20,000 items: a chunk of scores takes 128 MiB in float32."""
    sizes = ("model.hidden_size=64", "model.max_length=20", "training.batch_targets=4096", "training.device=cuda")
    config = make_config("sasrec", *sizes)
    data = generate_bench_data(num_users=3000, num_items=20_000, mean_length=9)
    setup = build_generated(data, config, num_items=20_000, feature_width=8)
    rows = training_rows(data.split, batching="packed", max_length=20)
    chosen = epoch_batches(rows, batch_targets=4096, rng=keyed_rng(0, "shuffle", 0))[0]
    (ready,) = BatchPacker(data, rows, 20, SOME_PADDING, setup.device, ALONE).each([chosen])
    yield setup, make_optimizer(setup.model, lr=0.001), ready, config
    torch.cuda.empty_cache()


def take(world: World, notify: Callable[[str], None]) -> Any:
    setup, optimizer, ready, config = world
    return step_within_memory(setup, optimizer, ready, config, epoch=0, step=0, level=0, notify=notify)


def test_a_step_that_does_not_fit_goes_on_with_smaller_chunks(world: World) -> None:
    take(world, pytest.fail)  # makes the moments and what libraries keep
    notes: list[str] = []
    with room(120 * 2**20):
        terms, level = take(world, notes.append)
    assert level > 0
    assert "going on with" in notes[0]
    assert terms["total"].isfinite()


def test_where_no_step_fits_the_error_names_a_batch_that_does(world: World) -> None:
    take(world, pytest.fail)
    weights = [weight.detach().clone() for weight in world[0].model.parameters()]
    with room(12 * 2**20), pytest.raises(NoMemoryError, match="must fit into the memory of cuda") as caught:
        take(world, lambda _: None)
    assert all(map(torch.equal, world[0].model.parameters(), weights))
    assert re.search(r"--batch-targets \d+|Not even one row fits", str(caught.value))
    assert take(world, pytest.fail)[1] == 0
