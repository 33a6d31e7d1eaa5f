"""The best items of the catalogue for each history, and the nearest items of an item."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from athwe_core.data.histories import Histories
from athwe_core.data.rows import items_before, rows_of_histories
from athwe_core.errors import AthweError, ConfigError
from athwe_core.evaluation.blocks import BLOCK_USERS, UserBlock, encode, in_workers, most_users, user_blocks, workers_on
from athwe_core.evaluation.tiles import Cells, TiledScores
from athwe_core.models.protocol import Model

ONE_TILE_ITEMS = 2**17
"""Up to so many items the best are found in one tile: to join them with those of further tiles takes longer."""
HELD_SCORES = 2**22
"""Most scores held at a time by a worker; with a copy, and the bits and keys of ties, 120 MiB."""
LEAST_KEY = -(2**63)
"""Of the items that are left out; the key of no score."""
Best = tuple[Int64[np.ndarray, "n K"], Float32[np.ndarray, "n K"]]
"""Item numbers and scores, best first. Item 0 fills the end of a row where fewer than K items are left."""


class Recommender:
    """Finds the best items of histories with a model whose item table is computed once.

    Items of equal score are in the order of their numbers. Memory is bounded: scores are held for one block of users and some
    items at a time. The model reads the latest `model.max_length` items of each history.

    Args:
        model: put into evaluation mode; not trained while this object is in use.
        allowed: numbers of the items that may be recommended, in any order and with repeats; None = all items.
    """

    def __init__(self, model: Model, *, allowed: NDArray[np.int64] | None = None) -> None:
        model.eval()
        self._model = model
        with torch.inference_mode():
            self._table, self._bias = model.item_table(), model.item_bias()
        self._ranked, self._ranked_bias = self._table, self._bias
        self._item_of_column = np.arange(len(self._table))
        self._column_of_item = self._item_of_column
        if allowed is not None:
            self._restrict(allowed)

    def restricted_to(self, allowed: NDArray[np.int64]) -> Recommender:
        """The same with other allowed items; the item table is shared."""
        found = copy(self)
        found._restrict(allowed)
        return found

    @torch.inference_mode()
    def _restrict(self, allowed: NDArray[np.int64]) -> None:
        self._item_of_column = np.concatenate([[0], np.unique(allowed)])
        self._column_of_item = np.zeros(len(self._table), np.int64)
        self._column_of_item[self._item_of_column] = np.arange(len(self._item_of_column))
        columns = torch.from_numpy(self._item_of_column).to(self._table.device)
        self._ranked = self._table[columns]
        self._ranked_bias = None if self._bias is None else self._bias[columns]

    @torch.inference_mode()
    def top(self, histories: Histories, *, k: int, exclude_seen: bool | NDArray[np.bool_] = True) -> Best:
        """The k items with the largest scores for each history.

        Args:
            histories: whole histories of n users.
            k: items for each user, >= 1.
            exclude_seen: leave out every item of the whole history, for all or for each.
        Returns: items and scores. K = k, or the number of allowed items where that is smaller.
        Raises: AthweError for a NaN score.
        """
        k = min(k, len(self._ranked) - 1)
        shape = (len(histories.user_ids), k)
        items, best = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        if k == 0:
            return items, best
        is_excluded = np.broadcast_to(exclude_seen, len(items))
        column_of_item = torch.from_numpy(self._column_of_item).to(self._table.device)

        def best_of(block: UserBlock) -> None:
            users, terms = block.users, block.terms
            if terms is not None:
                terms = _with_columns(terms._replace(items=column_of_item[terms.items]))
            score = partial(self._model.scores, block.vectors)
            scores = TiledScores(
                score,
                self._ranked,
                self._ranked_bias,
                users=len(users),
                terms=terms,
                least_items=_least_items(len(self._ranked) - 1, k),
            )
            columns, found = best_in_tiles(scores, k=k, excluded=self._seen(histories, users, is_excluded[users]))
            items[users], best[users] = self._item_of_column[columns.cpu().numpy()], found.cpu().numpy()

        self._each_block(histories, best_of, most=self._most_users(k))
        return items, best

    @torch.inference_mode()
    def similar(self, items: NDArray[np.int64], *, k: int) -> Best:
        """The k items whose vectors have the largest cosine with that of each given item, which is left out itself.

        Args:
            items: (n,) item numbers.
            k: >= 1.
        Returns: items and cosines in [-1, 1], up to rounding; 0 with a vector of zeros.
        Raises: AthweError for a NaN vector.
        """
        k = min(k, len(self._ranked) - 1)
        found, best = np.zeros((len(items), k), np.int64), np.zeros((len(items), k), np.float32)
        if found.size == 0:
            return found, best
        ranked, table = F.normalize(self._ranked), F.normalize(self._table)
        for block in np.array_split(np.arange(len(items)), -(-len(items) // self._most_users(k))):
            vectors = table[torch.from_numpy(items[block]).to(table.device)]
            score = partial(_products, vectors)
            scores = TiledScores(
                score, ranked, None, users=len(block), least_items=_least_items(len(self._ranked) - 1, k)
            )
            own = torch.from_numpy(self._column_of_item[items[block]])
            columns, cosines = best_in_tiles(scores, k=k, excluded=(torch.arange(len(block)), own))
            found[block], best[block] = self._item_of_column[columns.cpu().numpy()], cosines.cpu().numpy()
        return found, best

    @torch.inference_mode()
    def user_vectors(self, histories: Histories) -> Float32[np.ndarray, "n D"]:
        """The vector of each history. Its product with an item's vector, plus the item's bias, is the score of a new item.

        The learned terms of items of the history (`model.repeat`) are not in it.

        Raises: ConfigError for a model whose scores are no such products.
        """
        found = np.zeros((len(histories.user_ids), self._table.shape[1]), np.float32)

        def keep(block: UserBlock) -> None:
            self._require_products(block.vectors[:1])
            found[block.users] = block.vectors.cpu().numpy()

        self._each_block(histories, keep, most=BLOCK_USERS)
        return found

    @property
    def item_vectors(self) -> Float32[np.ndarray, "V D"]:
        """The vector of each item; row 0 is the padding."""
        return self._table.cpu().numpy()

    @property
    def item_bias(self) -> Float32[np.ndarray, " V"] | None:
        """The bias of each item; None where the model has none."""
        return None if self._bias is None else self._bias.cpu().numpy()

    def _require_products(self, vectors: Float[Tensor, "B D"]) -> None:
        table, bias = self._table, self._bias
        is_product = vectors.shape[1] == table.shape[1] and torch.allclose(
            self._model.scores(vectors, table, bias),
            Model.scores(self._model, vectors, table, bias),
            rtol=1e-3,
            atol=1e-4,
        )
        if not is_product:
            rule = "must score by products of user and item vectors to give vectors"
            raise ConfigError("model", rule, type(self._model).__name__, "Use recommend, or export --format hub")

    def _most_users(self, k: int) -> int:
        """Users of a block whose k best items are found: fewer where tiles must have very many items."""
        items = min(_least_items(len(self._ranked) - 1, k), len(self._ranked))
        return max(min(most_users(len(self._ranked)), HELD_SCORES // items), 1)

    def _each_block(self, histories: Histories, use: Callable[[UserBlock], None], *, most: int) -> None:
        """Call `use` with users and their vectors, some blocks side by side."""
        model, table = self._model, self._table
        data, rows = rows_of_histories(histories, max_length=model.max_length)

        @torch.inference_mode()
        def work(block: NDArray[np.int64]) -> None:
            use(encode(model, data, rows, block, table))

        workers = workers_on(model.device)
        in_workers(work, user_blocks(rows, most=most, workers=workers), workers)

    def _seen(
        self, histories: Histories, users: NDArray[np.int64], is_excluded: NDArray[np.bool_]
    ) -> tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]]:
        """(row of the block, column) of every item of the histories that are left out; 0 for an item that is not allowed."""
        rows = np.flatnonzero(is_excluded)
        at, item = items_before(histories, users[rows], np.asarray(histories.offsets)[users[rows] + 1])
        return torch.from_numpy(rows[at]), torch.from_numpy(self._column_of_item[item])


def recommend_items(model: Model, histories: Histories, *, k: int, exclude_seen: bool = True) -> Best:
    """The k best items of the whole catalogue for each history; see `Recommender.top`."""
    return Recommender(model).top(histories, k=k, exclude_seen=exclude_seen)


def best_in_tiles(
    scores: TiledScores, *, k: int, excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]]
) -> tuple[Int64[Tensor, "B k"], Float[Tensor, "B k"]]:
    """As `top_items`, of scores that come in tiles.

    Most tiles have no score for a user that is above the k-th best so far; those are only compared with it.

    Args:
        scores: of B users.
        k, excluded: as in `top_items`.
    Returns: as `top_items`.
    Raises: AthweError for a NaN score.
    """
    rows, columns = (part.to(scores.device) for part in excluded)
    left_out = _with_columns(Cells(rows, columns, torch.zeros_like(rows)))
    items = torch.zeros(scores.users, k, dtype=torch.int64, device=scores.device)
    best = torch.zeros(scores.users, k, device=scores.device)
    for first, (out_rows, out_columns, _) in zip(scores.starts, scores.by_tile(left_out), strict=True):
        tile = scores.tile(first)
        tile[out_rows, out_columns] = -torch.inf
        may_rise = ~((tile.amax(dim=1) <= best[:, -1]) & (items[:, -1] > 0))  # also with a NaN
        chosen = may_rise.nonzero()[:, 0]
        rising = tile if len(chosen) == len(tile) else tile[chosen]
        del tile  # so that the next one has its memory
        if len(chosen):
            is_out, number = may_rise[out_rows], may_rise.cumsum(0) - 1
            out = number[out_rows[is_out]], out_columns[is_out]
            items[chosen], best[chosen] = _joined(items[chosen], best[chosen], rising, first, out)
    return items, best


def _joined(
    items: Int64[Tensor, "n k"],
    best: Float[Tensor, "n k"],
    scores: Float[Tensor, "n T"],
    first: int,
    excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]],
) -> tuple[Int64[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The best of those so far and of the next tile. So far: lower numbers, equal scores by number, item 0 at the end."""
    n, k = items.shape
    candidates = torch.cat([best.new_zeros(n, 1), best, scores], dim=1)
    empty = (items == 0).nonzero(as_tuple=True)
    pairs = torch.cat([empty[0], excluded[0]]), torch.cat([empty[1] + 1, excluded[1] + k + 1])
    places, best = top_items(candidates, k=k, excluded=pairs)
    known = items.gather(1, (places - 1).clamp(0, k - 1))
    return torch.where(places > k, first + places - k - 1, known) * (places > 0), best


