"""Ranks over divided tables. tests/training/spread_harness.py compares those of two and three processes with those of one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.distributed import ALONE
from athwe_core.errors import AthweError
from athwe_core.evaluation import shard_ranking
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.shard_ranking import rank_over_shards
from athwe_core.models.protocol import Model
from athwe_core.models.registry import replace_in
from athwe_core.training.build import build_setup


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("prepared")
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=PrepareOptions(demo_users=100, demo_items=100))


@pytest.fixture
def model(data: PreparedDataset, make_config: Callable[..., Config]) -> Model:
    """A SASRec with strong terms for items of the history, and three items of equal vectors."""
    config = replace_in(make_config("sasrec"), ["model.repeat=true", "losses.catalogue.kind=sampled"])
    found = build_setup(config, data).model
    with torch.no_grad():
        dict(found.named_parameters())["repeat.by_distance"].fill_(0.1)
        table = dict(found.named_parameters())["tables.id.weight"]
        table[2:5] = table[2]
    return found


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("sample", [None, 7])
def test_one_process_comes_to_the_ranks_of_a_whole_table(
    data: PreparedDataset, model: Model, exclude_seen: bool, sample: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_ranking, "BLOCK_SCORES", 7 * data.num_item_rows)
    seen: list[tuple[int, int]] = []
    options = {"split": "test", "exclude_seen": exclude_seen, "sample": sample, "world": ALONE}
    found = rank_over_shards(model, data, on_progress=lambda done, of: seen.append((done, of)), **options)  # type: ignore[arg-type]
    expected = rank_users(model, data, **options)  # type: ignore[arg-type]
    assert np.abs(found - expected).max() <= 0.5
    assert np.mean(found == expected) > 0.95
    assert seen[-1] == (len(found), len(found))
    assert len(seen) == -(-len(found) // 7)


def test_a_score_that_is_not_a_number_is_an_error(data: PreparedDataset, model: Model) -> None:
    with torch.no_grad():
        dict(model.named_parameters())["tables.id.weight"][5] = torch.nan
    with pytest.raises(AthweError, match=r"scores of \d+ users must not be NaN\. The network has diverged"):
        rank_over_shards(model, data, split="test", world=ALONE)
