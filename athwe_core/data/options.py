"""What `prepare` can be told; every value is part of the version of a prepared data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from athwe_core.errors import ConfigError

TieOrder = Literal["file", "item", "random"]
LEAST_INTERACTIONS = 3  # one each for training, validation and test


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare`, checked on construction (ConfigError).

    Attributes:
        tie_order: Order of one user's interactions with equal times: as in the `file`, by raw `item` id, or `random`.
        min_interactions: Fewest interactions a user and an item keep, >= 3.
        category_column: Column of the item table with the categories; None takes `cat.pt`, else `categories`,
            else `category`.
        text_columns: Columns to make text features from; None takes the vectors found beside the interactions,
            else features made from title, brand and categories.
        max_categories: Most frequent categories kept, >= 1.
        text_width: Width of the built-in text features, >= 1.
        seed: Of the random tie order, the text features and the demo data, >= 0.
        demo_users, demo_items: Size of the `demo` data set; no meaning for others.
    """

    tie_order: TieOrder = "file"
    min_interactions: int = 5
    category_column: str | None = None
    text_columns: tuple[str, ...] | None = None
    max_categories: int = 300
    text_width: int = 256
    seed: int = 0
    demo_users: int = 2000
    demo_items: int = 1000

    def __post_init__(self) -> None:
        if self.tie_order not in get_args(TieOrder):
            raise ConfigError("tie_order", f"must be one of {', '.join(get_args(TieOrder))}", self.tie_order)
        least = {"min_interactions": LEAST_INTERACTIONS, "max_categories": 1, "text_width": 1, "seed": 0}
        for name, minimum in {**least, "demo_users": 100, "demo_items": 100}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ConfigError(name, f"must be a whole number >= {minimum}", value)
        if self.category_column is not None and not self.category_column:
            raise ConfigError("category_column", "must name a column", self.category_column)
        if self.text_columns is not None:
            if isinstance(self.text_columns, str) or not all(self.text_columns) or not self.text_columns:
                raise ConfigError("text_columns", "must name at least one column", self.text_columns)
            object.__setattr__(self, "text_columns", tuple(self.text_columns))
