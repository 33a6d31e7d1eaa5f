"""Timed steps on generated data: the data's sizes, what is measured, and padded rows."""

import pytest
import torch

from athwe_core.analysis.benchmark.generated import generate_bench_data
from athwe_core.analysis.benchmark.step_time import bench_generated, bench_prepared, padded_rows, training_batches
from athwe_core.config import Config
from athwe_core.data.packing import pack_histories
from athwe_core.data.prepare import PreparedDataset
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config, replace_in

TINY = ["model.hidden_size=8", "model.inner_size=8", "model.max_length=8", "training.batch_targets=64"]


@pytest.fixture(scope="module")
def config() -> Config:
    return replace_in(build_config("hm4sr"), [*TINY, "training.device=cpu", "training.precision=fp32"])


def test_a_benchmark_has_consistent_numbers(config: Config) -> None:
    data = generate_bench_data(num_users=60, num_items=50, mean_length=6)
    found = bench_generated(data, config, num_items=50, feature_width=4, steps=2)
    times = found["step_seconds"]
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert found["ratio"] == pytest.approx(times["median"] / found["floor_seconds"]["fp32"])
    assert found["targets_per_second"] > 0
    assert found["peak_memory_bytes"] > 1e7
    settings = found["settings"]
    assert (settings["rows"], settings["feature_width"], settings["steps"]) == (51, 4, 2)
    assert (settings["batching"], settings["batch_targets"], settings["precision"]) == ("packed", 64, "float32")
    assert settings["mean_length"] == pytest.approx(len(data.item_ids) / 60)
    assert found.keys() == {
        *("step_seconds", "targets_per_second", "tokens_per_second", "peak_memory_bytes", "floor_seconds", "ratio"),
        *("notes", "settings"),
    }


def test_a_prepared_data_set_is_named(config: Config, prepared: PreparedDataset) -> None:
    found = bench_prepared(prepared, adapt_to_data(config, prepared)[0], steps=1)
    assert found["dataset"] == "demo"
    assert found["settings"]["rows"] == prepared.num_item_rows


def test_batches_are_full_and_go_on_after_the_last_epoch(config: Config) -> None:
    data = generate_bench_data(num_users=60, num_items=50, mean_length=6)
    batches = training_batches(data, config)
    for _ in range(20):
        batch, shards = next(batches)
        assert 0.9 * 64 < batch.num_targets <= 64
        assert shards.num_processes == 1


def test_padded_rows_have_max_length_tokens_each_and_attend_as_before() -> None:
    batch = pack_histories([([1, 2, 3], [5, 6, 9]), ([4], [7])], next_items=[5, 6])
    padded = padded_rows(batch, max_length=5)
    assert padded.num_tokens == 10
    assert padded.grid_tokens.tolist() == [[0, -1, -1, -1, -1], [1, 2, 3, -1, -1]]
    assert padded.token_slots.tolist()[:4] == [0, 5, 6, 7]
    assert padded.prefix_weight.sum() == batch.prefix_weight.sum()
    assert torch.equal(padded.target_index, batch.target_index)
