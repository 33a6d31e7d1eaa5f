"""A step that does not fit goes on with more memory_saving and says so; where nothing fits the error names a batch that does.

The limit is of `MemoryMeter`, which refuses as a device does.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from setups import setup_of
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config import Config
from athwe_core.data.packing import pack
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import Rows, training_rows
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import replace_in
from athwe_core.runs.checkpoint import load_state
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.training import out_of_memory
from athwe_core.training.build import TrainingSetup
from athwe_core.training.loop import train
from athwe_core.training.memory_meter import MemoryMeter
from athwe_core.training.memory_saving import LEVELS
from athwe_core.training.optim import make_optimizer
from athwe_core.training.out_of_memory import MARGIN, NoMemoryError, is_out_of_memory, step_within_memory
from athwe_core.training.step import train_step

NUM_ROWS, TARGETS = 3001, 200
SMALL_LEVELS = tuple(replace(level, chunk_elements=level.chunk_elements // 2**5) for level in LEVELS)
"""In proportion to so few items: one chunk of the catalogue at the first level, five at the second, forty at the third."""
GOES_ON = "step 1 of epoch 1 does not fit into memory: going on with {} (the same to rounding, slower)"


@pytest.fixture(scope="module", autouse=True)
def small_levels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out_of_memory, "LEVELS", SMALL_LEVELS)
        yield


@dataclass
class ProcessGroup:
    """A network on random items, a batch of `TARGETS` targets, and the optimiser."""

    setup: TrainingSetup
    optimizer: torch.optim.Optimizer
    config: Config
    data: Any
    rows: Rows

    def pack(self, targets: int | None) -> PackedBatch | None:
        """As the loop packs the first rows of a batch."""
        chosen = np.arange(len(self.rows))
        if targets is not None:
            chosen = chosen[self.rows.num_supervised.cumsum() <= targets]
        return pack(self.data, self.rows, chosen, max_length=self.config.model.max_length) if len(chosen) else None

    def step(self, notify: Callable[[str], None], level: int = 0) -> tuple[dict[str, Tensor], int]:
        here = (self.setup, self.optimizer, self.pack, self.config)
        return step_within_memory(*here, epoch=0, step=0, level=level, notify=notify)

    def moments(self) -> Tensor:
        """Adam's first moments of all weights: after one step a tenth of the gradients."""
        states = [self.optimizer.state[parameter] for parameter in self.setup.model.parameters()]
        return torch.cat([state["exp_avg"].flatten() for state in states if state])

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.setup.model.state_dict().items()}


@pytest.fixture(scope="module")
def make_world(
    make_config: Callable[..., Config], make_data: Callable[..., Any], time_range: TimeRange
) -> Callable[[], ProcessGroup]:
    """Built anew at each call, the same each time."""
    config = make_config("hm4sr", "model.dropout=0.2", f"training.batch_targets={TARGETS}")
    data = make_data([7] * (TARGETS // 4), num_rows=NUM_ROWS)  # 4 supervised tokens each
    generator = torch.Generator().manual_seed(0)
    items = Catalogue(
        num_item_rows=NUM_ROWS,
        features={m: torch.randn(NUM_ROWS, 4, generator=generator) for m in ("text", "image")},
        categories=torch.randint(0, 2, (NUM_ROWS, 3), generator=generator),
    )

    def make() -> ProcessGroup:
        setup = setup_of(config, items, time_range, torch.float32)
        rows = training_rows(data.split, batching="packed", max_length=config.model.max_length)
        return ProcessGroup(setup, make_optimizer(setup.model, lr=0.01), config, data, rows)

    return make


@pytest.fixture(scope="module")
def peaks(make_world: Callable[[], ProcessGroup]) -> list[int]:
    """Most bytes alive in the first step of a run, at each level."""
    found = []
    for level in range(len(LEVELS)):
        with MemoryMeter() as meter:
            make_world().step(lambda _: None, level=level)
        found.append(meter.peak)
    return found


def test_each_level_takes_less(peaks: list[int]) -> None:
    assert peaks[1] < 0.9 * peaks[0]
    assert peaks[2] < 0.9 * peaks[1]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_step_that_does_not_fit_goes_on_with_as_much_thrift_as_it_takes_and_says_so(
    level: int, peaks: list[int], make_world: Callable[[], ProcessGroup]
) -> None:
    straight, said = make_world(), []
    expected, _ = straight.step(lambda _: None)
    with MemoryMeter(limit=peaks[level]) as meter:
        world = make_world()
        terms, taken = world.step(said.append)
    assert taken == level
    assert said == [GOES_ON.format(LEVELS[k].what) for k in range(1, level + 1)]
    assert meter.refused == level
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5
    )
    found, wanted = world.moments(), straight.moments()
    assert float((found - wanted).norm()) < 1e-5 * float(wanted.norm())


def named_targets(error: NoMemoryError) -> int:
    found = re.search(r"--batch-targets (\d+), the most that fits here", str(error))
    assert found is not None, error
    return int(found[1])


def test_where_nothing_fits_the_error_names_a_batch_that_does_and_the_weights_are_as_they_were(
    peaks: list[int], make_world: Callable[[], ProcessGroup]
) -> None:
    limit, before = int(0.7 * peaks[-1]), make_world().weights()
    with MemoryMeter(limit=limit):
        world = make_world()
        with pytest.raises(NoMemoryError, match=r"^step 1 of epoch 1 must fit into the memory of cpu") as caught:
            world.step(lambda _: None)
    assert not world.optimizer.state
    assert all(torch.equal(value, before[name]) for name, value in world.weights().items())
    assert all(parameter.grad is None for parameter in world.setup.model.parameters())
    targets = named_targets(caught.value)
    assert 0 < targets < TARGETS
    assert caught.value.exit_code == 1
    del world

    def two_steps(targets: int) -> None:
        with MemoryMeter(limit=limit):
            world = make_world()
            batch = world.pack(targets)
            for step in (0, 1):  # only the second one has the moments beside it
                train_step(
                    world.setup,
                    world.optimizer,
                    batch,
                    world.config,
                    epoch=0,
                    step=step,
                    memory_saving=SMALL_LEVELS[-1],
                )

    two_steps(targets)
    with pytest.raises(torch.OutOfMemoryError):
        two_steps(int(1.1 * targets / MARGIN))


def test_in_a_later_step_the_moments_count_once_and_stay_as_they_were(
    peaks: list[int], make_world: Callable[[], ProcessGroup]
) -> None:
    with MemoryMeter() as meter:
        world = make_world()
        world.step(lambda _: None)
        moments = {id(p): state["exp_avg"].clone() for p, state in world.optimizer.state.items()}
        before = world.weights()
        meter.limit = (
            int(0.7 * peaks[-1]) + sum(v.nbytes for v in moments.values()) + sum(v.nbytes for v in before.values())
        )
        with pytest.raises(NoMemoryError) as caught:
            world.step(lambda _: None)
        assert 0 < named_targets(caught.value) < TARGETS
    assert all(torch.equal(value, before[name]) for name, value in world.weights().items())
    assert all(torch.equal(state["exp_avg"], moments[id(p)]) for p, state in world.optimizer.state.items())


def test_where_not_even_one_row_fits_it_says_so(make_world: Callable[[], ProcessGroup]) -> None:
    with MemoryMeter() as meter:
        world = make_world()
        meter.limit = meter.alive + 1000
        with pytest.raises(NoMemoryError, match=r"Not even one row fits: lower model.max_length or model.hidden_size"):
            world.step(lambda _: None)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_this_machines_own_refusal_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**56)
    assert is_out_of_memory(caught.value)


