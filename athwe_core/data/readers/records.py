"""Records: the one column form that every reader yields, before filtering and numbering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64
from numpy.typing import NDArray

from athwe_core.data.readers.text_cleaning import NAME_SEPARATOR

_ROWS_AT_ONCE = 500_000
_MERGE_AT = 1_000_000  # names that wait for their number


@dataclass(frozen=True)
class ItemTable:
    """What a source says about its items, as text.

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
        numbers: (I,) int32, rows of `names`.
        names: The texts, in the order in which they first appear in the rows.
    """

    numbers: Int32[np.ndarray, "I"]
    names: pl.Series

    @classmethod
    def of(cls, texts: pl.Series | Sequence[str]) -> RawIds:
        """Number (I,) texts by first appearance."""
        coder = TokenCoder()
        coder.add(pl.Series(texts, dtype=pl.String))
        return coder.tokens()

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Int64[np.ndarray, "R"]) -> RawIds:
        """The given rows; names are numbered anew, by first appearance in them."""
        chosen = self.numbers[rows]
        first = np.full(len(self.names), len(chosen), dtype=np.int64)
        first[chosen[::-1]] = np.arange(len(chosen))[::-1]  # of equal indices the last assignment stays
        present = np.flatnonzero(first < len(chosen))
        present = present[np.argsort(first[present])]
        number = np.zeros(len(self.names), dtype=np.int32)
        number[present] = np.arange(len(present))
        return RawIds(number[chosen], self.names.gather(present))

    def to_list(self) -> list[str]:
        """The (I,) texts."""
        return self.names.gather(self.numbers.astype(np.uint32)).to_list()


class TokenCoder:
    """Turns texts that come in pieces into `RawIds`, holding the distinct texts only."""

    def __init__(self) -> None:
        self._names = pl.Series([], dtype=pl.String)
        self._numbers: list[NDArray[np.int32]] = []
        self._pieces: list[pl.Series] = []
        self._waiting: list[tuple[pl.Series, NDArray[np.int32]]] = []

    def add(self, texts: pl.Series) -> None:
        """Append rows."""
        self._pieces.append(texts)
        if sum(map(len, self._pieces)) >= _ROWS_AT_ONCE:
            self._gather()

    def tokens(self) -> RawIds:
        """All rows so far."""
        self._gather()
        self._merge()
        self._numbers = [np.concatenate(self._numbers)] if self._numbers else [np.zeros(0, np.int32)]
        return RawIds(self._numbers[0], self._names)

    def _gather(self) -> None:
        """Number the pieces among themselves: rarely, since small pieces cost as much as large ones."""
        if not self._pieces:
            return
        texts, self._pieces = pl.concat(self._pieces), []
        names = texts.unique(maintain_order=True)
        self._waiting.append((_copied(names), _positions(texts, names)))
        if sum(len(waiting) for waiting, _ in self._waiting) > max(_MERGE_AT, len(self._names)):
            self._merge()

    def _merge(self) -> None:
        names = pl.concat([self._names, *(waiting for waiting, _ in self._waiting)]).unique(maintain_order=True)
        for waiting, numbers in self._waiting:
            self._numbers.append(_positions(waiting, names)[numbers])
        self._names, self._waiting = _copied(names), []


def _positions(texts: pl.Series, names: pl.Series) -> NDArray[np.int32]:
    """Row of each text in `names`, which holds it."""
    return texts.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)


def _copied(texts: pl.Series) -> pl.Series:
    """The texts in memory of their own; polars' strings are views that would keep the whole block they came from."""
    return texts + ""


@dataclass(frozen=True)
class Records:
    """Interactions of one source in file order, I rows.

    Attributes:
        user_tokens, item_tokens: (I,) raw ids as the source writes them, never empty.
        timestamps: (I,) int64 seconds since 1970 UTC, not negative.
        items: The item table, None where the source has none.
        notes: What the reader met that the user should know, one sentence each.
    """

    user_tokens: RawIds
    item_tokens: RawIds
    timestamps: Int64[np.ndarray, "I"]
    items: ItemTable | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.timestamps)


def are_ids(texts: pl.Series) -> pl.Series:
    """(I,) whether each text can be an id: it is not null, not empty, and has no NUL."""
    return (texts.fill_null("") != "") & ~texts.fill_null("").str.contains("\0", literal=True)


class RecordsBuilder:
    """Collects the rows that a reader yields in blocks."""

    def __init__(self) -> None:
        self._users, self._items = TokenCoder(), TokenCoder()
        self._timestamps: list[Int64[np.ndarray, "n"]] = [np.zeros(0, np.int64)]

    def add(self, users: pl.Series, items: pl.Series, timestamps: Any) -> None:
        """Append rows: texts and whole seconds."""
        self._users.add(users)
        self._items.add(items)
        self._timestamps.append(np.asarray(timestamps, dtype=np.int64))

    def item_tokens(self) -> RawIds:
        """Item ids of the rows so far."""
        return self._items.tokens()

    def build(self, items: ItemTable | None = None, notes: Sequence[str] = ()) -> Records:
        """The records."""
        timestamps = np.concatenate(self._timestamps)
        return Records(self._users.tokens(), self._items.tokens(), timestamps, items, tuple(notes))
