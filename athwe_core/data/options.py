"""What `prepare` can be told; every value is part of the version of a prepared data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from athwe_core.errors import ConfigError

TieOrder = Literal["file", "item", "random"]
SplitRule = Literal["leave-one-out", "global-time"]
LEAST_INTERACTIONS = 3  # one each for training, validation and test
ALWAYS_IN_VERSION = (
    *("tie_order", "min_interactions", "category_column", "text_columns", "max_categories", "text_width"),
    *("seed", "demo_users", "demo_items"),
)


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare`, checked on construction (ConfigError).

    Attributes:
        tie_order: Order of one user's interactions with equal times: as in the `file`, by raw `item` id, or `random`.
        split: `leave-one-out` (each user's last item is test, the one before validation) or `global-time` (everybody's items
            before one moment are training; the first one after it is asked).
        held_out_share: Of global-time: share of all interactions in the validation and again in the test period, in (0, 0.5).
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
    split: SplitRule = "leave-one-out"
    held_out_share: float = 0.1
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
        if self.split not in get_args(SplitRule):
            raise ConfigError("split", f"must be one of {', '.join(get_args(SplitRule))}", self.split)
        if not 0 < self.held_out_share < 0.5:
            raise ConfigError("held_out_share", "must be in (0, 0.5)", self.held_out_share)
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

    def identity(self) -> dict[str, Any]:
        """What names the version: these options always, later ones where they differ from their default.

        So a new option renames no version that was prepared without it.
        """
        defaults = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in asdict(self).items() if k in ALWAYS_IN_VERSION or v != defaults[k]}