def _least_items(num_items: int, k: int) -> int:
    """Items of a tile in which the k best are looked for."""
    return num_items if num_items <= ONE_TILE_ITEMS else min(64 * k, max(2**16, 4 * k))


def _products(vectors: Float[Tensor, "B K"], table: Float[Tensor, "T K"], _: Tensor | None) -> Float[Tensor, "B T"]:
    """Scores of items without a bias."""
    return vectors @ table.T


def _with_columns(cells: Cells) -> Cells:
    """Those that are not in column 0, the padding."""
    is_kept = cells.items > 0
    return Cells(*(part[is_kept] for part in cells))


def top_items(
    scores: Float[Tensor, "B V"], *, k: int, excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]]
) -> tuple[Int64[Tensor, "B k"], Float[Tensor, "B k"]]:
    """The k best items of each row, best first; items of equal score by number, ascending.

    Args:
        scores: float32, of all items; column 0 is the padding and never returned. Overwritten: what is left out becomes -inf.
        k: in 1..V-1.
        excluded: (row, item) pairs to leave out, in any order and with repeats.
    Returns: items and their scores; item 0 with score 0 fills a row in which fewer than k items are left.
    Raises: AthweError for a NaN score.
    """
    rows, columns = (part.to(scores.device) for part in excluded)
    scores[:, 0] = -torch.inf
    scores[rows, columns] = -torch.inf
    first = scores.topk(k + 1, dim=1)  # a NaN counts as the largest
    if bool(first.values.isnan().any()):
        remedy = "The network has diverged: train again with a lower training.lr"
        raise AthweError("scores", "must not be NaN", remedy=remedy)
    items = first.indices[:, :k].sort(dim=1).values
    order = scores.gather(1, items).sort(dim=1, descending=True, stable=True)
    items, best = items.gather(1, order.indices), order.values
    is_tied = first.values[:, k - 1] == first.values[:, k]  # items of equal score are kept and left: which ones is open
    tied = is_tied.nonzero()[:, 0]
    if len(tied):
        among = is_tied[rows]
        number = is_tied.cumsum(0) - 1
        items[tied], best[tied] = _top_by_key(scores[tied], k, (number[rows[among]], columns[among]))
    return items, best


def _top_by_key(
    scores: Float[Tensor, "B V"], k: int, excluded: tuple[Int64[Tensor, " E"], Int64[Tensor, " E"]]
) -> tuple[Int64[Tensor, "B k"], Float[Tensor, "B k"]]:
    """As `top_items`, for any ties; takes several times as long."""
    keys = _keys(scores)
    keys[:, 0] = LEAST_KEY
    keys[excluded] = LEAST_KEY
    found = keys.topk(k, dim=1)
    is_item = found.values != LEAST_KEY
    items = found.indices * is_item
    return items, scores.gather(1, items).masked_fill(~is_item, 0)


def _keys(scores: Float[Tensor, "B V"]) -> Int64[Tensor, "B V"]:
    """Distinct whole numbers in the order of (score, item number descending), so that the largest ones are unique."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0, to which it is equal
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # the bits of negative numbers grow with their size
    return (ordered.long() << 32) | torch.arange(scores.shape[1] - 1, -1, -1, device=scores.device)
