"""train, evaluate and recommend on a device, one command each; a stopped run goes on to the same bits.

The CPU twins are tests/cli/test_train.py, test_evaluate.py, test_recommend.py and tests/training/test_loop.py.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runner import SMALL, call
from devices import ON_CUDA
from safetensors.torch import load_file

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.models.inputs import adapt_to_data
from athwe_core.runs.find import create_run
from athwe_core.training.loop import train


@pytest.fixture(scope="module", params=ON_CUDA)
def world(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo data and a run `first` that was trained on a device."""
    folder, device = tmp_path_factory.mktemp("world"), request.param
    made = call(folder, "prepare", "--dataset", "demo", "--users", "100", "--items", "100")
    assert made.exit_code == 0, made.output
    options = (*SMALL, "--device", device, "--compile", "off", "--epochs", "1", "--name", "first", "--json")
    done = call(folder, "train", "--dataset", "demo", *options)
    assert done.exit_code == 0, done.output
    (folder / "first.json").write_text(done.stdout)
    return folder


def test_evaluate_gives_the_metrics_of_train(world: Path) -> None:
    done = call(world, "evaluate", "--run", "first", "--json")
    assert done.exit_code == 0, done.output
    trained = json.loads((world / "first.json").read_text())
    assert json.loads(done.stdout)["metrics"] == pytest.approx(trained["test"], abs=1e-6)


def test_recommend_ranks_items_for_every_user(world: Path) -> None:
    to = world / "items.csv"
    done = call(world, "recommend", "--run", "first", "--k", "5", "--to", str(to), "--json")
    assert done.exit_code == 0, done.output
    lines = to.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 5 * 100


class Steps:
    """A listener that counts steps."""

    def __init__(self) -> None:
        self.count = 0

    def epoch_begins(self, epoch: int, **_: Any) -> None:
        pass

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.count += 1

    def epoch_ends(self, record: Any, *, is_best: bool) -> None:
        pass


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("device", ON_CUDA)
def test_a_stopped_run_goes_on_to_the_same_bits(
    device: str, tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]
) -> None:
    overrides = ("batch_targets=100", "epochs=1", "lr=0.003", f"device={device}", "compiler=off")
    settings = ("model.dropout=0.2", *(f"training.{setting}" for setting in overrides))
    config, _ = adapt_to_data(make_config("athwe", *settings), prepared)
    straight, broken = (
        create_run(tmp_path, config, prepared, preset="athwe", name=name, command="test") for name in ("a", "b")
    )
    train(straight, prepared, listener=Steps())
    listener = Steps()
    assert not train(broken, prepared, listener=listener, should_stop=lambda: listener.count >= 2).finished
    assert train(broken, prepared, listener=Steps()).finished
    expected, found = (load_file(run.best / "weights.safetensors") for run in (straight, broken))
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
