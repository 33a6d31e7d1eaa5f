"""Recorded steps are the plain steps: as CUDA graphs on a device, and on the CPU as tapes of operations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from setups import setup_of
from tape import tape_record

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, pack
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import training_rows
from athwe_core.models.inputs import adapt_to_data
from athwe_core.runs.find import create_run
from athwe_core.training import loop, recorded
from athwe_core.training.build import TrainingSetup
from athwe_core.training.log_listener import LogListener
from athwe_core.training.optim import GuardedAdam, make_optimizer
from athwe_core.training.recorded import RecordedSteps, recorded_or_not
from athwe_core.training.step import train_step

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class World:
    """A model with its optimiser, and batches of different rows in two shapes."""

    def __init__(self, config: Config, setup: TrainingSetup, data: Any) -> None:
        self.config, self.setup = config, setup
        self.optimizer = make_optimizer(setup.model, lr=0.01)
        rows = training_rows(data.split, batching=config.training.batching, max_length=6)
        few, many = np.arange(3), np.arange(len(rows))
        self.batches = [
            pack(data, rows, chosen, max_length=6, padding=FIXED_PADDING).to(setup.device)
            for chosen in (few, few + 1, many, few + 2, many[::-1], few)
        ]

    def recorded(self, **how: Any) -> RecordedSteps:
        record = None if self.setup.device.type == "cuda" else tape_record(self.setup.model, self.optimizer)
        return RecordedSteps(self.setup, self.optimizer, self.config, **{"notify": pytest.fail, "record": record} | how)

    def plain(self, batch: PackedBatch, step: int) -> dict[str, torch.Tensor]:
        return train_step(self.setup, self.optimizer, batch, self.config, epoch=0, step=step)


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(catalogue: Any, time_range: Any, make_config: Callable[..., Config], make_data: Any) -> MakeWorld:
    def make(device: str, preset: str = "athwe", *overrides: str, long: int = 40) -> World:
        config = make_config(preset, f"training.device={device}", *overrides)
        data = make_data([9, 8, 5, 4, *[6] * long])
        return World(config, setup_of(config, catalogue, time_range), data)

    return make


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("preset", "batching"), [("athwe", "packed"), ("hm4sr", "prefix"), ("sasrec", "packed")])
def test_replayed_steps_are_the_plain_steps(preset: str, batching: str, device: str, make_world: MakeWorld) -> None:
    plain, other = (make_world(device, preset, f"training.batching={batching}") for _ in range(2))
    steps, taken = other.recorded(), []
    for step, (batch, same) in enumerate(zip(plain.batches, other.batches, strict=True)):
        for world in (plain, other):
            world.optimizer.set_rate(0.01 / (1 + step))
        expected = plain.plain(batch, step)
        found = steps.take(same, epoch=0, step=step)
        taken.append(found is not None)
        close(other.plain(same, step) if found is None else found, expected)
        close(dict(other.setup.model.named_parameters()), dict(plain.setup.model.named_parameters()))
    assert taken == [False, True, False, True, True, True]  # the first of each of two shapes is not recorded


@pytest.mark.gpu
def test_a_graph_draws_the_dropout_of_each_step(make_world: MakeWorld) -> None:
    plain, other = (make_world("cuda", "athwe", "model.dropout=0.5") for _ in range(2))
    steps, losses = other.recorded(), []
    for step in range(4):  # on one batch: only the dropout differs
        expected = plain.plain(plain.batches[0], step)
        found = steps.take(other.batches[0], epoch=0, step=step)
        close(other.plain(other.batches[0], step) if found is None else found, expected)
        losses.append(float(expected["total"]))
    assert len(set(losses)) == 4


@pytest.mark.parametrize("device", DEVICES)
def test_a_replayed_step_that_is_not_finite_changes_nothing(device: str, make_world: MakeWorld) -> None:
    world = make_world(device, "sasrec")
    steps, batch = world.recorded(), world.batches[0]
    world.plain(batch, 0)
    assert steps.take(batch, epoch=0, step=1) is None
    assert steps.take(batch, epoch=0, step=1) is not None
    weight = next(iter(world.setup.model.parameters()))
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[1:] = torch.nan
    before = [value.detach().clone() for value in world.setup.model.parameters()]
    terms = steps.take(batch, epoch=0, step=2)
    assert terms is not None
    assert terms["total"].isnan()
    after = list(world.setup.model.parameters())
    assert all(torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)) for a, b in zip(after, before, strict=True))
    with torch.no_grad():
        weight.copy_(kept)
    terms = steps.take(batch, epoch=0, step=3)
    assert terms is not None
    assert terms["total"].isfinite()


def test_where_recording_fails_every_step_is_plain_and_one_sentence_says_so(make_world: MakeWorld) -> None:
    world, notes = make_world("cpu"), list[str]()

    def broken(_: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    steps = world.recorded(record=broken, notify=notes.append)
    assert [steps.take(world.batches[0], epoch=0, step=step) for step in range(3)] == [None] * 3
    note = (
        "a step cannot be recorded as a CUDA graph (operation not permitted when stream is capturing): going on without"
    )
    assert notes == [note]
    assert not any(group["capturable"] for group in world.optimizer.param_groups)
    assert world.plain(world.batches[0], 3)["total"].isfinite()


def test_only_so_many_shapes_are_recorded(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_RECORDINGS", 1)
    world = make_world("cpu", "sasrec")
    steps, (few, _, many, *_) = world.recorded(), world.batches
    for batch in (few, many):
        assert steps.take(batch, epoch=0, step=0) is None
        world.plain(batch, 0)
    assert steps.take(many, epoch=0, step=1) is None
    assert steps.take(few, epoch=0, step=1) is not None
    steps.release()
    assert steps.take(few, epoch=0, step=2) is None


def test_steps_are_recorded_on_cuda_alone(make_world: MakeWorld) -> None:
    world = make_world("cpu")
    assert recorded_or_not(world.setup, world.optimizer, world.config, notify=pytest.fail) is None


def test_a_run_of_recorded_steps_is_the_plain_run(
    tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("training.batch_targets=100", "training.epochs=2", "training.compiler=on")
    config, _ = adapt_to_data(make_config("sasrec", *overrides), prepared)
    taken = []

    def with_tapes(setup: TrainingSetup, optimizer: GuardedAdam, config: Config, *, notify: Any) -> RecordedSteps:
        steps = RecordedSteps(setup, optimizer, config, notify=notify, record=tape_record(setup.model, optimizer))
        take = steps.take
        monkeypatch.setattr(steps, "take", lambda *a, **k: taken.append(result := take(*a, **k)) or result)
        return steps

    monkeypatch.setattr(loop, "compile_or_not", lambda setup, *_, **__: setup)
    results = []
    for name, choose in (("plain", recorded_or_not), ("recorded", with_tapes)):
        monkeypatch.setattr(loop, "recorded_or_not", choose)
        run = create_run(tmp_path, config, prepared, preset="sasrec", name=name, command="test")
        loop.train(run, prepared, listener=LogListener(), notify=pytest.fail)
        results.append([record["losses"] | record["validation"] for record in run.metrics()])
    for plain, replayed in zip(*results, strict=True):
        assert replayed == pytest.approx(plain, rel=1e-5)
    assert sum(terms is not None for terms in taken) > len(taken) / 2
