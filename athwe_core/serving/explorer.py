"""What a person needs to try runs by hand: users, items by title, and recommendations with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Protocol

import numpy as np
import polars as pl

from athwe_core.analysis.case_study.item_view import PICTURE_SIZE, Thumbnails
from athwe_core.analysis.case_study.loaded_run import CaseRuns
from athwe_core.analysis.case_study.result import CaseStudy, ItemText
from athwe_core.analysis.case_study.select_user import Case, case_of_user
from athwe_core.analysis.case_study.study import case_study
from athwe_core.data.demo.pictures import demo_pictures
from athwe_core.data.histories import LATEST
from athwe_core.errors import DataError, require

MOST_PICTURES = 2048
"""Encoded pictures that are kept, about 4 kB each."""


class Pictures(Thumbnails, Protocol):
    """Pictures by item id; an `ImageSource` is one."""

    def has(self, item_id: str) -> bool:
        """Whether there is a file for the item; it may still turn out to be broken."""
        ...


@dataclass(frozen=True)
class StudyRequest:
    """A history to recommend for, with reasons.

    Attributes:
        case: the history, and the item that came next where it is known.
        k: recommendations of each run, >= 1.
        exclude_seen: leave out the items of the history.
        explained: internal id of the item to explain; None = the one that came next, else the first recommendation.
    """

    case: Case
    k: int
    exclude_seen: bool
    explained: int | None


class Explorer:
    """Runs on the same data, with the users and items of the data set.

    Args:
        opened: the runs; each recommends and is explained.
        images: pictures of items; None = those of the demo data set are drawn, other items have none.
    """

    def __init__(self, opened: CaseRuns, images: Pictures | None = None) -> None:
        images = demo_pictures(opened.prepared) if images is None else images
        self.opened = opened
        self.dataset = opened.prepared.name
        self.picture = lru_cache(MOST_PICTURES)(partial(_picture, images))
        self._images = images

    def has_picture(self, item_id: str) -> bool:
        """Whether there is a file for the item."""
        return self._images is not None and self._images.has(item_id)

    @property
    def runs(self) -> list[str]:
        """Names of the runs, in their order."""
        return [run.name for run in self.opened.runs]

    @property
    def latest(self) -> int:
        """Time of the last interaction of the data set, unix seconds."""
        return int(self.opened.prepared.timestamps.max())

    def search(self, text: str, *, limit: int = 20) -> list[ItemText]:
        """Items whose title, id or category holds every word of a text, in any case; the most popular ones first.

        Args:
            text: words; without any, all items match.
            limit: most items returned.
        """
        is_match = self._searched.is_not_null()
        for word in text.lower().split():
            is_match &= self._searched.str.contains(word, literal=True)
        found = self._by_popularity[is_match.to_numpy()[self._by_popularity]]
        return [self.opened.items.of(item) for item in found[:limit].tolist()]

    def users(self, text: str, *, limit: int = 20) -> list[str]:
        """Raw ids of users that begin with a text, in the order of the data set."""
        return self._users.filter(self._users.str.starts_with(text)).head(limit).to_list()

    def user(self, user: str | None = None) -> Case:
        """A user's history before the last item, which is the target; the whole history where no item is held out.

        Args:
            user: raw id; None = any user, at random.
        Raises: DataError where there is no such user; similar ids are listed.
        """
        data = self.opened.prepared
        users = data.split.users("test")
        if user is None:
            drawn = np.random.default_rng().choice(users if len(users) else data.num_users)
            user = data.user_tokens[int(drawn)]
        elif user not in self._user_number:
            return case_of_user(data, user, split="test")  # raises the error
        number = self._user_number[user]
        if len(users) and data.split.held_out("test")[number] >= 0:
            return case_of_user(data, user, split="test")
        span = slice(data.offsets[number], data.offsets[number + 1])
        return Case(user, "test", data.item_ids[span].tolist(), data.timestamps[span].tolist())

    def item(self, item_id: str, name: str = "item_ids") -> int:
        """Internal id of an item. Raises DataError, which calls it `name`, for an unknown one."""
        number = self._item_number.get(item_id)
        if number is None:
            raise DataError(name, f"must name items of data set {self.dataset}", item_id)
        return number

    def request(
        self,
        item_ids: Sequence[str],
        timestamps: Sequence[int],
        *,
        k: int,
        exclude_seen: bool,
        user: str | None = None,
        target: tuple[str, int] | None = None,
        explained: str | None = None,
    ) -> StudyRequest:
        """Check a history and look up its ids.

        Args:
            item_ids: raw ids, at least one.
            timestamps: unix seconds, one for each item, in time order.
            k: recommendations of each run.
            exclude_seen: leave out the items of the history.
            user: whose history it is; None = of nobody in the data.
            target: raw id and time of the item that came next, if it is known.
            explained: raw id of the item to explain; None = the target, else the first recommendation.
        Raises: DataError with the name of the argument where a value is wrong.
        """
        require(k >= 1, "k", "must be at least 1", k)
        if not item_ids:
            raise DataError("item_ids", "must name an item at least")
        if len(item_ids) != len(timestamps):
            raise DataError("timestamps", f"must have one time for each of the {len(item_ids)} items", len(timestamps))
        times = [*timestamps, *([target[1]] if target else [])]
        if any(not 0 <= seconds <= LATEST for seconds in times) or sorted(times) != times:
            raise DataError("timestamps", f"must be unix seconds in 0..{LATEST}, in time order", times)
        case = Case(
            user=user,
            split="test",
            item_ids=[self.item(item) for item in item_ids],
            timestamps=list(timestamps),
            target=None if target is None else (self.item(target[0], "target"), target[1]),
        )
        return StudyRequest(case, k, exclude_seen, None if explained is None else self.item(explained, "explained"))

    def answer(self, requests: Sequence[StudyRequest]) -> list[CaseStudy]:
        """A case study for each request, in their order."""
        return [
            case_study(self.opened, each.case, k=each.k, exclude_seen=each.exclude_seen, explained=each.explained)
            for each in requests
        ]

    @cached_property
    def _item_number(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.opened.prepared.item_tokens) if number}

    @cached_property
    def _users(self) -> pl.Series:
        return pl.Series(self.opened.prepared.user_tokens, dtype=pl.String)

    @cached_property
    def _user_number(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.opened.prepared.user_tokens)}

    @cached_property
    def _searched(self) -> pl.Series:
        """What is searched, in lower case; null for the padding."""
        facts = self.opened.items
        texts = zip(facts.titles, facts.item_ids, facts.categories, strict=True)
        whole = [" ".join(parts).lower() for parts in texts]
        return pl.Series([None, *whole[1:]], dtype=pl.String)

    @cached_property
    def _by_popularity(self) -> np.ndarray:
        """Internal ids, the most frequent item first."""
        data = self.opened.prepared
        count = np.bincount(data.item_ids, minlength=data.num_item_rows)
        return np.argsort(-count, kind="stable")


def _picture(images: Pictures | None, item_id: str) -> bytes | None:
    """JPEG of an item; None where it has no picture."""
    return None if images is None else images.thumbnail(item_id, size=PICTURE_SIZE)
