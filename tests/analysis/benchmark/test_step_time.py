"""Timed steps on generated data: the data's sizes, what is measured, and padded rows."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from athwe_core.analysis.benchmark.step_time import (
    bench_generated,
    bench_prepared,
    build_generated,
    catalogue_floor_seconds,
    generate_bench_data,
    padded_rows,
    peak_memory_bytes,
    training_batches,
)
from athwe_core.config import Config
from athwe_core.data.packing import pack_histories
from athwe_core.data.prepare import PreparedDataset
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config, replace_in

CPU = torch.device("cpu")
TINY = ["model.hidden_size=8", "model.inner_size=8", "model.max_length=8", "training.batch_targets=64"]


@pytest.fixture(scope="module")
def config() -> Config:
    return replace_in(build_config("hm4sr"), [*TINY, "training.device=cpu", "training.precision=fp32"])


def test_generated_users_have_five_items_or_more_and_times_that_do_not_decrease() -> None:
    data = generate_bench_data(num_users=500, num_items=40, mean_length=8.9)
    lengths = np.diff(data.offsets)
    assert len(lengths) == 500
    assert lengths.min() >= 5
    assert lengths.mean() == pytest.approx(8.9, rel=0.1)
    assert data.item_ids.min() >= 1
    assert data.item_ids.max() <= 40
    counts = np.sort(np.bincount(data.item_ids, minlength=41)[1:])
    assert counts[-4:].sum() > counts[:20].sum(), "a few items are far more popular"
    for first, end in pairwise(data.offsets):
        assert (np.diff(data.timestamps[first:end]) >= 0).all()


def test_equal_seeds_generate_equal_data() -> None:
    one, same, other = (generate_bench_data(num_users=20, num_items=9, mean_length=6, seed=seed) for seed in (1, 1, 2))
    assert (one.item_ids == same.item_ids).all()
    assert len(one.item_ids) != len(other.item_ids) or (one.item_ids != other.item_ids).any()


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


def test_features_in_a_mapped_file_are_half_precision(config: Config, tmp_path: Path) -> None:
    data = generate_bench_data(num_users=10, num_items=20, mean_length=6)
    build_generated(data, config, num_items=20, feature_width=4, folder=tmp_path)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {"text": 2 * 21 * 4, "image": 2 * 21 * 4}


def test_padded_rows_have_max_length_tokens_each_and_attend_as_before() -> None:
    batch = pack_histories([([1, 2, 3], [5, 6, 9]), ([4], [7])], next_items=[5, 6])
    padded = padded_rows(batch, max_length=5)
    assert padded.num_tokens == 10
    assert padded.grid_tokens.tolist() == [[0, -1, -1, -1, -1], [1, 2, 3, -1, -1]]
    assert padded.token_slots.tolist()[:4] == [0, 5, 6, 7]
    assert padded.prefix_weight.sum() == batch.prefix_weight.sum()
    assert torch.equal(padded.target_index, batch.target_index)


def test_the_floor_grows_with_the_catalogue() -> None:
    small, large = (catalogue_floor_seconds(64, size, 32, torch.float32, CPU) for size in (100, 20_000))
    assert 0 < small < large


def test_memory_of_the_process_is_more_than_python_alone_takes() -> None:
    assert peak_memory_bytes(CPU) > 1e7
