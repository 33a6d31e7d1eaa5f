"""Metrics of groups of users: by history length, by popularity of the target, and by day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import DataError
from athwe_core.evaluation.baselines import training_popularity
from athwe_core.evaluation.metrics import mean_metrics

if TYPE_CHECKING:
    import polars as pl

SECONDS_PER_DAY = 86_400

Buckets = dict[str, int]
"""Label of each bucket and its smallest value, ascending."""

GROUPINGS: dict[str, Buckets] = {
    "history_length": {"1-4": 1, "5-9": 5, "10-19": 10, "20-49": 20, "50+": 50},
    "target_popularity": {"0 (cold)": 0, "1-4": 1, "5-9": 5, "10-49": 10, "50+": 50},
    "same_day": {"later": 0, "same day": 1},
}
"""Buckets for each column of the frame."""


def per_user_frame(data: PreparedDataset, ranks: Float64[np.ndarray, "E"], *, split: str) -> pl.DataFrame:
    """The rank of each evaluated user's held-out item with facts about both; `per_user.parquet` of a run holds this frame.

    Args:
        data: a prepared data set.
        ranks: (E,) rank of the held-out item of each of `data.split.users(split)`.
        split: `validation` or `test`.
    Returns: one row for each user, in the order of `ranks`, with the columns
        user_id, target_item_id: raw ids, str.    split: str.    rank: float64.
        history_length: int64, number of input items, including those before the latest `model.max_length`.
        target_popularity: int64, occurrences of the target in the training split.
        same_day: bool, whether the target and the last input item have the same UTC day. Where their times are equal, the
            tie order decided which of them is the target.
    Raises:
        DataError: The number of ranks is not the number of evaluated users.
        ConfigError: `split` is unknown.
    """
    import polars as pl  # noqa: PLC0415  (metrics and training do without it)

    users = data.split.users(split)
    if len(ranks) != len(users):
        raise DataError("ranks", f"must be one for each of {len(users)} users", len(ranks))
    rows = data.split.held_out(split)[users]
    targets = data.item_ids[rows]
    days = data.timestamps // SECONDS_PER_DAY
    return pl.DataFrame(
        {
            "user_id": [data.user_tokens[user] for user in users],
            "split": [split] * len(users),
            "target_item_id": [data.item_tokens[target] for target in targets],
            "rank": np.asarray(ranks, np.float64),
            "history_length": rows - data.split.start[users],
            "target_popularity": training_popularity(data)[targets],
            "same_day": days[rows] == days[rows - 1],
        }
    )


def group_metrics(frame: pl.DataFrame, ks: Sequence[int]) -> dict[str, dict[str, dict[str, int | float]]]:
    """Metrics of the users in each bucket; each user is in one bucket of each grouping.

    Args:
        frame: a frame of `per_user_frame`, of one split.
        ks: cut-offs, each >= 1.
    Returns: for each grouping (`history_length`, `target_popularity`, `same_day`) and each label of it, the number of
        `users` and their `mean_metrics`. Labels are in the order of their buckets; empty buckets are left out.
    """
    ranks = frame["rank"].to_numpy()
    result: dict[str, dict[str, dict[str, int | float]]] = {}
    for column, buckets in GROUPINGS.items():
        labels = _labels(frame[column].to_numpy().astype(np.int64), buckets)
        result[column] = {
            label: {"users": int((labels == index).sum()), **mean_metrics(ranks[labels == index], ks)}
            for index, label in enumerate(buckets)
            if (labels == index).any()
        }
    return result


def _labels(values: NDArray[np.int64], buckets: Buckets) -> NDArray[np.int64]:
    """Index of the bucket of each value; no value is below the first bucket."""
    return np.searchsorted(list(buckets.values()), values, side="right") - 1
