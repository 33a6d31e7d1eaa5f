"""Facts about a prepared data set that decide what a result on it means, measured before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32
from numpy.typing import NDArray

from athwe_core.analysis.audit.grade import findings
from athwe_core.analysis.evaluate_run import baseline_metrics
from athwe_core.analysis.figures.plots import time_bins
from athwe_core.data.split import order_by_time
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.evaluation.baselines import training_popularity, transition_ranks
from athwe_core.evaluation.groups import SECONDS_PER_DAY
from athwe_core.evaluation.metrics import mean_metrics

PAIRS = 20_000
"""Random pairs of feature rows whose cosine is averaged."""
ROWS_A_BLOCK = 4096
"""Feature rows that are in memory at a time."""
DIGEST_BYTES = 16
KS = (5, 10, 20)


def audit(
    data: PreparedDataset, *, seed: int = 0, shuffles: int = 3, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Every fact and finding of a prepared data set.

    Args:
        seed: of random tie orders, shuffles and pairs of feature rows.
        shuffles: orders the shuffle test averages over, >= 1.
        progress: called with what is measured next.
    Returns: `statistics` (table 2), `time` (figure 7), `counts`, `pairs`, `tie_orders`, `leakage`, `cold`, `popularity`,
        `baselines`, `shuffle`, `features`, and `findings`: grade (ok, look, problem), title, fact, advice.
    Raises:
        ConfigError: shuffles < 1.
    """
    if shuffles < 1:
        raise ConfigError("shuffles", "must be at least 1", shuffles)
    baselines = baseline_metrics(data, split="test", exclude_seen=False, ks=KS)
    ordered = baselines["last-item transition"]["ndcg@10"]
    measures: dict[str, Callable[[], dict[str, Any] | None]] = {
        "time": lambda: _time(data),
        "counts": lambda: _counts(data),
        "pairs": lambda: _pairs(data),
        "leakage": lambda: _leakage(data),
        "cold": lambda: _cold(data),
        "popularity": lambda: _popularity(data),
        "tie_orders": lambda: _tie_orders(data, ordered, seed),
        "shuffle": lambda: _shuffle(data, ordered, seed, shuffles),
        "features": lambda: {
            "text": _feature_facts(data.text_features, seed),
            "image": _feature_facts(data.image_features, seed),
        },
    }
    facts: dict[str, Any] = {
        "dataset": data.name,
        "data_version": data.version,
        "split_rule": data.split_rule,
        "tie_order": data.statistics["tie_order"],
        "statistics": data.statistics,
        "baselines": baselines,
    }
    for name, measure in measures.items():
        progress(name.replace("_", " "))
        facts[name] = measure()
    return facts | {"findings": findings(facts)}


def _time(data: PreparedDataset) -> dict[str, Any]:
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


def _counts(data: PreparedDataset) -> dict[str, Any]:
    """How many users and items have how many interactions, in bins that double."""
    per_item = np.bincount(data.item_ids, minlength=data.num_item_rows)[1:]
    result = {}
    for name, values in (("users", np.diff(data.offsets)), ("items", per_item)):
        top = int(np.ceil(np.log2(values.max() + 1)))
        edges = 2 ** np.arange(top + 1)
        counts = np.histogram(values, bins=[*edges[:-1], edges[-1] + 1])[0]
        labels = [f"{a}-{b - 1}" if b - a > 1 else f"{a}" for a, b in pairwise(edges)]
        quartiles = np.percentile(values, [25, 50, 75])
        result[name] = {
            "bins": {label: int(count) for label, count in zip(labels, counts, strict=True) if count},
            "quartiles": [float(q) for q in quartiles],
            "most": int(values.max()),
        }
    return result


def _pairs(data: PreparedDataset) -> dict[str, Any]:
    """Shares of interactions that repeat an item of the user, and of neighbours at one time and on one day."""
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


def _leakage(data: PreparedDataset) -> dict[str, Any]:
    """How much of training lies after the middle of what is asked: a model that saw it knows the future."""
    asked = data.split.test[data.split.users("test")]
    middle = np.median(data.timestamps[asked])
    is_training = data.split.is_training(len(data.item_ids))
    first_seen = np.full(data.num_item_rows, np.iinfo(np.int64).max)
    np.minimum.at(first_seen, data.item_ids, data.timestamps)
    return {
        "median_test_time": int(middle),
        "training_later": float(np.mean(data.timestamps[is_training] > middle)),
        "items_first_seen_later": float(np.mean(first_seen[1:] > middle)),
    }


