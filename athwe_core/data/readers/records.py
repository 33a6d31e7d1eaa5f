"""Records: the one form that every reader returns, before filtering and numbering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import polars as pl
from jaxtyping import Bool, Int32, Int64, Integer
from numpy.typing import NDArray

from athwe_core.data.long_arrays import GrowingArray, bound, count_numbers, row_blocks
from athwe_core.data.notes import MissingIds, doubtful_user, no_usable_rows, several_spellings
from athwe_core.data.readers.ids import clean_ids
from athwe_core.data.readers.reading import RowCounts
from athwe_core.data.readers.text_cleaning import NAME_SEPARATOR


@dataclass(frozen=True)
class ItemTable:
    """The items of a source, as text.

    Attributes:
        frame: String columns, `item_id` first, one row an item, no item twice; an empty string where a value is absent.
        types: Column name -> `token`, `token_seq`, `float`, `float_seq` (sequences are space separated) or `name_seq`
            (names joined by `NAME_SEPARATOR`).
        source: The file it came from, for messages.
    """

    frame: pl.DataFrame
    types: dict[str, str]
    source: str


def split_sequence(text: str, kind: str) -> list[str]:
    """The values in one cell of an item table's column of type `kind`; none in an empty cell."""
    separator = NAME_SEPARATOR if kind == "name_seq" else None
    parts = text.split(separator) if kind.endswith("_seq") else [text]
    return [part.strip() for part in parts if part.strip()]


@dataclass(frozen=True)
class RawIds:
    """Raw ids of I rows, each distinct text held once.

    Attributes:
        numbers: (I,) int32, indices of `names`.
        names: The texts, in the order in which they first appear in the rows.
    """

    numbers: Int32[np.ndarray, "I"]
    names: pl.Series

    @classmethod
    def of(cls, texts: pl.Series | Sequence[str]) -> RawIds:
        """Number (I,) texts by first appearance."""
        coder = IdCoder()
        coder.add(pl.Series(texts, dtype=pl.String))
        return coder.taken()

    def __len__(self) -> int:
        return len(self.numbers)

    def renamed(self, names: pl.Series) -> RawIds:
        """The same rows under other names; equal names become one."""
        distinct = names.unique(maintain_order=True)
        return RawIds(_positions(names, distinct)[self.numbers], distinct)

    def take(self, rows: Int64[np.ndarray, "R"] | Bool[np.ndarray, "I"]) -> RawIds:
        """The given or marked rows; names are numbered anew, by first appearance in them."""
        chosen = self.numbers[rows]
        numbers, first = _by_first_appearance(chosen)
        return RawIds(numbers, self.names.gather(chosen[first]))

    def to_list(self) -> list[str]:
        """The (I,) texts."""
        return self.names.gather(self.numbers.astype(np.uint32)).to_list()


class IdCoder:
    """Numbers texts that come in pieces, as `RawIds`; holds the distinct texts only.

    polars' categories number the texts of all pieces with one table, which lives as long as a piece does.
    """

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._pieces = [pl.Series([], dtype=pl.String).cast(self._type)]

    def add(self, texts: pl.Series) -> None:
        """Append rows."""
        self._pieces.append(texts.cast(self._type))

    def names(self) -> pl.Series:
        """The distinct texts so far, in the order in which they first appear."""
        return pl.concat(self._pieces).unique(maintain_order=True).cast(pl.String)

    def taken(self) -> RawIds:
        """All rows so far; none are left here."""
        rows = pl.concat(self._pieces, rechunk=True)
        del self._pieces[1:]
        numbers, first = _by_first_appearance(rows.to_physical().to_numpy())
        return RawIds(numbers, rows.gather(first).cast(pl.String))


def _by_first_appearance(
    numbers: Integer[np.ndarray, "I"],
) -> tuple[Int32[np.ndarray, "I"], Int64[np.ndarray, "N"]]:
    """Rows that have any numbers, numbered by first appearance; and the first row of each new number."""
    first = np.full(bound(numbers), len(numbers), dtype=np.int64)
    for block in reversed([*row_blocks(len(numbers))]):
        rows = np.arange(block.start, block.stop)
        first[numbers[block][::-1]] = rows[::-1]  # of equal indices the last assignment stays
    present = np.flatnonzero(first < len(numbers))
    present = present[np.argsort(first[present])]
    number = np.zeros(len(first), dtype=np.int32)
    number[present] = np.arange(len(present))
    return number[numbers], first[present]


def _positions(texts: pl.Series, names: pl.Series) -> NDArray[np.int32]:
    """Row of each text in `names`, which holds it."""
    return texts.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)


