"""The options of `prepare`; every value is part of the version of a prepared data set."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from athwe_core.errors import require

TieOrder = Literal["file", "item", "random"]
SourceKind = Literal["auto", "atomic", "amazon-2014", "amazon-2018", "amazon-2023", "movielens", "table", "demo"]
_Numbers = Literal["s", "ms", "us", "ns", "minutes", "hours", "days", "excel"]
_Dates = Literal["year", "yyyymmdd", "iso", "month/day/year", "day/month/year"]
TimeUnit = Literal["auto", _Numbers, _Dates]
Quotes = Literal["auto", "double", "none"]
SplitRule = Literal["auto", "leave-one-out", "global-time", "given"]
Pooling = Literal["cls", "mean"]
FeatureRows = Literal["auto", "number", "number-from-1", "appearance"]
RefreshKind = Literal["text", "image", "clusters"]
BUILTIN = "builtin"
DEMO = "demo"
LEAST_INTERACTIONS = 3  # one each for training, validation and test
ALWAYS_IN_VERSION = (
    *("tie_order", "min_interactions", "category_column", "text_columns", "max_categories", "text_width"),
    *("seed", "demo_users", "demo_items"),
)
SIZE_OF_OTHERS = {"demo_users": 2000, "demo_items": 1000}
"""What versions of other data sets have for the size of the demo, which was its default when versions were first named."""
NEVER_IN_VERSION = ("source", "text_encoder", "image_encoder", "keep_feature_scale")
"""The version has in their place the kind of source that was found, the revision of the model, and whether vectors were
normalised."""


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare`, checked on construction (ConfigError).

    Attributes:
        tie_order: Order of one user's interactions with equal times: as in the `file`, by raw `item` id, or `random`.
        split: `leave-one-out` (each user's last item is test, the one before validation), `global-time` (all items before
            one moment are training; the first one after it is the target), `given` (by the files NAME.train.inter,
            NAME.valid.inter and NAME.test.inter), or `auto`: `given` where there are such files, else `leave-one-out`.
        held_out_share: Of global-time: share of all interactions in the validation and again in the test period, in (0, 0.5).
        min_interactions: Fewest interactions a user and an item keep, >= 3. A given split is not filtered.
        category_column: Column of the item table with the categories; None takes `cat.pt`, else `categories`,
            else `category`.
        text_columns: Columns to make text features from; None takes vectors next to the interactions,
            else features made from title, brand and categories.
        max_categories: Most frequent categories kept, >= 1.
        text_width: Width of the built-in text features, >= 1.
        seed: Of the random tie order, the text features and the demo data, >= 0.
        demo_users, demo_items: Size of the `demo` data set; no meaning for others.
        source: Kind of the source files; `auto` detects it from their content.
        user_column, item_column, time_column: Columns of a `table`; None detects them by common names, and the time by its
            values.
        columns: Names of all columns of a `table` without header line, in their order; None reads the header.
        quotes: Of a delimited `table`: fields may stand in double quotes (`double`), or quotes are ordinary characters
            (`none`); `auto` is `double`, but notices quotes that do not pair.
        time_unit: Of a table's times: numbers since 1970 (`s`, `ms`, `us`, `ns`, `minutes`, `hours`, `days`), days as
            spreadsheets count (`excel`), or dates; `auto` detects it from the values (but not minutes and hours).
        time_format: Format of a table's times as Python's `strptime` has it; None detects it.
        max_bad_lines: Largest share of a file's lines, in [0, 1], that may be unreadable and are dropped; atomic files allow
            none.
        max_missing_ids: Largest share of rows, in [0, 1], whose user or item may be a placeholder (nan, null, None, NA, -1,
            empty) and that are dropped.
        text_encoder: `builtin`, or name or folder of a Hugging Face model for the item texts. Given vectors take precedence
            over it, named `text_columns` over them.
        text_pooling: Of such a model: first position (`cls`) or `mean` over the positions.
        text_max_tokens: Of such a model: where longer texts are cut, >= 1.
        image_encoder: Name or folder of a Hugging Face vision model for the items' pictures; given vectors take precedence.
        image_column: Column of the item table with the path or URL of each picture; None finds pictures by item id.
        text_layers, image_layers: Layers of the encoders whose pooled states are kept too, in half precision; 0 is the
            embedding output. Models that adapt to frozen encoders read them. None keeps none.
        clusters: k of the cluster labels made from text and image vectors, for the cluster term; 0 makes none. Given
            labels take precedence.
        half_features: Keep text and image vectors in float16, rounded to 3 decimal digits: half the disk, and half of what
            is read where a sampled catalogue loss fetches them from it.
        keep_feature_scale: Leave the scale of given and encoded vectors as it is. Without it all vectors of a kind are
            multiplied by one number, so that the median length of a row is the square root of the width.
        feature_rows: Order of the rows of feature files: row k is item k (`number`), item k + 1 (`number-from-1`) or the
            k-th item by first appearance (`appearance`); `auto` finds it, see `features.row_order`.
        keep_items: Items of the item table with too few interactions, or none, stay in the catalogue, behind the others:
            nothing trains on their interactions, and a model ranks them by text and image.
    """

    tie_order: TieOrder = "file"
    split: SplitRule = "auto"
    held_out_share: float = 0.1
    min_interactions: int = 5
    category_column: str | None = None
    text_columns: tuple[str, ...] | None = None
    max_categories: int = 300
    text_width: int = 256
    seed: int = 0
    demo_users: int = 1000
    demo_items: int = 600
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
    columns: tuple[str, ...] | None = None
    quotes: Quotes = "auto"
    time_format: str | None = None
    max_missing_ids: float = 0.01
    keep_feature_scale: bool = False
    text_layers: tuple[int, ...] | None = None
    image_layers: tuple[int, ...] | None = None
    feature_rows: FeatureRows = "auto"
    keep_items: bool = False

    def __post_init__(self) -> None:
        choices = {"tie_order": TieOrder, "split": SplitRule, "source": SourceKind, "time_unit": TimeUnit}
        choices |= {"text_pooling": Pooling, "quotes": Quotes, "feature_rows": FeatureRows}
        for name, choice in choices.items():
            value = getattr(self, name)
            require(value in get_args(choice), typed(name), f"must be one of {', '.join(get_args(choice))}", value)
        for name in ("max_bad_lines", "max_missing_ids"):
            require(0 <= getattr(self, name) <= 1, typed(name), "must be in [0, 1]", getattr(self, name))
        require(0 < self.held_out_share < 0.5, "--held-out-share", "must be in (0, 0.5)", self.held_out_share)
        least = {"min_interactions": LEAST_INTERACTIONS, "max_categories": 1, "text_width": 1, "seed": 0}
        least |= {"text_max_tokens": 1, "clusters": 0}
        for name, minimum in {**least, "demo_users": 100, "demo_items": 100}.items():
            value = getattr(self, name)
            is_whole = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
            require(is_whole, typed(name), f"must be a whole number >= {minimum}", value)
        for name in ("text_encoder", "image_encoder"):
            require(getattr(self, name) != "", typed(name), "must name a model or a folder", "")
        for name in ("category_column", "user_column", "item_column", "time_column", "image_column"):
            require(getattr(self, name) != "", typed(name), "must name a column", "")
        for name in ("text_columns", "columns"):
            names = getattr(self, name)
            if names is not None:
                is_good = not isinstance(names, str) and bool(names) and all(names)
                require(is_good, typed(name), "must name at least one column", names)
                object.__setattr__(self, name, tuple(names))
        for name, has_encoder in (
            ("text_layers", self.text_encoder != BUILTIN),
            ("image_layers", self.image_encoder is not None),
        ):
            layers = getattr(self, name)
            if layers is not None:
                is_good = bool(layers) and list(layers) == sorted(set(layers)) and min(layers) >= 0
                require(is_good, typed(name), "must be increasing layer numbers, from 0", layers)
                kind = name.partition("_")[0]
                rule, remedy = f"needs --{kind}-encoder", f"Name an encoder with --{kind}-encoder"
                require(has_encoder, typed(name), rule, layers, remedy)
                object.__setattr__(self, name, tuple(layers))
        if self.columns is not None:
            require(
                len(set(self.columns)) == len(self.columns), "--columns", "must name each column once", self.columns
            )
        if self.time_format is not None:
            require(self.time_unit == "auto", "--time-format", "replaces --time-unit: name one of them", self.time_unit)
            rule, remedy = "must be a date format with a year", "E.g. --time-format '%d.%m.%Y %H:%M'"
            from athwe_core.data.readers.dates import is_format  # noqa: PLC0415 - training opens data without polars

            require(is_format(self.time_format), "--time-format", rule, self.time_format, remedy)

    def identity(self, *, is_demo: bool = False) -> dict[str, Any]:
        """The options that are part of the version's name: those of the first version always, later ones where they differ
        from their default, so that a new option renames no version that was prepared without it. The size of the demo
        counts for the demo only.
        """
        defaults = {field.name: field.default for field in fields(self)}
        defaults["split"] = "leave-one-out" if self.split != "auto" else "auto"  # the default of older versions
        chosen = {k: v for k, v in asdict(self).items() if k in ALWAYS_IN_VERSION or v != defaults[k]}
        chosen |= {} if is_demo else SIZE_OF_OTHERS
        return {k: v for k, v in chosen.items() if k not in NEVER_IN_VERSION}


def typed(name: str) -> str:
    """An option as it is typed on the command line: `--time-unit` for `time_unit`."""
    return {"demo_users": "--users", "demo_items": "--items"}.get(name, f"--{name.replace('_', '-')}")


def prepare_command(dataset: str, options: Mapping[str, Any]) -> str:
    """`athwe prepare` with every option that differs from its default, as typed.

    Args:
        dataset: its name. Files that were given with `--raw` are not part of the command.
        options: of a prepared version's manifest.
    """
    words = ["athwe", "prepare", "--dataset", dataset]
    for field in fields(PrepareOptions):
        if field.name in SIZE_OF_OTHERS and dataset != DEMO:
            continue
        value = options.get(field.name, field.default)
        if value is None or value == field.default:
            continue
        is_list = isinstance(value, list | tuple)
        text = ",".join(map(str, value)) if is_list else str(value)
        words += [typed(field.name)] if value is True else [typed(field.name), text]
    return shlex.join(words)
