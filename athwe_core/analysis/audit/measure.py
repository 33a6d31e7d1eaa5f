"""Measures of a prepared data set that decide what a result on it means, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Int32

from athwe_core.analysis.audit.features import feature_facts
from athwe_core.analysis.audit.grade import findings
from athwe_core.analysis.audit.result import (
    Audit,
    ColdFacts,
    CountFacts,
    FeatureFacts,
    LeakageFacts,
    Measures,
    PairFacts,
    PopularityFacts,
    ShuffleFacts,
    TimeFacts,
)
from athwe_core.analysis.evaluate_run import baseline_metrics
from athwe_core.analysis.figures.plots import time_bins
from athwe_core.data.split import order_by_time
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.evaluation.baselines import training_popularity, transition_ranks
from athwe_core.evaluation.groups import SECONDS_PER_DAY
from athwe_core.evaluation.metrics import mean_metrics

KS = (5, 10, 20)
MOST_BINS = 9
"""Of the counts of interactions."""
T = TypeVar("T")


def audit(
    data: PreparedDataset, *, seed: int = 0, shuffles: int = 3, progress: Callable[[str], None] = lambda _: None
) -> Audit:
    """Measure a prepared data set and grade what was found.

    Args:
        data: the prepared version.
        seed: of random tie orders, shuffles and pairs of feature rows.
        shuffles: random orders that the shuffle test averages over, >= 1.
        progress: called with the name of each measure before it begins.
    Returns: the measures and the findings.
    Raises:
        ConfigError: `shuffles` is below 1.
    """
    if shuffles < 1:
        raise ConfigError("--shuffles", "must be at least 1", shuffles)

    def measured(name: str, measure: Callable[[], T]) -> T:
        progress(name)
        return measure()

    baselines = baseline_metrics(data, split="test", exclude_seen=False, ks=KS)
    ordered = baselines["last-item transition"]["ndcg@10"]
    found = Measures(
        dataset=data.name,
        data_version=data.version,
        split_rule=data.split_rule,
        tie_order=data.statistics["tie_order"],
        statistics=data.statistics,
        options=data.manifest["options"],
        baselines=baselines,
        time=measured("time", lambda: _time(data)),
        counts=measured("counts", lambda: _counts(data)),
        pairs=measured("pairs", lambda: _pairs(data)),
        leakage=measured("leakage", lambda: _leakage(data)),
        cold=measured("cold", lambda: _cold(data)),
        popularity=measured("popularity", lambda: _popularity(data)),
        tie_orders=measured("tie orders", lambda: _tie_orders(data, ordered, seed)),
        shuffle=measured("shuffle", lambda: _shuffle(data, ordered, seed, shuffles)),
        features=measured("features", lambda: _features(data, seed)),
    )
    return Audit(**found, findings=findings(found))


def _time(data: PreparedDataset) -> TimeFacts:
    """Interactions in bins of equal width between the first and the last."""
    edges, counts = time_bins(np.asarray(data.timestamps))
    return {
        "first": int(data.timestamps.min()),
        "last": int(data.timestamps.max()),
        "bin_edges": edges.tolist(),
        "bin_counts": counts.tolist(),
        "distinct_days": len(np.unique(data.timestamps // SECONDS_PER_DAY)),
        "whole_days_share": float(np.mean(data.timestamps % SECONDS_PER_DAY == 0)),
    }


def _counts(data: PreparedDataset) -> dict[str, CountFacts]:
    """How many users and items have how many interactions."""
    per_item = np.bincount(data.item_ids, minlength=data.num_item_rows)[1:]
    result: dict[str, CountFacts] = {}
    for name, values in (("users", np.diff(data.offsets)), ("items", per_item)):
        starts = count_bins(int(values.min()), int(values.max()))
        ends = [*(start - 1 for start in starts[1:]), int(values.max())]
        counts = np.histogram(values, bins=[*starts, ends[-1] + 1])[0]
        labels = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
        result[name] = {
            "bins": {label: int(count) for label, count in zip(labels, counts, strict=True)},
            "quartiles": [float(q) for q in np.percentile(values, [25, 50, 75])],
            "most": int(values.max()),
        }
    return result


def count_bins(fewest: int, most: int) -> list[int]:
    """Where bins of counts begin: at the fewest, then at round numbers, about as many bins for few counts as for many.

    Args:
        fewest, most: of the counts, 0 <= fewest <= most.
    Returns: at most `MOST_BINS` numbers, increasing; the last bin ends with the most.
    """
    if most - fewest < MOST_BINS:
        return list(range(fewest, most + 1))
    powers = [10**exponent for exponent in range(len(str(most)))]
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        round_numbers = sorted({int(factor * power) for power in powers for factor in factors})
        starts = [fewest, *(number for number in round_numbers if fewest < number <= most)]
        if len(starts) <= MOST_BINS:
            break
    return starts[:MOST_BINS]


def _pairs(data: PreparedDataset) -> PairFacts:
    """Shares of repeated items, and of successive interactions at one time and on one day."""
    users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    distinct = len(np.unique(users * np.int64(data.num_item_rows) + data.item_ids))
    follows = np.diff(users) == 0
    times, days = np.asarray(data.timestamps), data.timestamps // SECONDS_PER_DAY
    rows = data.split.test[data.split.users("test")]
    return {
        "repeated": 1 - distinct / len(users),
        "same_time": float(np.mean((np.diff(times) == 0)[follows])),
        "same_day": float(np.mean((np.diff(days) == 0)[follows])),
        "test_same_day": float(np.mean(days[rows] == days[rows - 1])),
    }


def _leakage(data: PreparedDataset) -> LeakageFacts:
    """How much of training lies after the median test target: a model that saw it knows the future."""
    targets = data.split.test[data.split.users("test")]
    middle = np.median(data.timestamps[targets])
    is_training = data.split.is_training(len(data.item_ids))
    first_seen = np.full(data.num_item_rows, np.iinfo(np.int64).max)
    np.minimum.at(first_seen, data.item_ids, data.timestamps)
    return {
        "median_test_time": int(middle),
        "training_later": float(np.mean(data.timestamps[is_training] > middle)),
        "items_first_seen_later": float(np.mean(first_seen[1:] > middle)),
    }


def _cold(data: PreparedDataset) -> ColdFacts:
    """Test targets and items that training does not have."""
    popularity = training_popularity(data)
    targets = data.item_ids[data.split.test[data.split.users("test")]]
    return {
        "test_targets": float(np.mean(popularity[targets] == 0)),
        "items": float(np.mean(popularity[1:] == 0)),
        "test_targets_below_5": float(np.mean(popularity[targets] < 5)),
    }


def _popularity(data: PreparedDataset) -> PopularityFacts:
    """Concentration of training interactions on few items."""
    counts = np.sort(training_popularity(data)[1:])
    n, total = len(counts), counts.sum()
    gini = float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * total))
    top_1, top_10 = (float(counts[-max(n * percent // 100, 1) :].sum() / total) for percent in (1, 10))
    return {"gini": gini, "top_1_percent": top_1, "top_10_percent": top_10}


def _tie_orders(data: PreparedDataset, ordered: float, seed: int) -> dict[str, float | None]:
    """NDCG@10 of the last-item-transition baseline with equal times in each order; None where the order is not known."""
    result: dict[str, float | None] = {}
    for order in ("file", "item", "random"):
        if order == data.statistics["tie_order"]:
            result[order] = ordered
            continue
        reordered = _in_order(data, order, seed)
        result[order] = None if reordered is None else _transition_ndcg(reordered)
    return result


def _in_order(data: PreparedDataset, tie_order: str, seed: int) -> PreparedDataset | None:
    """The data set with equal times in another order; None where the file's order was not stored."""
    users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    items, times = np.asarray(data.item_ids, np.int64), np.asarray(data.timestamps)
    if tie_order == "file":
        if data.file_rows is None:
            return None
        rows = np.lexsort((data.file_rows, times, users))
    else:
        rows = order_by_time(users, data.item_tokens, items, times, tie_order=tie_order, seed=seed)  # type: ignore[arg-type]
    return replace(data, item_ids=data.item_ids[rows])


def _transition_ndcg(data: PreparedDataset) -> float:
    return mean_metrics(transition_ranks(data, split="test", exclude_seen=False), (10,))["ndcg@10"]


def _shuffle(data: PreparedDataset, ordered: float, seed: int, shuffles: int) -> ShuffleFacts:
    """The transition baseline on histories in random order, with the targets kept."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    keeps_place = np.zeros(len(users), bool)
    keeps_place[data.split.test[data.split.users("test")]] = True
    values = []
    for _ in range(shuffles):
        movable = np.flatnonzero(~keeps_place)
        item_ids: Int32[np.ndarray, "I"] = np.array(data.item_ids)
        shuffled = movable[np.lexsort((rng.random(len(movable)), users[movable]))]
        item_ids[movable] = data.item_ids[shuffled]
        values.append(_transition_ndcg(replace(data, item_ids=item_ids)))
    return {"ordered": ordered, "shuffled": float(np.mean(values)), "values": values}


def _features(data: PreparedDataset, seed: int) -> dict[str, FeatureFacts | None]:
    return {"text": feature_facts(data.text_features, seed), "image": feature_facts(data.image_features, seed)}