@dataclass(frozen=True)
class Records:
    """Interactions of one source in file order, I rows.

    Attributes:
        user_tokens, item_tokens: (I,) raw ids in one spelling, see `clean_ids`; never empty.
        timestamps: (I,) int64 seconds since 1970 UTC, not negative.
        items: The item table, None where the source has none.
        notes: What the user should know, one sentence each.
        counts: Rows in the files, read and dropped; None where there is no file.
        parts: (I,) int8 part of a given split: 0 training, 1 validation, 2 test; None without one.
        is_rewritten: An id or a cell was not read as older versions read it (only atomic files look at this).
    """

    user_tokens: RawIds
    item_tokens: RawIds
    timestamps: Int64[np.ndarray, "I"]
    items: ItemTable | None = None
    notes: tuple[str, ...] = field(default=())
    counts: RowCounts | None = None
    parts: NDArray[np.int8] | None = None
    is_rewritten: bool = False

    def __len__(self) -> int:
        return len(self.timestamps)

    def keep(self, is_kept: Bool[np.ndarray, "I"]) -> Records:
        """The marked rows."""
        return replace(
            self,
            user_tokens=self.user_tokens.take(is_kept),
            item_tokens=self.item_tokens.take(is_kept),
            timestamps=self.timestamps[is_kept],
            parts=None if self.parts is None else self.parts[is_kept],
        )


def are_ids(texts: pl.Series) -> pl.Series:
    """(I,) whether each text can be an id or stand for none: it has no NUL."""
    return ~texts.fill_null("").str.contains("\0", literal=True)


class RowSink(Protocol):
    """Takes the rows that a reader yields in blocks."""

    def add(self, users: pl.Series, items: pl.Series, timestamps: Any, *, part: int = 0) -> None:
        """Append rows: raw ids (null or empty where there is none), whole seconds, and their part of a given split."""


class RecordsBuilder:
    """Collects the rows that a reader yields in blocks."""

    def __init__(self) -> None:
        self._users, self._items = IdCoder(), IdCoder()
        self._timestamps = GrowingArray(np.int64)
        self._parts: list[tuple[int, int]] = []

    def add(self, users: pl.Series, items: pl.Series, timestamps: Any, *, part: int = 0) -> None:
        """Append rows: raw ids (null or empty where there is none), whole seconds, and their part of a given split."""
        self._users.add(users.fill_null(""))
        self._items.add(items.fill_null(""))
        self._timestamps.append(np.asarray(timestamps, dtype=np.int64))
        self._parts.append((part, len(users)))

    def item_names(self, place: str) -> set[str]:
        """The distinct item ids of the rows so far, in one spelling."""
        return set(clean_ids(self._items.names(), "item", place).texts)

    def build(
        self,
        counts: RowCounts,
        *,
        place: str,
        items: ItemTable | None = None,
        notes: Sequence[str] = (),
        max_missing_ids: float = 1.0,
        has_parts: bool = False,
    ) -> Records:
        """The records. Rows whose user or item is a placeholder (`nan`, `null`, empty ...) are dropped.

        Args:
            counts: Of the rows that were added.
            place: Where they come from, for messages.
            items: The item table.
            notes: What the user should know so far.
            max_missing_ids: Largest share of rows, in [0, 1], that may have a placeholder.
            has_parts: The parts that rows were added with are a given split.
        Raises:
            DataError: More rows than that have one, or no row is left.
        """
        found, extra = {}, list(notes)
        is_kept = np.ones(counts.read, dtype=bool)
        placeholders, is_rewritten = [], False
        for what, coder in (("user", self._users), ("item", self._items)):
            raw = coder.taken()
            clean = clean_ids(raw.names, what, place)
            in_rows = count_numbers(raw.numbers, len(raw.names))
            missing = np.flatnonzero(clean.is_placeholder.to_numpy())
            placeholders += [(what, raw.names[int(name)], int(in_rows[name])) for name in missing]
            is_kept &= ~clean.is_placeholder.to_numpy()[raw.numbers]
            rewritten = clean.is_rewritten.to_numpy()
            if rewritten.any():
                first = int(np.flatnonzero(rewritten)[0])
                extra.append(several_spellings(what, raw.names[first], clean.texts[first]))
            is_rewritten |= bool(rewritten.any()) or len(missing) > 0
            found[what] = raw.renamed(clean.texts) if rewritten.any() else raw
        missing_ids = MissingIds(int(np.count_nonzero(~is_kept)), counts.read, placeholders)
        missing_ids.refuse_above(max_missing_ids, place)
        timestamps, users, item_ids = self._timestamps.taken(), found["user"], found["item"]
        parts = _repeated(self._parts) if has_parts else None
        extra += missing_ids.notes()
        if missing_ids.num_rows:
            users, item_ids, timestamps = users.take(is_kept), item_ids.take(is_kept), timestamps[is_kept]
            parts = parts[is_kept] if parts is not None else None
        counts = missing_ids.without(counts)
        extra += _doubtful_users(users)
        if not len(timestamps):
            raise no_usable_rows(place)
        return Records(users, item_ids, timestamps, items, (counts.sentence(), *extra), counts, parts, is_rewritten)


def _repeated(parts: Sequence[tuple[int, int]]) -> NDArray[np.int8]:
    """The part of each row, of pairs of a part and how many rows follow that belong to it."""
    numbers, lengths = np.array(parts or [(0, 0)]).T
    return np.repeat(numbers.astype(np.int8), lengths)


def _doubtful_users(users: RawIds) -> list[str]:
    """A question about a user with far more rows than the others, who may stand for everybody without an id."""
    in_rows = count_numbers(users.numbers, len(users.names))
    if not len(users):
        return []
    first = int(in_rows.argmax())
    return doubtful_user(users.names[first], int(in_rows[first]), num_others=len(in_rows) - 1, num_rows=len(users))