def test_an_error_of_another_kind_is_not_taken_for_one(
    make_world: Callable[[], ProcessGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(out_of_memory, "train_step", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        make_world().step(pytest.fail)


class Listener:
    """Sets the meter's limit after some step, and forgets the limit when told."""

    def __init__(self, meter: MemoryMeter | None = None, *, at: int = 0, until: int = 0, limit: float = 0) -> None:
        self.meter, self.at, self.until, self.limit = meter, at, until, limit
        self.steps = 0
        self.step_peak = 0

    def epoch_begins(self, *_: Any, **__: Any) -> None: ...
    def step_ends(self, *_: Any) -> None:
        self.steps += 1
        if self.meter is None:
            return
        if self.steps == 2:
            self.step_peak = self.meter.peak
        if self.steps == self.at:
            self.meter.limit = int(self.limit)
        if self.steps == self.until:
            self.meter.limit = None

    def epoch_ends(self, *_: Any, **__: Any) -> None: ...


@pytest.fixture(scope="module")
def make_run(
    tmp_path_factory: pytest.TempPathFactory, prepared: PreparedDataset, make_config: Callable[..., Config]
) -> Callable[..., RunFolder]:
    folder = tmp_path_factory.mktemp("runs")

    def make(name: str) -> RunFolder:
        overrides = ["training.batch_targets=200", "training.epochs=1", "model.dropout=0.2"]
        config, _ = adapt_to_data(replace_in(make_config("hm4sr"), overrides), prepared)
        return create_run(folder, config, prepared, preset="hm4sr", name=name, command="test")

    return make


@pytest.fixture(scope="module")
def straight(make_run: Callable[..., RunFolder], prepared: PreparedDataset) -> tuple[RunFolder, int]:
    """A run that was never short of memory, and the peak of its first steps."""
    run = make_run("straight")
    with MemoryMeter() as meter:
        listener = Listener(meter)
        train(run, prepared, listener=listener)
    return run, listener.step_peak


def weights(run: RunFolder) -> bytes:
    return (run.last / "weights.safetensors").read_bytes()


def test_a_run_that_does_not_fit_saves_its_state_and_goes_on_where_there_is_room(
    straight: tuple[RunFolder, int], make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    expected, peak = straight
    run = make_run("short")
    with (
        MemoryMeter() as meter,
        pytest.raises(NoMemoryError, match=r"^step 4 of epoch 1 must fit into the memory of cpu"),
    ):
        train(run, prepared, listener=Listener(meter, at=3, limit=0.3 * peak))
    assert load_state(run.last)["progress"]["step"] == 3
    listener = Listener()
    result = train(run, prepared, listener=listener)
    assert result.finished
    assert weights(run) == weights(expected)
    assert result.results["test"] == expected.manifest()["results"]["test"]


def test_a_run_that_must_spare_memory_says_so_once_and_keeps_sparing_when_resumed(
    straight: tuple[RunFolder, int], make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    expected, peak = straight
    run, said = make_run("saving_memory"), []
    with MemoryMeter() as meter:
        listener = Listener(meter, at=2, until=5, limit=0.85 * peak)
        stopped = train(run, prepared, listener=listener, notify=said.append, should_stop=lambda: listener.steps >= 4)
    assert not stopped.finished
    assert [text.partition(":")[0] for text in said] == ["step 3 of epoch 1 does not fit into memory"] * 2
    assert load_state(run.last)["progress"]["memory_saving"] == 2
    result = train(run, prepared, listener=Listener(), notify=said.append)
    assert len(said) == 2
    assert load_state(run.last)["progress"]["memory_saving"] == 2
    own, theirs = run.metrics()[0]["losses"], expected.metrics()[0]["losses"]
    assert own == pytest.approx(theirs, rel=1e-4)
    assert result.finished
