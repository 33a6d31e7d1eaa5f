"""What `prepare` can be told; every value is part of the version of a prepared data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from athwe_core.errors import ConfigError

TieOrder = Literal["file", "item", "random"]
SourceKind = Literal["auto", "atomic", "amazon-2014", "amazon-2018", "amazon-2023", "table", "demo"]
TimeUnit = Literal["auto", "s", "ms", "us", "iso"]
SplitRule = Literal["leave-one-out", "global-time"]
Pooling = Literal["cls", "mean"]
RefreshKind = Literal["text", "image", "clusters"]
BUILTIN = "builtin"
LEAST_INTERACTIONS = 3  # one each for training, validation and test
ALWAYS_IN_VERSION = (
    *("tie_order", "min_interactions", "category_column", "text_columns", "max_categories", "text_width"),
    *("seed", "demo_users", "demo_items"),
)
NEVER_IN_VERSION = ("source", "text_encoder", "image_encoder")
"""The kind of source that was found counts instead, and the revision of the model."""


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
        source: Kind of the source files; `auto` looks at them.
        user_column, item_column, time_column: Columns of a `table`; None guesses by common names.
        time_unit: Unit of a table's times, numbers since 1970 (`s`, `ms`, `us`) or ISO dates; `auto` guesses by magnitude.
        max_bad_lines: Share of a file's lines, in [0, 1], that may be unreadable and are left out; atomic files allow none.
        text_encoder: `builtin`, or name or folder of a Hugging Face model for the item texts. Given vectors win over it,
            named `text_columns` win over them.
        text_pooling: Of such a model: first position (`cls`) or `mean` over the positions.
        text_max_tokens: Of such a model: where longer texts are cut, >= 1.
        image_encoder: Name or folder of a Hugging Face vision model for the items' pictures; given vectors win over it.
        image_column: Column of the item table with the path or URL of each picture; None finds pictures by item id.
        clusters: k of the cluster labels made from text and image vectors, for the cluster term; 0 makes none. Given
            labels win.
        half_features: Keep text and image vectors in float16, rounded to 3 decimal digits: half the disk, and half of what
            is read where a sampled catalogue loss fetches them from it.
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
    source: SourceKind = "auto"
    user_column: str | None = None
    item_column: str | None = None
    time_column: str | None = None
    time_unit: TimeUnit = "auto"
    max_bad_lines: float = 0.001
    text_encoder: str = BUILTIN
    text_pooling: Pooling = "cls"
    text_max_tokens: int = 512
    image_encoder: str | None = None
    image_column: str | None = None
    clusters: int = 0
    half_features: bool = False

    def __post_init__(self) -> None:
        choices = {"tie_order": TieOrder, "split": SplitRule, "source": SourceKind, "time_unit": TimeUnit}
        choices["text_pooling"] = Pooling
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                raise ConfigError(name, f"must be one of {', '.join(get_args(choice))}", getattr(self, name))
        if not 0 <= self.max_bad_lines <= 1:
            raise ConfigError("max_bad_lines", "must be in [0, 1]", self.max_bad_lines)
        if not 0 < self.held_out_share < 0.5:
            raise ConfigError("held_out_share", "must be in (0, 0.5)", self.held_out_share)
        least = {"min_interactions": LEAST_INTERACTIONS, "max_categories": 1, "text_width": 1, "seed": 0}
        least |= {"text_max_tokens": 1, "clusters": 0}
        for name, minimum in {**least, "demo_users": 100, "demo_items": 100}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ConfigError(name, f"must be a whole number >= {minimum}", value)
        for name in ("text_encoder", "image_encoder"):
            if getattr(self, name) == "":
                raise ConfigError(name, "must name a model or a folder", "")
        for name in ("category_column", "user_column", "item_column", "time_column", "image_column"):
            if getattr(self, name) == "":
                raise ConfigError(name, "must name a column", "")
        if self.text_columns is not None:
            if isinstance(self.text_columns, str) or not all(self.text_columns) or not self.text_columns:
                raise ConfigError("text_columns", "must name at least one column", self.text_columns)
            object.__setattr__(self, "text_columns", tuple(self.text_columns))

    def identity(self) -> dict[str, Any]:
        """What names the version: these options always, later ones where they differ from their default.

        So a new option renames no version that was prepared without it.
        """
        defaults = {field.name: field.default for field in fields(self)}
        chosen = {k: v for k, v in asdict(self).items() if k in ALWAYS_IN_VERSION or v != defaults[k]}
        return {k: v for k, v in chosen.items() if k not in NEVER_IN_VERSION}
