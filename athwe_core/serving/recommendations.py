"""Recommendations as tables: the best items of users, and the nearest items of items."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from athwe_core.data.histories import Histories
from athwe_core.evaluation.recommend import Best, Recommender
from athwe_core.serving.trained_model import ITEM_ID, TrainedModel


class Rows(Protocol):
    """A long table that is computed piece by piece. Each of its `size` entries (a user, an item) has some rows."""

    size: int
    identity: str
    """Changes with whatever changes a row."""

    def rows(self, first: int, end: int) -> pl.DataFrame:
        """The rows of the entries `first..end-1`."""
        ...


class UserRecommendations:
    """The k best items of each user: user_id, rank (1 = best), item_id, score, and columns of the item table.

    Items of equal score are in the order of their numbers in the data set. A user has fewer than k rows where fewer items
    are left.

    Args:
        trained: the model and its items.
        histories: of the users.
        k: items for each user, >= 1.
        exclude_seen: leave out the items of the user's history.
        allowed: numbers of the items that may be recommended; None = all.
        columns: of the item table.
    """

    def __init__(
        self,
        trained: TrainedModel,
        histories: Histories,
        *,
        k: int,
        exclude_seen: bool = True,
        allowed: NDArray[np.int64] | None = None,
        columns: tuple[str, ...] = (),
    ) -> None:
        self.size = len(histories.user_ids)
        self._histories, self._k, self._exclude_seen = histories, k, exclude_seen
        self._recommender = Recommender(trained.model, allowed=allowed)
        self._items = trained.items.select(ITEM_ID).hstack(trained.texts(columns))
        facts = (trained.identity, k, exclude_seen, columns)
        arrays = (histories.offsets, histories.item_ids, histories.timestamps)
        self.identity = _digest(facts, allowed, "\0".join(histories.user_ids), *arrays)

    def rows(self, first: int, end: int) -> pl.DataFrame:
        """The rows of the users `first..end-1`, in their order."""
        part = self._histories.part(first, end)
        best = self._recommender.top(part, k=self._k, exclude_seen=self._exclude_seen)
        return _frame("user_id", pl.Series(part.user_ids, dtype=pl.String), best, self._items)


class SimilarItems:
    """The k nearest items of each given item by the cosine of the model's vectors: like, rank, item_id, score.

    Args:
        trained, k, allowed, columns: as in `UserRecommendations`.
        items: numbers of the given items.
    """

    def __init__(
        self,
        trained: TrainedModel,
        items: NDArray[np.int64],
        *,
        k: int,
        allowed: NDArray[np.int64] | None = None,
        columns: tuple[str, ...] = (),
    ) -> None:
        self.size = len(items)
        self._given, self._k = items, k
        self._recommender = Recommender(trained.model, allowed=allowed)
        self._items = trained.items.select(ITEM_ID).hstack(trained.texts(columns))
        self.identity = _digest(("similar", trained.identity, k, columns), allowed, items)

    def rows(self, first: int, end: int) -> pl.DataFrame:
        """The rows of the given items `first..end-1`, in their order."""
        given = self._given[first:end]
        best = self._recommender.similar(given, k=self._k)
        return _frame("like", self._items[ITEM_ID].gather(given), best, self._items)


def _frame(column: str, entries: pl.Series, best: Best, items: pl.DataFrame) -> pl.DataFrame:
    """One row for each item that was found; `entries` has the value of `column` for each row of `best`."""
    numbers, scores = best
    row, place = numbers.nonzero()  # 0 stands for no item
    found = [
        entries.gather(row).alias(column),
        pl.Series("rank", place + 1, dtype=pl.Int64),
        *items[numbers[row, place]].get_columns(),
        pl.Series("score", scores[row, place], dtype=pl.Float32),
    ]
    frame = pl.DataFrame(found)
    return frame.select(column, "rank", ITEM_ID, "score", pl.exclude(column, "rank", ITEM_ID, "score"))


def _digest(*parts: object) -> str:
    """SHA-256 of numbers, texts and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        content = np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else repr(part).encode()
        digest.update(content)
        digest.update(b"\0")
    return digest.hexdigest()
