"""Which interactions stay: repeated rows go, then every user and item keeps at least `minimum` (iterative k-core)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Integer

from athwe_core.errors import DataError


def first_occurrences(
    users: Integer[np.ndarray, "I"], items: Integer[np.ndarray, "I"], timestamps: Integer[np.ndarray, "I"]
) -> Bool[np.ndarray, "I"]:
    """Mark the first row in file order of every (user, item, time); users and items are numbers >= 0."""
    is_first = np.ones(len(users), dtype=bool)
    if not len(users):
        return is_first
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    order = np.argsort(pairs, kind="stable")
    is_same = np.diff(pairs[order]) == 0
    rows = order[np.append(is_same, False) | np.append(False, is_same)]  # few: times matter only where pairs repeat
    rows = rows[np.lexsort((timestamps[rows], pairs[rows]))]  # stable: equal rows stay in file order
    is_repeat = (np.diff(pairs[rows]) == 0) & (np.diff(timestamps[rows]) == 0)
    is_first[rows[1:][is_repeat]] = False
    return is_first


def k_core(users: Integer[np.ndarray, "I"], items: Integer[np.ndarray, "I"], *, minimum: int) -> Bool[np.ndarray, "I"]:
    """Mark the rows of the largest subset in which each user and each item has at least `minimum` rows.

    Args:
        users, items: (I,) numbers >= 0, small enough to count (0..number of users or items).
        minimum: Rows a user and an item must keep, >= 0.
    Returns:
        (I,) mask, all False when nothing remains. That subset is unique, so filtering again changes nothing.
    """
    kept = np.arange(len(users))
    while len(kept):
        of_users, of_items = users[kept], items[kept]
        has_enough = (np.bincount(of_users) >= minimum)[of_users] & (np.bincount(of_items) >= minimum)[of_items]
        if has_enough.all():
            break
        kept = kept[has_enough]
    is_kept = np.zeros(len(users), dtype=bool)
    is_kept[kept] = True
    return is_kept


def refuse_too_few(num_users: int, num_items: int, *, name: str, minimum: int) -> None:
    """Raise DataError when fewer than two users or two items are left: there is nothing to rank."""
    if num_users < 2 or num_items < 2:
        raise DataError(
            f"data set {name!r}",
            f"must keep at least 2 users and 2 items with {minimum} interactions each",
            f"{num_users} users and {num_items} items",
            "Lower --min-interactions or bring more data",
        )
