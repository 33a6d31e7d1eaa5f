"""How long an experiment takes, and what is said about it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from experiment_cases import experiment_of

from athwe_core.analysis.experiments import time_estimate
from athwe_core.analysis.experiments.plan import Plan, plan_experiment
from athwe_core.analysis.experiments.time_estimate import estimate
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.runs.find import RunFolder, create_run

MakeConfig = Callable[..., Config]
Finished = Callable[..., RunFolder]


@pytest.fixture
def plan(tmp_path: Path, small: PreparedDataset, tiny_config: MakeConfig) -> Callable[..., Plan]:
    """Two variants under the seeds, of at most 50 epochs."""

    def make(*overrides: str, seeds: tuple[int, ...] = (0, 1)) -> Plan:
        configs = [tiny_config("training.epochs=50", *overrides, f"losses.pcl.weight={w}") for w in (1, 0)]
        return plan_experiment(experiment_of(*configs, seeds=seeds), small, runs_dir=tmp_path)

    return make


def test_from_finished_runs_of_the_same_preset_and_batching(
    plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    """Median of 2 s and 4 s and 1 s of validation: 4 s an epoch; median of 10 and 20 epochs: 15."""
    long = "training.epochs=50"
    finished(tiny_config(long, "model.dropout=0.1"), name="a", epochs=10, seconds=2.0)
    finished(tiny_config(long, "model.dropout=0.2", "training.batch_targets=32"), name="b", epochs=10, seconds=4.0)
    finished(tiny_config(long, preset="hm4sr"), name="c", preset="hm4sr", epochs=40, seconds=100.0)
    finished(tiny_config(long, "training.batching=prefix"), name="d", epochs=40, seconds=100.0)
    found = estimate(plan(), jobs=1)
    assert found.seconds == pytest.approx(4 * 10 * 4.0)
    assert found.basis == "from finished runs of athwe on demo: 4.0 s an epoch with its validation, 10 epochs"
    assert estimate(plan(), jobs=2).seconds == pytest.approx(2 * 10 * 4.0)
    assert estimate(plan(), jobs=3).seconds == pytest.approx(2 * 10 * 4.0), "four runs on three need two turns"
    assert "3 runs at once, assumed not to slow each other down" in estimate(plan(), jobs=3).basis


def test_a_quick_look_tells_the_pace_but_not_the_epochs(
    plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    finished(tiny_config("training.epochs=2"), name="quick", epochs=2, seconds=2.0)
    found = estimate(plan(), jobs=1)
    assert found.seconds == pytest.approx(4 * 20 * 3.0)
    assert found.basis.endswith("20 epochs assumed")


def test_finished_runs_and_epochs_are_not_counted_again(
    tmp_path: Path, small: PreparedDataset, plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    finished(tiny_config("training.epochs=50"), name="done", epochs=10, seconds=2.0)
    begun = create_run(
        tmp_path,
        tiny_config("training.epochs=50", "losses.pcl.weight=0"),
        small,
        preset="athwe",
        name="begun",
        command="test",
    )
    begun.write_metrics([{"epoch": epoch, "seconds": 2.0, "validation_seconds": 1.0} for epoch in range(1, 5)])
    assert [run.action for run in plan().runs] == ["reused", "resumed", "new", "new"]
    assert estimate(plan(), jobs=1).seconds == pytest.approx((6 + 10 + 10) * 3.0)
    assert estimate(plan(seeds=(0,)), jobs=1).seconds == pytest.approx(6 * 3.0)


def test_nothing_to_train_takes_no_time(plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished) -> None:
    for weight in (1, 0):
        finished(tiny_config("training.epochs=50", f"losses.pcl.weight={weight}"), name=f"w{weight}")
    assert estimate(plan(seeds=(0,)), jobs=4) == time_estimate.Estimate(0.0, "every run is finished")


@pytest.mark.parametrize(("epochs", "counted", "said"), [(50, 20, "20 epochs assumed"), (5, 5, "at most 5 epochs")])
def test_from_timed_steps_where_no_run_is_there(
    epochs: int, counted: int, said: str, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def timed(*_: object) -> tuple[int, float]:
        asked.append(torch.get_num_threads())
        return 7, 0.5

    monkeypatch.setattr(time_estimate, "_time_steps", timed)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = estimate(plan(f"training.epochs={epochs}"), jobs=2)
        assert (torch.get_num_threads(), asked) == (4, [2])
    finally:
        torch.set_num_threads(before)
    assert found.seconds == pytest.approx(2 * counted * 7 * 0.5)
    assert f"from 3 timed steps: 0.500 s a step, 7 steps an epoch, {said}, validation not counted" in found.basis


def test_steps_are_really_timed(plan: Callable[..., Plan]) -> None:
    found = estimate(plan(seeds=(0,)), jobs=1)
    numbers = re.search(r"([\d.]+) s a step, (\d+) steps an epoch, 20 epochs", found.basis)
    assert numbers is not None
    assert found.seconds == pytest.approx(2 * 20 * int(numbers[2]) * float(numbers[1]), rel=0.2)
    assert int(numbers[2]) > 1
