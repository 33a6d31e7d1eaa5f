"""The most similar item of each item, by item-based collaborative filtering on the training interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

_ITEMS_AT_ONCE = 4096

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def item_similarity(
    users: NDArray[np.int64], items: NDArray[np.int64], *, num_item_rows: int, chosen: NDArray[np.int64] | None = None
) -> csr_array:
    """Similarity of items that the same users have.

        s_ij = sum_{users u with i and j} 1 / log(1 + n_u) / sqrt(N_i N_j)        s_ii = 0

    with n_u distinct items of user u and N_i users of item i.

    Args:
        users, items: interactions; repeats count once.
        num_item_rows: V, the padding included.
        chosen: items whose similarities are computed; None = all.
    Returns: one sparse row of V similarities for each of `chosen`.
    Source: item-based collaborative filtering with inverse user frequency (Breese et al. 1998), as TiCoSeRec uses it.
    """
    from scipy.sparse import csr_array  # noqa: PLC0415 - its import changes warning filters

    pairs = np.unique(np.stack([users, items]), axis=1)
    ones = np.ones(pairs.shape[1])
    has_item = csr_array((ones, (pairs[0], pairs[1])), shape=(int(users.max()) + 1, num_item_rows))
    per_user, per_item = np.asarray(has_item.sum(axis=1)), np.asarray(has_item.sum(axis=0))
    weight = np.zeros(len(per_user))
    weight[per_user > 0] = 1 / np.log1p(per_user[per_user > 0])
    scale = 1 / np.sqrt(np.maximum(per_item, 1))
    rows = np.arange(num_item_rows) if chosen is None else chosen
    left = has_item.T.tocsr()[rows] * weight[None, :] * scale[rows][:, None]
    found = csr_array(left @ (has_item * scale[None, :]))
    found = found.tocoo()
    is_other = rows[found.row] != found.col
    return csr_array((found.data[is_other], (found.row[is_other], found.col[is_other])), shape=found.shape)


def most_similar_items(
    users: NDArray[np.int64], items: NDArray[np.int64], *, num_item_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most similar item of each item; of equal ones the smallest id.

    Args:
        users, items, num_item_rows: as in `item_similarity`.
    Returns: ids (V,), with an item's own id where no user has it together with another one, and similarities (V,), 0 there.
    """
    nearest, best = np.arange(num_item_rows), np.zeros(num_item_rows, np.float32)
    for first in range(1, num_item_rows, _ITEMS_AT_ONCE):
        chosen = np.arange(first, min(first + _ITEMS_AT_ONCE, num_item_rows))
        similarity = item_similarity(users, items, num_item_rows=num_item_rows, chosen=chosen).tocoo()
        order = np.lexsort((similarity.col, -similarity.data, similarity.row))
        rows, where = np.unique(similarity.row[order], return_index=True)
        nearest[chosen[rows]], best[chosen[rows]] = similarity.col[order][where], similarity.data[order][where]
    return nearest, best
