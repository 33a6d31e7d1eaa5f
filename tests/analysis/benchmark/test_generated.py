from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.config import Config
from athwe_core.models.registry import build_config, replace_in

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


def test_features_in_a_mapped_file_are_half_precision(config: Config, tmp_path: Path) -> None:
    data = generate_bench_data(num_users=10, num_items=20, mean_length=6)
    build_generated(data, config, num_items=20, feature_width=4, folder=tmp_path)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {"text": 2 * 21 * 4, "image": 2 * 21 * 4}
