"""Facts against counting by hand on a generated data set, and grades on both sides of their bounds."""

import copy
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from athwe_core.analysis.audit.grade import findings
from athwe_core.analysis.audit.measure import PAIRS, _feature_facts, _popularity, audit
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.errors import ConfigError

Make = Callable[..., PreparedDataset]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make_demo(**options: Any) -> PreparedDataset:
        folder = tmp_path_factory.mktemp("prepared")
        chosen = PrepareOptions(demo_users=120, demo_items=100, **options)
        return prepare("demo", data_dir=folder, prepared_dir=folder, options=chosen)

    return make_demo


@pytest.fixture(scope="module")
def data(make: Make) -> PreparedDataset:
    return make()


@pytest.fixture(scope="module")
def facts(data: PreparedDataset) -> dict[str, Any]:
    return audit(data)


def test_time_bins_hold_every_interaction(data: PreparedDataset, facts: dict[str, Any]) -> None:
    assert len(facts["time"]["bin_counts"]) == 30
    assert sum(facts["time"]["bin_counts"]) == len(data.item_ids)
    assert facts["time"]["bin_edges"][0] == facts["time"]["first"] == data.timestamps.min()


def test_users_and_items_by_count(data: PreparedDataset, facts: dict[str, Any]) -> None:
    per_item = Counter(data.item_ids.tolist())
    assert sum(facts["counts"]["users"]["bins"].values()) == data.num_users
    assert facts["counts"]["items"]["bins"]["8-15"] == sum(8 <= count <= 15 for count in per_item.values())
    assert facts["counts"]["items"]["most"] == max(per_item.values())


def test_pairs_by_hand(data: PreparedDataset, facts: dict[str, Any]) -> None:
    repeats = pairs = same = 0
    for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        items, times = data.item_ids[begin:end].tolist(), data.timestamps[begin:end].tolist()
        repeats += len(items) - len(set(items))
        pairs += len(times) - 1
        same += sum(a == b for a, b in pairwise(times))
    assert facts["pairs"]["repeated"] == pytest.approx(repeats / len(data.item_ids))
    assert facts["pairs"]["same_time"] == pytest.approx(same / pairs)


def test_leakage_and_cold_items_by_hand(data: PreparedDataset, facts: dict[str, Any]) -> None:
    training = [t for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True) for t in range(a, b - 2)]
    middle = np.median([data.timestamps[b - 1] for b in data.offsets[1:]])
    assert facts["leakage"]["training_later"] == pytest.approx(np.mean(data.timestamps[training] > middle))
    trained_on = set(data.item_ids[training].tolist())
    targets = data.item_ids[data.offsets[1:] - 1].tolist()
    assert facts["cold"]["test_targets"] == pytest.approx(np.mean([t not in trained_on for t in targets]))


def test_gini_of_equal_counts_is_zero_and_of_one_item_nearly_one(make: Make) -> None:
    data = make()
    even = replace(data, item_ids=(np.arange(len(data.item_ids)) % data.num_items + 1).astype(np.int32))
    assert _popularity(even)["gini"] < 0.2
    one = replace(data, item_ids=np.ones_like(data.item_ids))
    assert _popularity(one)["gini"] == pytest.approx(1 - 1 / data.num_items)


@pytest.mark.parametrize("order", ["file", "item", "random"])
def test_the_effect_of_each_tie_order_is_that_of_preparing_with_it(make: Make, order: str) -> None:
    found = audit(make(tie_order=order))
    for other in ("file", "item"):
        prepared_so = audit(make(tie_order=other))["baselines"]["last-item transition"]["ndcg@10"]
        assert found["tie_orders"][other] == pytest.approx(prepared_so)
    assert found["tie_orders"][order] == found["baselines"]["last-item transition"]["ndcg@10"]


def test_a_version_that_does_not_know_the_file_order_says_so(make: Make) -> None:
    found = audit(replace(make(tie_order="item"), file_rows=None))
    assert found["tie_orders"]["file"] is None
    assert "file" not in next(f["fact"] for f in found["findings"] if f["title"] == "What the tie order does")


