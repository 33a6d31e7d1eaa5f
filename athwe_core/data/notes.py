"""What the user should know about the rows that were read and kept: counted by an engine, put into words here.

Every engine counts in its own way; the sentences are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.times import EARLIEST, is_plausible, latest
from athwe_core.errors import DataError
from athwe_core.messages import brief

GIANT_SHARE, GIANT_TIMES = 0.05, 10  # of all rows, and of the mean of the other users
_SHOWN_IDS = 5


@dataclass(frozen=True)
class MissingIds:
    """Rows whose user or item is a placeholder (`nan`, `null`, empty ...).

    Attributes:
        num_rows: Rows with a placeholder.
        num_read: All rows.
        names: (what, placeholder, rows with it) for each placeholder: users first, then items, in order of appearance.
    """

    num_rows: int
    num_read: int
    names: Sequence[tuple[str, str, int]]

    def refuse_above(self, share: float, place: str) -> None:
        """Raise DataError where more than this share of the rows, in [0, 1], has a placeholder. `place`: for the message."""
        if self.num_rows > share * self.num_read:
            rule = f"may have at most {100 * share:g} % rows without a user or an item"
            value = f"{self.num_rows:,} of {self.num_read:,}: {self._shown()}"
            raise DataError(place, rule, value, "Repair the ids, or raise --max-missing-ids to drop such rows")

    def notes(self) -> list[str]:
        """One sentence where there are such rows."""
        if not self.num_rows:
            return []
        return [f"{self.num_rows:,} of {self.num_read:,} rows have no id and were dropped: {self._shown()}"]

    def without(self, counts: RowCounts) -> RowCounts:
        """The counts after these rows are dropped."""
        return counts.without("had no user or item id", self.num_rows)

    def _shown(self) -> str:
        return ", ".join(f"{what} {brief(name)!r} in {count:,}" for what, name, count in self.names[:_SHOWN_IDS])


def several_spellings(what: str, written: str, read: str) -> str:
    """About ids that a file writes in another way than they are kept; `what` is `user` or `item`, the others an example."""
    return f"{what} ids that are written in several ways have one spelling: {brief(written)!r} is {brief(read)!r}"


def no_usable_rows(place: str) -> DataError:
    """The error for files without a row that has user, item and time."""
    return DataError(place, "has no rows that can be used", remedy="Is the file complete?")


def doubtful_user(name: str, count: int, *, num_others: int, num_rows: int) -> list[str]:
    """A question about the user with most rows, who may stand for everybody without an id.

    Args:
        name, count: The user and its rows.
        num_others: Other users.
        num_rows: Rows of all users.
    """
    if not num_others or count < GIANT_SHARE * num_rows or count * num_others < GIANT_TIMES * (num_rows - count):
        return []
    shown = f"user {brief(name)!r} has {count:,} of {num_rows:,} rows"
    return [f"{shown}: does it stand for visitors without an id? If so, remove these rows"]


@dataclass(frozen=True)
class Filtering:
    """What the filter removed.

    Attributes:
        minimum: Fewest interactions of a user and of an item.
        num_read: Rows before.
        num_distinct: Rows without the repeated ones.
        num_kept: Rows after.
        users, items: Distinct ids before and after.
        num_late: Kept rows that are earlier than the row before of the same user in the file.
    """

    minimum: int
    num_read: int
    num_distinct: int
    num_kept: int
    users: tuple[int, int]
    items: tuple[int, int]
    num_late: int

    def notes(self) -> list[str]:
        """One sentence for each thing that happened."""
        found = []
        if num_repeated := self.num_read - self.num_distinct:
            found.append(f"{num_repeated} repeated rows (same user, item and time) were removed")
        if self.num_distinct > self.num_kept:
            lost = [
                f"{before - after:,} of {before:,} {what} ({(before - after) / before:.1%})"
                for what, (before, after) in (
                    ("users", self.users),
                    ("items", self.items),
                    ("rows", (self.num_distinct, self.num_kept)),
                )
            ]
            found.append(f"users and items with fewer than {self.minimum} interactions were removed: {', '.join(lost)}")
        if self.num_late:
            found.append(f"{self.num_late} rows came after a later one of the same user in the file: sorted by time")
        return found

    def without(self, counts: RowCounts) -> RowCounts:
        """The counts after these rows are dropped."""
        counts = counts.without("were repeated", self.num_read - self.num_distinct)
        few = f"were of users or items with fewer than {self.minimum} interactions"
        return counts.without(few, self.num_distinct - self.num_kept)


@dataclass(frozen=True)
class TimesKept:
    """The times of the rows that are kept, seconds.

    Attributes:
        lowest, highest, median: Of all rows. The median counts only where there is an odd time.
        num_rows: All rows.
        num_odd: Rows with a time outside `plausible_times`.
        first_odd: The first of these times in the order of the files; None without one.
    """

    lowest: int
    highest: int
    median: float
    num_rows: int
    num_odd: int
    first_odd: int | None

    def notes(self) -> list[str]:
        """Questions about times that are all equal, or far from the others: they decide what comes first and last."""
        if self.lowest == self.highest:
            day = np.datetime64(self.lowest, "s")
            return [f"all rows have one time, {day}: the order of a user's items is the order of ties"]
        if not is_plausible(self.median) or self.first_odd is None:
            return []
        example = np.datetime64(self.first_odd, "s")
        odd = f"{self.num_odd:,} of {self.num_rows:,} rows have times before 1995 or after next year"
        return [f"{odd}, e.g. {example}: is that right?"]


def plausible_times() -> tuple[int, int]:
    """The first plausible second, and the first one after them."""
    return EARLIEST, latest()


def refuse_disorder(num_users_in_disorder: int, num_users: int) -> None:
    """Raise DataError where users have rows of a given split from before the part that comes before it."""
    if num_users_in_disorder:
        rule = "must be in the order of time: training, validation, test of each user"
        remedy = "Split the files anew: --split leave-one-out"
        raise DataError("given split", rule, f"{num_users_in_disorder} of {num_users} users are not", remedy)


def kept_in_catalogue(count: int, source: str) -> str:
    """About items without interactions that stay: how many, and of which file."""
    return f"{count:,} further items of {source} stay in the catalogue"
