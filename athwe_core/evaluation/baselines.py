"""Two baselines that need no training, as the rank of every user's held-out item: what any network has to beat.

Both know the training split only, for validation and for test alike, as a network does that was fitted on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from athwe_core.data.packing import batch_boundaries, items_before
from athwe_core.data.store.dataset import PreparedDataset

BLOCK_PAIRS = 2**22
"""(user, item) pairs looked at together: some 100 MB."""


def popularity_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item when every user gets the most popular items.

        score(v) = number of times v occurs in the training split

    Args:
        split: `validation` or `test`: the held-out item that is ranked; the scores are the same for both.
        exclude_seen: leave the user's input items out of the ranking, never the target.
    Returns: (U,) ranks in the order of `data.split.users(split)`.
    Raises:
        ConfigError: An unknown split.
    """
    none = np.zeros(0, np.int64)
    nothing = _Transitions(np.zeros(data.num_item_rows + 1, np.int64), none, none)
    return _rank_users(data, nothing, split=split, exclude_seen=exclude_seen)


def transition_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item under a first-order Markov chain that falls back to popularity.

        score(v) = c(l, v) + p(v) / (max p + 1)

    l is the last input item, the one before the held-out item. c(l, v) is the number
    of times v directly followed l in the training sequences, p(v) the training popularity. Computed times
    max p + 1, which ranks alike and stays in whole numbers.

    Args, Returns, Raises: as `popularity_ranks`.
    """
    return _rank_users(data, _training_transitions(data), split=split, exclude_seen=exclude_seen)


def training_popularity(data: PreparedDataset) -> Int64[np.ndarray, "V"]:
    """Number of times each item occurs in the training split; 0 for the padding and for items held out only."""
    is_training = data.split.is_training(len(data.item_ids))
    return np.bincount(data.item_ids[is_training], minlength=data.num_item_rows).astype(np.int64)


@dataclass(frozen=True)
class _Transitions:
    """What followed each item in training, and how often: followers `offsets[l]:offsets[l + 1]` are item l's."""

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

    No (users, items) table: everything is counted in one sorted popularity, then the items that followed the user's last one
    are moved from where popularity has them to where their own score does.
    """
    popularity = training_popularity(data)
    scale = int(popularity.max()) + 1
    asked = data.split.users(split)
    stop = data.split.held_out(split)[asked]
    last = data.item_ids[stop - 1]
    pairs = np.diff(transitions.offsets)[last] + (stop - data.offsets[asked] if exclude_seen else 0)
    ranks = np.empty(len(asked))
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
            seen_row, seen_item = items_before(data, asked[part], stop[part])
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
    """How many items stand above each target and level with it, the target itself included."""

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
