"""Multi-hot item categories from a column of the item table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from athwe_core.data.readers.records import ItemTable, split_sequence
from athwe_core.errors import DataError
from athwe_core.messages import listed

DEFAULT_COLUMNS = ("categories", "category")


@dataclass(frozen=True)
class ItemCategories:
    """Categories by internal item id.

    Attributes:
        table: (V, C) uint8, 1 = the item has the category; row 0 (padding) zero.
        names: (C,) category names, most frequent first; empty when only their numbers are known.
        source: Where they came from, as a phrase.
    """

    table: UInt8[np.ndarray, "V C"]
    names: list[str]
    source: str


def category_table(
    items: ItemTable | None, item_tokens: list[str], *, column: str | None, max_categories: int
) -> ItemCategories | None:
    """Multi-hot of the most frequent values of one column, counted over `item_tokens`; equal counts go by name.

    Args:
        items: The item table, None when the source has none.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        column: Column name; None takes `categories`, else `category`. A sequence is split into its values.
        max_categories: Largest C, >= 1.
    Returns:
        None when there is no such default column or no item has a value.
    Raises:
        DataError: The named column does not exist.
    """
    if column is not None and (items is None or column not in items.types):
        raise column_missing(items, column)
    column = column or next((name for name in DEFAULT_COLUMNS if items is not None and name in items.types), None)
    if items is None or column is None:
        return None
    texts = dict(zip(items.frame["item_id"].to_list(), items.frame[column].to_list(), strict=True))
    values = [set(split_sequence(texts.get(token, ""), items.types[column])) for token in item_tokens[1:]]
    counts = Counter(value for row in values for value in row)
    if not counts:
        return None
    names = sorted(counts, key=lambda value: (-counts[value], value))[:max_categories]
    number = {value: index for index, value in enumerate(names)}
    table = np.zeros((len(item_tokens), len(names)), dtype=np.uint8)
    for row, of_item in enumerate(values, start=1):
        table[row, [number[value] for value in of_item if value in number]] = 1
    return ItemCategories(table, names, f"column {column} of {items.source}")


def column_missing(items: ItemTable | None, column: str) -> DataError:
    """The error for a named column that the item table lacks."""
    if items is None:
        rule, remedy = "cannot be read: this data set has no .item file", "Add one, or name no column"
        return DataError(f"column {column!r}", rule, remedy=remedy)
    rule = f"has no column {column}; its columns are {listed(list(items.types))}"
    return DataError(items.source, rule, remedy="Name another")
