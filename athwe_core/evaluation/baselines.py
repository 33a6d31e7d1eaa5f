"""Two baselines that need no training, as the rank of every user's held-out item: what any network has to beat.

Both know the training split only, for validation and for test alike, as a network does that was fitted on it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from athwe_core.data.packing import items_before
from athwe_core.data.store import PreparedDataset
from athwe_core.evaluation.ranking import target_ranks

BLOCK_ELEMENTS = 2**22
"""Scores held at a time: 32 MiB in float64."""


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
    scores = training_popularity(data).astype(np.float64)
    return _rank_users(data, lambda users: np.tile(scores, (len(users), 1)), split=split, exclude_seen=exclude_seen)


def transition_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item under a first-order Markov chain that falls back to popularity.

        score(v) = c(l, v) + p(v) / (max p + 1)

    l is the last input item, the one before the held-out item. c(l, v) is the number
    of times v directly followed l in the training sequences, p(v) the training popularity. Computed times max p + 1,
    which ranks alike and stays in whole numbers.

    Args, Returns, Raises: as `popularity_ranks`.
    """
    popularity = training_popularity(data).astype(np.float64)
    transitions = _training_transitions(data) * (popularity.max() + 1)
    last_rows = data.split.held_out(split) - 1

    def score(users: NDArray[np.int64]) -> Float64[np.ndarray, "B V"]:
        scores: Float64[np.ndarray, "B V"] = transitions[data.item_ids[last_rows[users]]].toarray()
        scores += popularity
        return scores

    return _rank_users(data, score, split=split, exclude_seen=exclude_seen)


def training_popularity(data: PreparedDataset) -> Int64[np.ndarray, "V"]:
    """Number of times each item occurs in the training split; 0 for the padding and for items held out only."""
    is_training = data.split.is_training(len(data.item_ids))
    return np.bincount(data.item_ids[is_training], minlength=data.num_rows).astype(np.int64)


def _training_transitions(data: PreparedDataset) -> scipy.sparse.csr_array:
    """(V, V) counts of row item directly followed by column item, both training items of one user."""
    follows = data.split.is_training(len(data.item_ids))
    follows[data.offsets[:-1]] = False  # the first item of a user follows nothing
    after = np.flatnonzero(follows)
    pairs = np.asarray(data.item_ids[after - 1]), np.asarray(data.item_ids[after])
    return scipy.sparse.coo_array((np.ones(len(after)), pairs), shape=(data.num_rows, data.num_rows)).tocsr()


def _rank_users(
    data: PreparedDataset,
    score: Callable[[NDArray[np.int64]], Float64[np.ndarray, "B V"]],
    *,
    split: str,
    exclude_seen: bool,
) -> Float64[np.ndarray, "U"]:
    """Ranks by `score`, which gives the scores of a block of users; never more than BLOCK_ELEMENTS at once."""
    asked = data.split.users(split)
    stop = data.split.held_out(split)[asked]
    targets = torch.from_numpy(data.item_ids[stop].astype(np.int64))
    ranks = np.empty(len(asked))
    block = max(BLOCK_ELEMENTS // data.num_rows, 1)
    for first in range(0, len(asked), block):
        part = slice(first, first + block)
        seen = items_before(data, asked[part], stop[part]) if exclude_seen else None
        pairs = None if seen is None else (torch.from_numpy(seen[0]), torch.from_numpy(seen[1]))
        ranks[part] = target_ranks(torch.from_numpy(score(asked[part])), targets[part], excluded=pairs).numpy()
    return ranks
