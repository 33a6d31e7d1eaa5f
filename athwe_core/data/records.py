"""Records: the one column form that every reader yields, before filtering and numbering."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import Int64


@dataclass(frozen=True)
class ItemTable:
    """What a source says about its items, as text.

    Attributes:
        frame: String columns, `item_id` first, one row an item, no item twice; an empty string where a value is absent.
        types: Column name -> `token`, `token_seq`, `float` or `float_seq` (sequences are space separated).
        source: The file it came from, for messages.
    """

    frame: pl.DataFrame
    types: dict[str, str]
    source: str


@dataclass(frozen=True)
class Records:
    """Interactions of one source in file order, I rows; tokens are the raw ids as the source writes them.

    Attributes:
        user_tokens: (I,) strings, never empty.
        item_tokens: (I,) strings, never empty.
        timestamps: (I,) int64 seconds since 1970 UTC, not negative.
        items: The item table, None where the source has none.
        notes: What the reader met that the user should know, one sentence each.
    """

    user_tokens: pl.Series
    item_tokens: pl.Series
    timestamps: Int64[np.ndarray, "I"]
    items: ItemTable | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.timestamps)


def number_by_first_appearance(tokens: pl.Series) -> tuple[Int64[np.ndarray, "I"], list[str]]:
    """Number tokens 0, 1, ... in the order in which they first appear.

    Args:
        tokens: (I,) strings.
    Returns:
        The (I,) int64 numbers, and the tokens by number.
    """
    names = tokens.unique(maintain_order=True)
    numbers = tokens.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)
    return numbers, names.to_list()
