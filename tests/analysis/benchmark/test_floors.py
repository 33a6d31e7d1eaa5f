from types import SimpleNamespace

import pytest
import torch

from athwe_core.analysis.benchmark.floors import (
    catalogue_floor_seconds,
    memory_floor_seconds,
    peak_memory_bytes,
    state_bytes,
    synchronize,
)
from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.build import TrainingSetup

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setup() -> TrainingSetup:
    sizes = ["model.hidden_size=8", "model.inner_size=8", "training.device=cpu", "training.precision=fp32"]
    data = generate_bench_data(num_users=10, num_items=20, mean_length=6)
    return build_generated(data, replace_in(build_config("hm4sr"), sizes), num_items=20, feature_width=4)


def test_the_state_is_weights_with_two_moments_and_buffers() -> None:
    model = torch.nn.Linear(3, 5)
    model.bias.requires_grad_(False)
    model.register_buffer("labels", torch.zeros(7, dtype=torch.int64))
    assert state_bytes(SimpleNamespace(model=model)) == 4 * (3 * 15 + 5) + 8 * 7


def test_more_bytes_take_longer_to_move(setup: TrainingSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    small = memory_floor_seconds(setup)
    monkeypatch.setattr(setup.model, "parameters", lambda: iter([torch.nn.Parameter(torch.zeros(2**20))]))
    assert 0 < small < memory_floor_seconds(setup)
    synchronize(CPU)


def test_the_floor_grows_with_the_catalogue() -> None:
    small, large = (catalogue_floor_seconds(64, size, 32, torch.float32, CPU) for size in (100, 20_000))
    assert 0 < small < large


def test_memory_of_the_process_is_more_than_python_alone_takes() -> None:
    assert peak_memory_bytes(CPU) > 1e7
