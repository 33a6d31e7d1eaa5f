"""A step on paper: its kernels are counted without a device, and its products and bytes are what they must be."""

from typing import Any

import pytest
from test_script import script

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.analysis.benchmark.step_time import training_batches
from athwe_core.data.packing import FIXED_PADDING
from athwe_core.models.registry import build_config, replace_in


@pytest.fixture(scope="module")
def profiles() -> list[dict[str, Any]]:
    """Of two sizes of the catalogue."""
    paper = script("paper_profile")
    sizes = ("model.hidden_size=16", "model.max_length=16", "training.batch_targets=128")
    config = replace_in(build_config("sasrec"), [*sizes, "training.device=cpu", "training.precision=bf16"])
    found = []
    for items in (500, 1000):
        data = generate_bench_data(num_users=60, num_items=items, mean_length=9)
        setup = build_generated(data, config, num_items=items, feature_width=4)
        batch, _ = next(training_batches(data, config, padding=FIXED_PADDING))
        found.append(paper.profile(setup, batch, config))
    return found


def test_a_step_starts_as_many_kernels_at_every_size(profiles: list[dict[str, Any]]) -> None:
    small, large = profiles
    assert small["kernels"] == large["kernels"]
    assert 50 < small["kernels"] < 400
    assert small["by_name"]["fused attention"] == 2  # layers
    assert small["by_name"]["residual kernel (Triton)"] == 1


def test_operations_grow_by_the_three_products_of_the_catalogue(profiles: list[dict[str, Any]]) -> None:
    small, large = profiles
    rows = 1024 - 512  # of 501 and 1,001 items, padded to multiples of 64
    grown = 1e12 * (large["tera_operations"] - small["tera_operations"])
    assert grown == pytest.approx(3 * 2 * 128 * rows * 16)


def test_times_are_bounds(profiles: list[dict[str, Any]]) -> None:
    for found in profiles:
        assert found["peak_bytes_above_state"] > 128 * 512 * 2
        for times in found["milliseconds"].values():
            assert times["without launches"] <= times["as a graph"]
            assert times["as a graph"] >= 1e3 * 2e-6 * found["kernels"]
