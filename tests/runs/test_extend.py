"""A run that continues past its end is the run that had more epochs from the start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.runs.extend import extend_run
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.training.loop import train

SETTINGS = ("training.batch_targets=200", "training.lr=0.003", "model.dropout=0.2")
STILL = ("training.lr=1e-12", "training.patience=1", "training.epochs=9")
"""A run that stops early: its ranking never changes."""


class Silence:
    """A listener that counts epochs."""

    def __init__(self) -> None:
        self.epochs = 0

    def epoch_begins(self, epoch: int, **_: Any) -> None: ...

    def step_ends(self, step: int, means: dict[str, float]) -> None: ...

    def epoch_ends(self, record: Any, *, is_best: bool) -> None:
        self.epochs += 1


@pytest.fixture
def make_run(tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]) -> Callable[..., RunFolder]:
    def make(name: str, *overrides: str) -> RunFolder:
        config = make_config("sasrec", *SETTINGS, *overrides)
        return create_run(tmp_path, config, prepared, preset="sasrec", name=name, command="test")

    return make


def test_it_ends_as_a_run_with_more_epochs(make_run: Callable[..., RunFolder], prepared: PreparedDataset) -> None:
    straight, longer = make_run("straight", "training.epochs=3"), make_run("longer", "training.epochs=1")
    expected = train(straight, prepared, listener=Silence()).results
    train(longer, prepared, listener=Silence())
    extend_run(longer, epochs=3)
    assert longer.manifest()["status"] == "interrupted"
    listener = Silence()
    found = train(longer, prepared, listener=listener).results
    assert listener.epochs == 2
    assert {k: v for k, v in found.items() if "seconds" not in k} == {
        k: v for k, v in expected.items() if "seconds" not in k
    }
    assert longer.config() == straight.config()
    files = [load_file(run.last / "weights.safetensors") for run in (straight, longer)]
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())


def test_no_more_epochs_than_there_are_is_an_error(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", "training.epochs=2")
    train(run, prepared, listener=Silence())
    before = run.config()
    with pytest.raises(ConfigError, match=r"--epochs must be more than the 2 epochs that run \S+ has, got 2"):
        extend_run(run, epochs=2)
    assert (run.config(), run.manifest()["status"]) == (before, "finished")


def test_a_run_that_stopped_early_needs_more_patience(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", *STILL)
    done = train(run, prepared, listener=Silence()).results["epochs"]
    assert done < 9
    with pytest.raises(ConfigError, match=r"has stopped early: 1 epochs .* got 1\. Add --patience 2"):
        extend_run(run, epochs=20)
    extend_run(run, patience=2)
    listener = Silence()
    train(run, prepared, listener=listener)
    assert listener.epochs >= 1


def test_the_epochs_of_a_schedule_stay(make_run: Callable[..., RunFolder]) -> None:
    run = make_run("run", "training.epochs=2", "training.schedule.kind=one-cycle")
    before = run.config()
    with pytest.raises(ConfigError, match=r"--epochs must stay 2: .* got 4\. Train a new run with --epochs 4"):
        extend_run(run, epochs=4)
    assert run.config() == before
    extend_run(run, epochs=2, patience=7)
    assert run.config().training.patience == 7


def test_a_run_that_another_process_trains_stays_as_it_is(make_run: Callable[..., RunFolder]) -> None:
    run = make_run("run", "training.epochs=2")
    with run.locked(), pytest.raises(CheckpointError, match="is being trained by"):
        extend_run(run, epochs=3)
    assert run.config().training.epochs == 2
