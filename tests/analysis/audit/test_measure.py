"""Measures against counting by hand on a generated data set."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from athwe_core.analysis.audit.measure import _popularity, audit, count_bins
from athwe_core.analysis.audit.result import Audit
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
def facts(data: PreparedDataset) -> Audit:
    return audit(data)


def test_time_bins_hold_every_interaction(data: PreparedDataset, facts: Audit) -> None:
    assert len(facts["time"]["bin_counts"]) == 30
    assert sum(facts["time"]["bin_counts"]) == len(data.item_ids)
    assert facts["time"]["bin_edges"][0] == facts["time"]["first"] == data.timestamps.min()


def test_users_and_items_by_count(data: PreparedDataset, facts: Audit) -> None:
    per_item = Counter(data.item_ids.tolist())
    found = facts["counts"]["items"]
    assert sum(facts["counts"]["users"]["bins"].values()) == data.num_users
    assert found["most"] == max(per_item.values())
    for label, count in found["bins"].items():
        first, _, last = label.partition("-")
        assert count == sum(int(first) <= each <= int(last or first) for each in per_item.values())
    assert next(iter(found["bins"])).partition("-")[0] == str(min(per_item.values()))


@pytest.mark.parametrize(
    ("fewest", "most", "starts"),
    [
        (5, 5, [5]),
        (5, 13, [5, 6, 7, 8, 9, 10, 11, 12, 13]),
        (5, 60, [5, 7, 10, 15, 20, 30, 40, 50]),
        (5, 700, [5, 10, 20, 30, 50, 100, 200, 300, 500]),
        (0, 5000, [0, 1, 3, 10, 30, 100, 300, 1000, 3000]),
        (1, 10**12, [10**exponent for exponent in range(9)]),
    ],
)
def test_bins_begin_at_the_fewest_and_then_at_round_numbers(fewest: int, most: int, starts: list[int]) -> None:
    assert count_bins(fewest, most) == starts


def test_pairs_by_hand(data: PreparedDataset, facts: Audit) -> None:
    repeats = pairs = same = 0
    for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        items, times = data.item_ids[begin:end].tolist(), data.timestamps[begin:end].tolist()
        repeats += len(items) - len(set(items))
        pairs += len(times) - 1
        same += sum(a == b for a, b in pairwise(times))
    assert facts["pairs"]["repeated"] == pytest.approx(repeats / len(data.item_ids))
    assert facts["pairs"]["same_time"] == pytest.approx(same / pairs)


def test_leakage_and_cold_items_by_hand(data: PreparedDataset, facts: Audit) -> None:
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
    assert "file" not in next(f["fact"] for f in found["findings"] if f["title"] == "Effect of the tie order")


def test_shuffling_takes_order_away_and_keeps_targets_and_counts(facts: Audit) -> None:
    assert len(facts["shuffle"]["values"]) == 3
    assert facts["shuffle"]["shuffled"] < facts["shuffle"]["ordered"]


def test_a_global_split_has_no_leakage(make: Make) -> None:
    found = audit(make(split="global-time"))
    assert found["leakage"]["training_later"] == 0
    assert next(f["grade"] for f in found["findings"] if f["title"] == "Time leakage") == "ok"


def test_shuffles_must_be_positive(data: PreparedDataset) -> None:
    with pytest.raises(ConfigError, match="--shuffles must be at least 1, got 0"):
        audit(data, shuffles=0)


def test_progress_names_each_measure_in_order(data: PreparedDataset) -> None:
    names: list[str] = []
    audit(data, shuffles=1, progress=names.append)
    assert names == [*("time", "counts", "pairs", "leakage", "cold", "popularity", "tie orders", "shuffle", "features")]


def test_the_result_is_json_with_the_keys_that_readers_know(facts: Audit) -> None:
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts.keys() == Audit.__required_keys__


def test_text_and_image_features_are_measured_apart(data: PreparedDataset) -> None:
    table = np.zeros((data.num_item_rows, 3), np.float32)
    table[1] = 2.0
    found = audit(replace(data, text_features=None, image_features=table), shuffles=1)["features"]
    assert found["text"] is None
    assert found["image"] is not None
    assert found["image"]["coverage"] == 1 / data.num_items
