"""Two baselines without training, most popular items and item-to-item transitions, as ranks of the held-out items.

Both count the training split only, for validation and for test, as a model that was trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from athwe_core.data.rows import batch_boundaries, items_before
from athwe_core.data.store.dataset import PreparedDataset

BLOCK_PAIRS = 2**22
"""(user, item) pairs processed at a time: about 100 MB."""


def popularity_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item by popularity.

        score(v) = number of times v occurs in the training split

    Args:
        data: a prepared data set.
        split: `validation` or `test`, the held-out item that is ranked. The scores are the same for both.
        exclude_seen: leave the items of the user's input out of the ranking, except the target.
    Returns: (U,) ranks in the order of `data.split.users(split)`.
    Raises:
        ConfigError: `split` is unknown.
    Source: the most popular items, as in Cremonesi et al. 2010.
    """
    none = np.zeros(0, np.int64)
    nothing = _Transitions(np.zeros(data.num_item_rows + 1, np.int64), none, none)
    return _rank_users(data, nothing, split=split, exclude_seen=exclude_seen)


def transition_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item under a first-order Markov chain that falls back to popularity.

        score(v) = c(l, v) + p(v) / (max p + 1)

    l is the last input item, c(l, v) the number of times that v directly followed l in the training sequences, and p(v) the
    number of times v occurs in them. Scores are computed times max p + 1, so that they are whole numbers.

    Args:
        data, split, exclude_seen: as in `popularity_ranks`.
    Returns: (U,) ranks in the order of `data.split.users(split)`.
    Raises:
        ConfigError: `split` is unknown.
    Source: the first-order chain of Rendle et al. 2010, counted and not factorised.
    """
    return _rank_users(data, _training_transitions(data), split=split, exclude_seen=exclude_seen)


def training_popularity(data: PreparedDataset) -> Int64[np.ndarray, "V"]:
    """Number of times each item occurs in the training split.

    Args:
        data: a prepared data set.
    Returns: counts by item id; 0 for the padding item and for items without a training interaction.
    """
    counts = np.zeros(data.num_item_rows, np.int64)
    for block, is_training in data.split.training_blocks(len(data.item_ids), len(counts)):
        counts += np.bincount(data.item_ids[block][is_training], minlength=len(counts))
    return counts


@dataclass(frozen=True)
class _Transitions:
    """Items that followed each item in training, with counts; those of item l are `offsets[l]:offsets[l + 1]`."""

    offsets: Int64[np.ndarray, "V_plus_1"]
    items: Int64[np.ndarray, "F"]
    counts: Int64[np.ndarray, "F"]

    def after(
        self, last: Int64[np.ndarray, "B"]
    ) -> tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]]:
        """(index into `last`, item, count) of every follower of each of these items."""
        begin = self.offsets[last]
        count = self.offsets[last + 1] - begin
        row = np.repeat(np.arange(len(last)), count)
        source = np.arange(len(row)) + np.repeat(begin - np.cumsum(count) + count, count)
        return row, self.items[source], self.counts[source]


def _training_transitions(data: PreparedDataset) -> _Transitions:
    """Pairs of items that directly follow each other, both training items of one user."""
    follows = data.split.is_training(len(data.item_ids))
    follows[data.offsets[:-1]] = False  # the first item of a user follows nothing
    after = np.flatnonzero(follows)
    V = data.num_item_rows
    pairs, counts = np.unique(data.item_ids[after - 1].astype(np.int64) * V + data.item_ids[after], return_counts=True)
    return _Transitions(np.searchsorted(pairs, np.arange(V + 1) * V), pairs % V, counts)


def _rank_users(
    data: PreparedDataset, transitions: _Transitions, *, split: str, exclude_seen: bool
) -> Float64[np.ndarray, "U"]:
    """Ranks by transitions first and popularity second, ties shared.

    Without a (users, items) table: items are counted by popularity, in one sorted array for all users. Then each item that
    followed the user's last one is taken out and counted again with its own score.
    """
    popularity = training_popularity(data)
    scale = int(popularity.max()) + 1
    users = data.split.users(split)
    stop = data.split.held_out(split)[users]
    last = data.item_ids[stop - 1]
    pairs = np.diff(transitions.offsets)[last] + (stop - data.offsets[users] if exclude_seen else 0)
    ranks = np.empty(len(users))
    for first, end in batch_boundaries(pairs, batch_targets=BLOCK_PAIRS):
        part = slice(first, end)
        row, item, count = transitions.after(last[part])
        score = popularity[item] + scale * count
        target = np.asarray(data.item_ids[stop[part]], np.int64)
        is_target = item == target[row]
        own = popularity[target]
        own[row[is_target]] = score[is_target]
        standing = _Standing(own, np.sort(popularity[1:]))
        standing.move(row, -1, popularity[item])
        standing.move(row, 1, score)
        if exclude_seen:
            seen_row, seen_item = items_before(data, users[part], stop[part])
            others = seen_item != target[seen_row]
            seen = np.unique(seen_row[others] * data.num_item_rows + seen_item[others])
            keys = row * data.num_item_rows + item
            seen_score = popularity[seen % data.num_item_rows]
            _, here, there = np.intersect1d(seen, keys, assume_unique=True, return_indices=True)
            seen_score[here] = score[there]
            standing.move(seen // data.num_item_rows, -1, seen_score)
        ranks[part] = standing.ranks()
    return ranks


class _Standing:
    """Number of items above each target and level with it, the target itself included."""

    def __init__(self, own: Int64[np.ndarray, "B"], ascending: Int64[np.ndarray, "items"]) -> None:
        self.own = own
        left, right = (np.searchsorted(ascending, own, side=side) for side in ("left", "right"))
        self.above, self.level = len(ascending) - right, right - left

    def move(self, row: Int64[np.ndarray, "P"], sign: int, scores: Int64[np.ndarray, "P"]) -> None:
        """Add (1) or take away (-1) an item with a score, for each target row."""
        np.add.at(self.above, row, sign * (scores > self.own[row]))
        np.add.at(self.level, row, sign * (scores == self.own[row]))

    def ranks(self) -> Float64[np.ndarray, "B"]:
        """1 + items above + half of the others level with the target."""
        return 1 + self.above + (self.level - 1) / 2