def _cold(data: PreparedDataset) -> dict[str, Any]:
    """Items that are asked for and were never trained on."""
    popularity = training_popularity(data)
    targets = data.item_ids[data.split.test[data.split.users("test")]]
    return {
        "test_targets": float(np.mean(popularity[targets] == 0)),
        "items": float(np.mean(popularity[1:] == 0)),
        "test_targets_below_5": float(np.mean(popularity[targets] < 5)),
    }


def _popularity(data: PreparedDataset) -> dict[str, Any]:
    """Concentration of training interactions on few items."""
    counts = np.sort(training_popularity(data)[1:])
    n, total = len(counts), counts.sum()
    gini = float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * total))
    tops = {f"top_{percent}_percent": float(counts[-max(n * percent // 100, 1) :].sum() / total) for percent in (1, 10)}
    return {"gini": gini, **tops}


def _tie_orders(data: PreparedDataset, ordered: float, seed: int) -> dict[str, Any]:
    """NDCG@10 of the last-item-transition baseline with a user's equal times in each order; None where it is not known."""
    result: dict[str, Any] = {}
    for order in ("file", "item", "random"):
        if order == data.statistics["tie_order"]:
            result[order] = ordered
            continue
        reordered = _in_order(data, order, seed)
        result[order] = None if reordered is None else _transition_ndcg(reordered)
    return result


def _in_order(data: PreparedDataset, tie_order: str, seed: int) -> PreparedDataset | None:
    """The data set with equal times in another order; None where it does not know the file's."""
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


def _shuffle(data: PreparedDataset, ordered: float, seed: int, shuffles: int) -> dict[str, Any]:
    """The transition baseline on histories in random order, targets kept: what is left does not need the order."""
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


def _feature_facts(table: Float[np.ndarray, "V F"] | None, seed: int) -> dict[str, Any] | None:
    """Coverage, duplicates, scale and spread of the vectors of one modality; a mapped table is read block by block."""
    if table is None:
        return None
    num_items, width = len(table) - 1, table.shape[1]
    digests, norms = _row_digests_and_norms(table)
    present = np.flatnonzero(norms > 0)
    facts: dict[str, Any] = {"width": width, "coverage": len(present) / num_items}
    if not len(present):
        return facts | {"duplicates": 0.0, "norm_mean": 0.0, "norm_sd": 0.0, "mean_cosine": 0.0}
    lengths = norms[present]
    cosines = _pair_cosines(table, norms, present, seed)
    return facts | {
        "duplicates": 1 - len(np.unique(digests[present])) / len(present),
        "norm_mean": float(lengths.mean()),
        "norm_sd": float(lengths.std()),
        "mean_cosine": float(cosines.mean()) if len(cosines) else 1.0,
    }


def _row_digests_and_norms(
    table: Float[np.ndarray, "V F"],
) -> tuple[NDArray[np.void], Float32[np.ndarray, "V"]]:
    """16 bytes for each row, equal for equal rows, and its norm; row 0, the padding, has norm 0."""
    digests = np.zeros(len(table), np.dtype((np.void, DIGEST_BYTES)))
    norms = np.zeros(len(table), np.float32)
    for begin in range(1, len(table), ROWS_A_BLOCK):
        block = np.asarray(table[begin : begin + ROWS_A_BLOCK], np.float32) + 0.0  # -0 equals 0
        norms[begin : begin + len(block)] = np.linalg.norm(block, axis=1)
        found = [hashlib.blake2b(row.tobytes(), digest_size=DIGEST_BYTES).digest() for row in block]
        digests[begin : begin + len(block)] = np.frombuffer(b"".join(found), digests.dtype)
    return digests, norms


def _pair_cosines(
    table: Float[np.ndarray, "V F"], norms: Float32[np.ndarray, "V"], present: NDArray[np.int64], seed: int
) -> Float32[np.ndarray, "P"]:
    """Cosines of `PAIRS` random pairs of present rows, without the pairs of a row with itself."""
    first, second = present[np.random.default_rng(seed).integers(0, len(present), (2, PAIRS))]
    first, second = first[first != second], second[first != second]
    cosines = np.zeros(len(first), np.float32)
    for begin in range(0, len(first), ROWS_A_BLOCK):
        block = slice(begin, begin + ROWS_A_BLOCK)
        left, right = (
            np.asarray(table[rows[block]], np.float32) / norms[rows[block], None] for rows in (first, second)
        )
        cosines[block] = np.einsum("pf,pf->p", left, right)
    return cosines
