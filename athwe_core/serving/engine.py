"""Recommendations for many callers at once: requests with raw ids in, raw ids with scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from athwe_core.data.histories import LATEST, Histories
from athwe_core.errors import DataError, require
from athwe_core.evaluation.recommend import Recommender
from athwe_core.serving.trained_model import TrainedModel

MOST_RESTRICTED = 4
"""Sets of allowed items whose part of the item table is kept, such as the stock of each country."""


@dataclass(frozen=True, eq=False)
class RecommendRequest:
    """A history in item numbers, checked.

    Attributes:
        items: (n,) item numbers, oldest first, n >= 1.
        timestamps: (n,) unix seconds, ascending.
        k: items wanted, >= 1.
        exclude_seen: leave out the items of the history.
        allowed: numbers of the items that may be recommended, ascending; None = all.
        unknown: raw ids of the history that the model does not know; they are left out.
    """

    items: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    k: int
    exclude_seen: bool
    allowed: tuple[int, ...] | None
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class SimilarRequest:
    """An item whose nearest items are wanted.

    Attributes:
        item: its number.
        k: items wanted, >= 1.
        allowed: as in `RecommendRequest`.
    """

    item: int
    k: int
    allowed: tuple[int, ...] | None


Request = RecommendRequest | SimilarRequest


@dataclass(frozen=True)
class Ranked:
    """Raw ids and scores, best first."""

    item_ids: list[str]
    scores: list[float]


class Engine:
    """Looks up ids, and answers batches of requests with one pass of the model.

    Answers are those of `Run.recommend` and `Run.similar_items`: items of equal score are in the order of their numbers.

    Args:
        trained: the model and its items.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained
        self._recommender = recommender = Recommender(trained.model)
        self._restricted = lru_cache(MOST_RESTRICTED)(lambda items: recommender.restricted_to(np.array(items)))
        self._number = {token: number for number, token in enumerate(trained.item_tokens) if number}

    def recommend_request(
        self,
        item_ids: Sequence[str],
        timestamps: Sequence[int],
        *,
        k: int,
        exclude_seen: bool = True,
        allowed: tuple[int, ...] | None = None,
    ) -> RecommendRequest:
        """Check a history and look up its ids.

        Args:
            item_ids: raw ids in any order; those of equal times are in the order of the list. Unknown ones are left out.
            timestamps: unix seconds >= 0, one for each item.
            k: items wanted, >= 1.
            exclude_seen: leave out the items of the history.
            allowed: what `allowed` returned; None = all items.
        Raises: DataError with the name of the argument where a value is wrong, or no item is known.
        """
        require(k >= 1, "k", "must be at least 1", k)
        if len(item_ids) != len(timestamps):
            raise DataError("timestamps", f"must have one time for each of the {len(item_ids)} items", len(timestamps))
        for seconds in timestamps:
            if not 0 <= seconds <= LATEST:
                remedy = "Divide milliseconds by 1000"
                raise DataError("timestamps", f"must be unix seconds in 0..{LATEST}", seconds, remedy)
        numbers = [self._number.get(item, 0) for item in item_ids]
        known = [(seconds, number) for seconds, number in zip(timestamps, numbers, strict=True) if number]
        if not known:
            self._refuse("item_ids", item_ids)
        known.sort(key=lambda pair: pair[0])  # stable
        return RecommendRequest(
            items=np.array([number for _, number in known], np.int32),
            timestamps=np.array([seconds for seconds, _ in known], np.int64),
            k=k,
            exclude_seen=exclude_seen,
            allowed=allowed,
            unknown=tuple(item for item, number in zip(item_ids, numbers, strict=True) if not number),
        )

    def similar_request(self, item_id: str, *, k: int, allowed: tuple[int, ...] | None = None) -> SimilarRequest:
        """Look up an item. Raises DataError for an unknown one."""
        require(k >= 1, "k", "must be at least 1", k)
        if item_id not in self._number:
            self._refuse("item_ids", [item_id])
        return SimilarRequest(self._number[item_id], k, allowed)

    def allowed(self, item_ids: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the items that may be recommended; unknown ids are left out.

        Raises: DataError where none is known.
        """
        numbers = sorted({self._number[item] for item in item_ids if item in self._number})
        if not numbers:
            self._refuse("allowed", item_ids)
        return tuple(numbers)

    def answer(self, requests: Sequence[Request]) -> list[Ranked]:
        """Answer requests, in their order; those of one kind with the same allowed items in one pass of the model."""
        groups: dict[tuple[type, tuple[int, ...] | None], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault((type(request), request.allowed), []).append(place)
        found: dict[int, Ranked] = {}
        for (_, allowed), places in groups.items():
            recommender = self._recommender if allowed is None else self._restricted(allowed)
            chosen = [requests[place] for place in places]
            found |= dict(zip(places, self._rank(recommender, chosen), strict=True))
        return [found[place] for place in range(len(requests))]

    def _rank(self, recommender: Recommender, requests: Sequence[Request]) -> list[Ranked]:
        """Answers to requests of one kind."""
        k = max(request.k for request in requests)
        histories = [request for request in requests if isinstance(request, RecommendRequest)]
        if histories:
            exclude = np.array([request.exclude_seen for request in histories])
            numbers, scores = recommender.top(_joined(histories), k=k, exclude_seen=exclude)
        else:
            given = np.array([request.item for request in requests if isinstance(request, SimilarRequest)])
            numbers, scores = recommender.similar(given, k=k)
        rows = zip(numbers, scores, requests, strict=True)
        return [self._ranked(items, values, request.k) for items, values, request in rows]

    def _ranked(self, numbers: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Ranked:
        tokens = self.trained.item_tokens
        kept = np.flatnonzero(numbers[:k])  # 0 stands for no item
        return Ranked([tokens[number] for number in numbers[kept].tolist()], scores[kept].tolist())

    def _refuse(self, name: str, ids: Sequence[str]) -> NoReturn:
        """Raise the error for ids of which none is known."""
        raise DataError(
            name, f"must name items of data set {self.trained.name}, and it has none of them", list(ids[:3])
        )


def _joined(requests: Sequence[RecommendRequest]) -> Histories:
    """The histories of requests one after the other."""
    offsets = np.cumsum([0, *(len(request.items) for request in requests)])
    items, times = ([getattr(request, name) for request in requests] for name in ("items", "timestamps"))
    return Histories([""] * len(requests), offsets, np.concatenate(items), np.concatenate(times))
