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
from athwe_core.data.split import leave_one_out
from athwe_core.data.store import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.evaluation.ranking import target_ranks

BLOCK_ELEMENTS = 2**22
"""Scores held at a time: 32 MiB in float64."""


def popularity_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item when every user gets the most popular items.

        score(v) = number of times v occurs in the training split

    Args:
        split: `validation` or `test`: the held-out item that is ranked; the scores are the same for both.
        exclude_seen: leave the user's input items out of the ranking, never the target.
    Returns: (U,) ranks in the order of users.
    Raises:
        ConfigError: An unknown split, or a user with fewer than 3 interactions.
    """
    scores = training_popularity(data).astype(np.float64)
    return _rank_users(data, lambda users: np.tile(scores, (len(users), 1)), split=split, exclude_seen=exclude_seen)


def transition_ranks(data: PreparedDataset, *, split: str, exclude_seen: bool) -> Float64[np.ndarray, "U"]:
    """Rank of each user's held-out item under a first-order Markov chain that falls back to popularity.

        score(v) = c(l, v) + p(v) / (max p + 1)

    l is the last input item: the last training item for validation, the validation item for test. c(l, v) is the number
    of times v directly followed l in the training sequences, p(v) the training popularity. Computed times max p + 1,
    which ranks alike and stays in whole numbers.

    Args, Returns, Raises: as `popularity_ranks`.
    """
    popularity = training_popularity(data).astype(np.float64)
    transitions = _training_transitions(data) * (popularity.max() + 1)
    last_items = np.asarray(data.item_ids[target_rows(data.offsets, split=split) - 1])

    def score(users: NDArray[np.int64]) -> Float64[np.ndarray, "B V"]:
        scores: Float64[np.ndarray, "B V"] = transitions[last_items[users]].toarray()
        scores += popularity
        return scores

    return _rank_users(data, score, split=split, exclude_seen=exclude_seen)


def target_rows(offsets: Int64[np.ndarray, "bounds"], *, split: str) -> Int64[np.ndarray, "U"]:
    """Row of each user's held-out item; the user's rows before it are the input.

    Args:
        offsets: (U + 1,) CSR offsets; split: `validation` or `test`.
    Raises:
        ConfigError: An unknown split, or a user with fewer than 3 interactions.
    """
    rows = leave_one_out(offsets)
    held_out = {"validation": rows.validation, "test": rows.test}
    if split not in held_out:
        raise ConfigError("split", f"must be one of {', '.join(held_out)}", split)
    return held_out[split]


def training_popularity(data: PreparedDataset) -> Int64[np.ndarray, "V"]:
    """Number of times each item occurs in the training split; 0 for the padding and for items held out only."""
    training = _training_mask(data.offsets)
    return np.bincount(data.item_ids[training], minlength=data.num_rows).astype(np.int64)


def _training_mask(offsets: Int64[np.ndarray, "bounds"]) -> NDArray[np.bool_]:
    split = leave_one_out(offsets)
    training = np.ones(offsets[-1], dtype=bool)
    training[split.validation] = training[split.test] = False
    return training


def _training_transitions(data: PreparedDataset) -> scipy.sparse.csr_array:
    """(V, V) counts of row item directly followed by column item, both training items of one user."""
    follows = _training_mask(data.offsets)
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
    stop = target_rows(data.offsets, split=split)
    targets = torch.from_numpy(data.item_ids[stop].astype(np.int64))
    ranks = np.empty(data.num_users)
    block = max(BLOCK_ELEMENTS // data.num_rows, 1)
    for first in range(0, data.num_users, block):
        users = np.arange(first, min(first + block, data.num_users))
        seen = items_before(data, users, stop[users]) if exclude_seen else None
        pairs = None if seen is None else (torch.from_numpy(seen[0]), torch.from_numpy(seen[1]))
        ranks[users] = target_ranks(torch.from_numpy(score(users)), targets[users], excluded=pairs).numpy()
    return ranks
