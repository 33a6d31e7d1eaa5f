"""The best items of the whole catalogue for each history."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from athwe_core.data.histories import Histories
from athwe_core.data.packing import Rows, items_before, pack_histories
from athwe_core.errors import AthweError
from athwe_core.evaluation.evaluate import BLOCK_SCORES, BLOCK_USERS, user_blocks
from athwe_core.models.protocol import Model

SCORES_HELD = 6
"""Memory for each score while the best are found, in scores: the score, its bits twice, its key of 8 bytes and a copy."""
LEAST_KEY = -(2**63)
"""Of the items that are left out; the key of no score."""


@torch.inference_mode()
def recommend_items(
    model: Model, histories: Histories, *, k: int, exclude_seen: bool = True
) -> tuple[Int64[np.ndarray, "U K"], Float32[np.ndarray, "U K"]]:
    """The k items with the largest scores for each history, best first; items of equal score by item number, ascending.

    Memory is bounded: scores are held for one block of users at a time.

    Args:
        model: put into evaluation mode.
        histories: whole histories; the model reads the latest `model.max_length` items of each.
        k: items for each user, >= 1.
        exclude_seen: leave out every item of the whole history.
    Returns: item numbers and scores. K = k, or the number of items where that is smaller; item 0 fills the end of a row
        where fewer than K items are left.
    Raises: AthweError for a NaN score.
    """
    model.eval()
    table, bias = model.item_table(), model.item_bias()
    num_users, k = len(histories.user_ids), min(k, len(table) - 1)
    items, best = np.zeros((num_users, k), np.int64), np.zeros((num_users, k), np.float32)
    stop = np.asarray(histories.offsets[1:])
    start = np.maximum(histories.offsets[:-1], stop - model.max_length)
    rows = Rows(start, stop, np.ones(num_users, np.int64), np.arange(num_users))
    users_at_once = max(min(BLOCK_USERS, BLOCK_SCORES // (SCORES_HELD * len(table))), 1)
    for block in user_blocks(rows, users_at_once):
        windows = [slice(start[user], stop[user]) for user in block]
        batch = pack_histories([(histories.item_ids[window], histories.timestamps[window]) for window in windows])
        batch = batch.to(model.device)
        scores = model.scores(model.user_vectors(batch, table), table, bias)
        users = block[batch.user_index.cpu().numpy()]
        seen = items_before(histories, users, stop[users]) if exclude_seen else (np.zeros(0, np.int64),) * 2
        found = top_items(scores, k=k, excluded=(torch.from_numpy(seen[0]), torch.from_numpy(seen[1])))
        items[users], best[users] = (part.cpu().numpy() for part in found)
    return items, best


def top_items(
    scores: Float[Tensor, "B V"], *, k: int, excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]]
) -> tuple[Int64[Tensor, "B k"], Float[Tensor, "B k"]]:
    """The k best items of each row, best first; items of equal score by number, ascending.

    Args:
        scores: float32, of all items; column 0 is the padding and never returned.
        k: in 1..V-1.
        excluded: (row, item) pairs to leave out, in any order and with repeats.
    Returns: items and their scores; item 0 with score 0 fills a row in which fewer than k items are left.
    Raises: AthweError for a NaN score.
    """
    if bool(scores.isnan().any()):
        remedy = "The network has diverged: train again with a lower training.lr"
        raise AthweError("scores", "must not be NaN", remedy=remedy)
    keys = _keys(scores)
    keys[:, 0] = LEAST_KEY
    keys[excluded[0].to(keys.device), excluded[1].to(keys.device)] = LEAST_KEY
    found = keys.topk(k, dim=1)
    is_item = found.values != LEAST_KEY
    items = found.indices * is_item
    return items, scores.gather(1, items).masked_fill(~is_item, 0)


def _keys(scores: Float[Tensor, "B V"]) -> Int64[Tensor, "B V"]:
    """Distinct whole numbers in the order of (score, item number descending), so that the largest ones are unique."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0, to which it is equal
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # the bits of negative numbers grow with their size
    return (ordered.long() << 32) | torch.arange(scores.shape[1] - 1, -1, -1, device=scores.device)
