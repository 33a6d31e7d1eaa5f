"""Which interactions stay: repeated rows go, then every user and item keeps at least `minimum` (iterative k-core)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from athwe_core.errors import DataError


def first_occurrences(
    users: Int64[np.ndarray, "I"], items: Int64[np.ndarray, "I"], timestamps: Int64[np.ndarray, "I"]
) -> Bool[np.ndarray, "I"]:
    """Mark the first row in file order of every (user, item, time)."""
    order = np.lexsort((timestamps, items, users))  # stable: equal rows stay in file order
    repeats = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (users, items, timestamps):
        repeats &= column[order][1:] == column[order][:-1]
    is_first = np.ones(len(order), dtype=bool)
    is_first[order[1:][repeats]] = False
    return is_first


def k_core(users: Int64[np.ndarray, "I"], items: Int64[np.ndarray, "I"], *, minimum: int) -> Bool[np.ndarray, "I"]:
    """Mark the rows of the largest subset in which each user and each item has at least `minimum` rows.

    Args:
        users, items: (I,) numbers >= 0, small enough to count (0..number of users or items).
        minimum: Rows a user and an item must keep, >= 0.
    Returns:
        (I,) mask, all False when nothing remains. That subset is unique, so filtering again changes nothing.
    """
    keep = np.ones(len(users), dtype=bool)
    while keep.any():
        user_counts = np.bincount(users[keep])
        item_counts = np.bincount(items[keep])
        kept_rows = np.flatnonzero(keep)
        has_enough = (user_counts[users[kept_rows]] >= minimum) & (item_counts[items[kept_rows]] >= minimum)
        if has_enough.all():
            break
        keep[kept_rows[~has_enough]] = False
    return keep


def refuse_too_few(num_users: int, num_items: int, *, name: str, minimum: int) -> None:
    """Raise DataError when fewer than two users or two items are left: there is nothing to rank."""
    if num_users < 2 or num_items < 2:
        raise DataError(
            f"data set {name!r}",
            f"must keep at least 2 users and 2 items with {minimum} interactions each",
            f"{num_users} users and {num_items} items",
            "Lower min_interactions or bring more data",
        )
