"""Scores of some users for the whole catalogue in tiles of consecutive items, so that no (users, items) table is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.row_shard import RowShard

TILE_SCORES = 2**19
"""Scores of a tile on a CPU: 2 MiB, which stay in the cache of a core from the product until they are counted."""
DEVICE_TILE_SCORES = 2**26
"""Scores of a tile on another device: 256 MiB, so that the products are few and large."""
TILE_MULTIPLE = 64
"""Items of a tile. Libraries treat the last columns of other shapes apart, so that equal items could score differently."""

ScoreItems = Callable[[Float[Tensor, "T K"], Float[Tensor, " T"] | None], Float[Tensor, "B T"]]
"""Vectors and biases of some items to new scores of them, one row a user."""


class Cells(NamedTuple):
    """Some cells of a (users, items) table with a value for each."""

    rows: Int64[Tensor, " C"]
    items: Int64[Tensor, " C"]
    values: Float[Tensor, " C"]


def tile_items(users: int, device: torch.device) -> int:
    """Items of a tile for so many users."""
    scores = TILE_SCORES if device.type == "cpu" else DEVICE_TILE_SCORES
    return max(scores // users // TILE_MULTIPLE, 1) * TILE_MULTIPLE


class TiledScores:
    """Scores of B users for items 1..V-1, computed whenever they are read.

    All products have the same shape: the last tile begins earlier where the catalogue is no multiple, and the items that it
    repeats are left out. So a score does not depend on the tile, and items of equal vectors have equal scores. Where the
    table is divided over processes, that holds across them, and each has the scores of its own items.

    Args:
        score: computes the scores of some items for all the users.
        table: vectors of all items, or of those that this process holds; item 0 is the padding, which has no score.
        bias: of the same items.
        users: B, >= 1; the same in every process.
        terms: added to single scores.
        least_items: of a tile, where the catalogue has as many.
        shard: which rows of the whole table `table` has; None = all.

    Attributes:
        num_items: of the whole catalogue, V - 1.
        starts: the first row of each tile.
    """

    def __init__(
        self,
        score: ScoreItems,
        table: Float[Tensor, "V K"],
        bias: Float[Tensor, " V"] | None,
        *,
        users: int,
        terms: Cells | None = None,
        least_items: int = 1,
        shard: RowShard | None = None,
    ) -> None:
        self.shard = RowShard(len(table)) if shard is None else shard
        self.num_items, self.users = self.shard.num_rows - 1, users
        self._score, self._table, self._bias, self._terms = score, table, bias, terms
        fewest = max(self.num_items // self.shard.group.size, 1)  # items of the process that has fewest
        self._size = min(max(tile_items(users, table.device), least_items), fewest)
        self.starts = range(int(self.shard.group.is_first), len(table), self._size)
        self._terms_of = dict(zip(self.starts, self.by_tile(terms), strict=True))

    def tile(self, first: int) -> Float[Tensor, "B T"]:
        """The scores of the items of a tile, in new memory.

        Args:
            first: the tile's first row, one of `starts`.
        """
        begin = min(first, len(self._table) - self._size)
        scores = self._product(slice(begin, begin + self._size))[:, first - begin :]
        rows, columns, values = self._terms_of[first]
        if len(rows):
            scores.index_put_((rows, columns), values.to(scores.dtype), accumulate=True)
        return scores

    def by_tile(self, cells: Cells | None) -> Iterator[Cells]:
        """The cells of each tile, with columns of the tile instead of items.

        Args:
            cells: in any order, of items 1..V-1; those of other processes are left out. None = no cells.
        """
        if cells is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=self._table.device)
            cells = Cells(nothing, nothing, nothing)
        if not self.shard.is_whole:
            is_own = self.shard.is_own(cells.items)
            cells = Cells(cells.rows[is_own], self.shard.own_index(cells.items[is_own]), cells.values[is_own])
        order = cells.items.argsort()
        rows, items, values = (part[order] for part in cells)
        ends = torch.tensor([*self.starts, len(self._table)], device=items.device)
        places = torch.searchsorted(items, ends).tolist()
        for first, start, stop in zip(self.starts, places[:-1], places[1:], strict=True):
            yield Cells(rows[start:stop], items[start:stop] - first, values[start:stop])

    def of_each(self, items: Int64[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The score of one item for each user, from products of the same shape as those of the tiles.

        Where the table is divided, all processes must call it together, with the same items.

        Args:
            items: in 1..V-1.
        Returns: the scores, in every process.
        """
        found, is_own = [], self.shard.is_own(items)
        own = self.shard.own_index(items) * is_own
        for first in range(0, self.users, self._size):
            part = own[first : first + self._size]
            product = self._product(F.pad(part, (0, self._size - len(part))))
            found.append(product[first : first + len(part)].diagonal())
        scores = torch.cat(found)
        if self._terms is not None:
            rows, of, values = self._terms
            is_term = of == items[rows]
            scores.index_put_((rows[is_term],), values[is_term].to(scores.dtype), accumulate=True)
        return self.shard.group.total(scores.where(is_own, 0))

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        return self._table.device

    def _product(self, items: slice | Tensor) -> Float[Tensor, "B T"]:
        return self._score(self._table[items], None if self._bias is None else self._bias[items])
