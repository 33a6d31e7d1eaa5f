"""Which interactions stay: repeated rows go, then every user and item keeps at least `minimum` (iterative k-core)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Integer

from athwe_core.data.long_arrays import bound, count_numbers, lex_order, row_blocks, rows_by_user
from athwe_core.errors import DataError


def first_occurrences(
    users: Integer[np.ndarray, "I"], items: Integer[np.ndarray, "I"], timestamps: Integer[np.ndarray, "I"]
) -> Bool[np.ndarray, "I"]:
    """Mark the first row in file order of every (user, item, time); users and items are numbers >= 0."""
    is_first = np.ones(len(users), dtype=bool)
    for rows in rows_by_user(users, count_numbers(users, bound(users))):
        ordered = rows[lex_order(items[rows], users[rows])]
        is_same = (np.diff(users[ordered]) == 0) & (np.diff(items[ordered]) == 0)
        few = ordered[np.append(is_same, False) | np.append(False, is_same)]  # times matter only where pairs repeat
        if not len(few):
            continue
        few = few[lex_order(timestamps[few], items[few], users[few])]  # stable: equal rows stay in file order
        is_repeat = np.logical_and.reduce([np.diff(key[few]) == 0 for key in (users, items, timestamps)])
        is_first[few[1:][is_repeat]] = False
    return is_first


def k_core(
    users: Integer[np.ndarray, "I"],
    items: Integer[np.ndarray, "I"],
    *,
    minimum: int,
    among: Bool[np.ndarray, "I"] | None = None,
) -> Bool[np.ndarray, "I"]:
    """Mark the rows of the largest subset in which each user and each item has at least `minimum` rows.

    Args:
        users, items: (I,) numbers >= 0, small enough to count (0..number of users or items).
        minimum: Rows a user and an item must keep, >= 0.
        among: (I,) rows to choose from; None = all.
    Returns:
        (I,) mask, all False when nothing remains. That subset is unique, so filtering again changes nothing.
    """
    is_kept = np.ones(len(users), dtype=bool) if among is None else among.copy()
    of_users, of_items = (count_numbers(numbers, bound(numbers), is_kept) for numbers in (users, items))
    while any(((counts > 0) & (counts < minimum)).any() for counts in (of_users, of_items)):
        users_stay, items_stay = of_users >= minimum, of_items >= minimum
        for block in row_blocks(len(users), max(len(of_users), len(of_items))):
            stays = users_stay[users[block]] & items_stay[items[block]]
            dropped = is_kept[block] & ~stays
            of_users -= np.bincount(users[block][dropped], minlength=len(of_users))
            of_items -= np.bincount(items[block][dropped], minlength=len(of_items))
            is_kept[block] &= stays
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