def test_shuffling_takes_order_away_and_keeps_targets_and_counts(facts: dict[str, Any]) -> None:
    assert len(facts["shuffle"]["values"]) == 3
    assert facts["shuffle"]["shuffled"] < facts["shuffle"]["ordered"]


def test_features_by_hand(make: Make) -> None:
    data = make()
    table = np.zeros((data.num_item_rows, 4), np.float32)
    table[1:5] = [[3, 4, 0, 0], [3, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
    found = audit(replace(data, text_features=table, image_features=None))["features"]
    assert found["image"] is None
    assert found["text"]["coverage"] == pytest.approx(4 / data.num_items)
    assert found["text"]["duplicates"] == pytest.approx(1 / 4)
    assert (found["text"]["norm_mean"], found["text"]["norm_sd"]) == (5.0, 0.0)
    assert found["text"]["mean_cosine"] == pytest.approx(2 / 12, abs=0.02)  # of 12 ordered pairs two are equal


def test_features_of_a_mapped_table_are_those_of_whole_arrays_in_little_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    table = np.lib.format.open_memmap(tmp_path / "table.npy", mode="w+", dtype=np.float16, shape=(60_001, 128))
    table[1:] = rng.normal(0.2, 1, (60_000, 128))
    table[40_000:40_500] = table[3:503]  # copies in other blocks
    table[50_000:50_010] = 0
    table[7, :2], table[8], table[8, :2] = [0.0, 1], table[7], [-0.0, 1]  # equal as numbers
    vectors = np.asarray(table[1:], np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    present = vectors[norms > 0]
    first, second = np.random.default_rng(9).integers(0, len(present), (2, PAIRS))
    unit = (present / norms[norms > 0, None])[[first[first != second], second[first != second]], :]
    tracemalloc.start()
    found = _feature_facts(table, 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < vectors.nbytes / 2
    assert found == {
        "width": 128,
        "coverage": len(present) / 60_000,
        "duplicates": 1 - len(np.unique(present, axis=0)) / len(present),
        "norm_mean": norms[norms > 0].mean(),
        "norm_sd": norms[norms > 0].std(),
        "mean_cosine": pytest.approx(float((unit[0] * unit[1]).sum(1).mean()), abs=1e-6),
    }


def test_a_global_split_has_no_leakage(make: Make) -> None:
    found = audit(make(split="global-time"))
    assert found["leakage"]["training_later"] == 0
    assert next(f["grade"] for f in found["findings"] if f["title"] == "Time leakage") == "ok"


@pytest.mark.parametrize(
    ("path", "values", "title"),
    [
        (("statistics", "tied_test_share"), (0.0, 0.3, 0.7), "Equal times"),
        (("pairs", "repeated"), (0.0, 0.1, 0.5), "Repeated items"),
        (("leakage", "training_later"), (0.0, 0.1, 0.6), "Time leakage"),
        (("cold", "test_targets"), (0.0, 0.05, 0.3), "Cold items"),
        (("popularity", "gini"), (0.3, 0.75, 0.95), "Popularity"),
        (("features", "text", "duplicates"), (0.0, 0.1, 0.5), "Text duplicates"),
        (("features", "text", "mean_cosine"), (0.1, 0.6, 0.95), "Text scale and spread"),
    ],
)
def test_grades(facts: dict[str, Any], path: tuple[str, ...], values: tuple[float, ...], title: str) -> None:
    for value, grade in zip(values, ("ok", "look", "problem"), strict=True):
        changed = copy.deepcopy(facts)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        found = next(f for f in findings(changed) if f["title"] == title)
        assert found["grade"] == grade
        assert bool(found["advice"]) == (grade != "ok")


def test_shuffles_must_be_positive(data: PreparedDataset) -> None:
    with pytest.raises(ConfigError, match="shuffles must be at least 1, got 0"):
        audit(data, shuffles=0)
