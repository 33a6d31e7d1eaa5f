"""Order in time and leave-one-out: per user the last item is test, the one before validation, the rest training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Int64

from athwe_core.data.options import LEAST_INTERACTIONS, TieOrder
from athwe_core.errors import ConfigError


def order_by_time(
    users: Int64[np.ndarray, "I"],
    item_tokens: list[str],
    items: Int64[np.ndarray, "I"],
    timestamps: Int64[np.ndarray, "I"],
    *,
    tie_order: TieOrder,
    seed: int = 0,
) -> Int64[np.ndarray, "I"]:
    """Return the row order: by user, then time, then the tie order.

    Args:
        users: (I,) user numbers; items: (I,) item numbers, 0-based into `item_tokens`; timestamps: (I,) seconds.
        item_tokens: Raw item ids by number.
        tie_order: Equal times of one user stay in `file` order, go by raw `item` id compared as a string,
            or in a `random` order drawn from `seed`.
    """
    if tie_order == "file":
        return np.lexsort((timestamps, users))  # stable
    if tie_order == "item":
        rank = np.empty(len(item_tokens), dtype=np.int64)
        rank[sorted(range(len(item_tokens)), key=item_tokens.__getitem__)] = np.arange(len(item_tokens))
        return np.lexsort((rank[items], timestamps, users))
    if tie_order == "random":
        draw = np.random.default_rng(seed).permutation(len(users))
        return np.lexsort((draw, timestamps, users))
    raise ConfigError("tie_order", f"must be one of {', '.join(get_args(TieOrder))}", tie_order)


def user_offsets(users: Int64[np.ndarray, "I"], num_users: int) -> Int64[np.ndarray, "U_plus_1"]:
    """CSR offsets: the rows of user u are `offsets[u]:offsets[u + 1]` once ordered by user."""
    return np.concatenate([[0], np.cumsum(np.bincount(users, minlength=num_users))]).astype(np.int64)


@dataclass(frozen=True)
class LeaveOneOut:
    """Rows of each of U users: training is `start[u]:validation[u]`, then the validation row, then the test row."""

    start: Int64[np.ndarray, "U"]
    validation: Int64[np.ndarray, "U"]
    test: Int64[np.ndarray, "U"]


def leave_one_out(offsets: Int64[np.ndarray, "U_plus_1"]) -> LeaveOneOut:
    """Split CSR `offsets` over time-ordered rows: the last row is test, the one before validation, the rest training.

    Raises:
        ConfigError: A user has fewer than 3 interactions.
    """
    lengths = np.diff(offsets)
    if len(lengths) and lengths.min() < LEAST_INTERACTIONS:
        rule = f"must be >= {LEAST_INTERACTIONS}, so that each user has a training, a validation and a test item"
        raise ConfigError("min_interactions", rule, int(lengths.min()))
    return LeaveOneOut(start=offsets[:-1], validation=offsets[1:] - 2, test=offsets[1:] - 1)


def tied_test_share(offsets: Int64[np.ndarray, "U_plus_1"], timestamps: Int64[np.ndarray, "I"]) -> float:
    """Share of users, 0..1, whose test item has the time of the item before: there the tie order decides."""
    split = leave_one_out(offsets)
    return float(np.mean(timestamps[split.test] == timestamps[split.validation]))
