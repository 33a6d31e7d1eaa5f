"""Sweep: a configuration with every combination of the values of some of its keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from athwe_core.analysis.experiments.plan import Experiment, Variant, limited
from athwe_core.config import Config, config_tree
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError, require
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import replace_in

FIXED = {
    "training.seed": "cannot be varied: use --seeds",
    "training.device": "must be the same for all variants: it does not change the result of a run",
    "evaluation": "must be the same for all variants, which are compared by it",
}
"""Keys, or sections of keys, that cannot be varied, and why."""

MOST_CHARACTERS = 120
"""Longest part of a run's name that describes its variant; file systems allow 255 characters in all."""


@dataclass(frozen=True)
class Varied:
    """A key and the values to try, as they were typed."""

    key: str
    texts: tuple[str, ...]


def parse_varied(text: str) -> Varied:
    """`KEY=V1,V2,...` as key and values; a comma inside brackets or quotes belongs to a value.

    Raises: ConfigError where there is no key or an empty value.
    """
    key, equals, rest = text.partition("=")
    texts = tuple(part.strip() for part in _split(rest))
    right = bool(equals) and bool(key.strip()) and all(texts)
    require(right, "--vary", "must have the form a.b=value,value,...", text)
    return Varied(key.strip(), texts)


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def sweep(
    config: Config,
    prepared: PreparedDataset,
    *,
    preset: str,
    vary: Sequence[str],
    seeds: Sequence[int] = (0, 1, 2),
    metric: str = "ndcg@10",
    split: str = "validation",
    quick_epochs: int | None = None,
) -> Experiment:
    """A variant for each point of the grid.

    Args:
        config: the configuration that the variants start from; it fits the data set.
        prepared: the data set.
        preset: the preset that `config` started from.
        vary: `KEY=V1,V2,...`, for any key of the configuration except those of `FIXED`. Several make a grid.
        seeds: of each variant, >= 1.
        metric: the metric of changes and tests.
        split: the split of changes and tests.
        quick_epochs: at most so many epochs; None = as many as the configuration has.
    Returns: the variants, the last key changing fastest. The reference is the variant that equals `config`, if there is one.
    Raises: ConfigError for no key, an unknown key, or a value that is not allowed, is given twice or does not fit the data.
    """
    axes = [parse_varied(text) for text in vary]
    require(len(axes) > 0, "--vary", "must be given at least once, as a.b=value,value,...", list(vary))
    keys = tuple(axis.key for axis in axes)
    require(len(set(keys)) == len(keys), "--vary", "must name each key once", list(keys))
    if quick_epochs is not None and "training.epochs" in keys:
        raise ConfigError("--epochs", "must be left out where training.epochs varies", quick_epochs)
    for key in keys:
        for fixed, why in FIXED.items():
            if key == fixed or key.startswith(f"{fixed}."):
                raise ConfigError(f"--vary {key}", why)
    config = limited(config, quick_epochs)
    variants, notes = list[Variant](), list[str]()
    for texts in product(*(axis.texts for axis in axes)):
        variant, variant_notes = _variant(config, prepared, keys, texts)
        for other in variants:
            require(
                other.config != variant.config,
                "--vary",
                f"must give each value once: {other.label} is the same",
                variant.label,
            )
        variants.append(variant)
        notes += variant_notes
    same = [variant.config == config for variant in variants]
    return Experiment(
        kind="sweep",
        preset=preset,
        variants=tuple(variants),
        seeds=tuple(seeds),
        metric=metric,
        split=split,
        reference=same.index(True) if True in same else None,
        varied=keys,
        notes=tuple(notes),
        quick_epochs=quick_epochs,
    )


def _variant(
    config: Config, prepared: PreparedDataset, keys: Sequence[str], texts: Sequence[str]
) -> tuple[Variant, list[str]]:
    """The variant at a point of the grid, and notes on how it was adapted to the data."""
    label, changes = ", ".join(texts), tuple(f"{key}={text}" for key, text in zip(keys, texts, strict=True))
    typed = replace_in(config, changes)
    fitted, notes = adapt_to_data(typed, prepared)
    values = {key: _value_at(fitted, key) for key in keys}
    for key, change in zip(keys, changes, strict=True):
        require(not isinstance(values[key], dict), f"--vary {key}", "must be a single key, not a section", change)
        if values[key] != _value_at(typed, key):
            raise ConfigError(f"--vary {change}", f"must fit the data set and the other values: {notes[-1]}")
    named = (f"{'.'.join(key.split('.')[-2:])}-{text}" for key, text in zip(keys, texts, strict=True))
    slug = re.sub(r"[^A-Za-z0-9.+_]+", "-", "-".join(named)).strip("-")[:MOST_CHARACTERS]
    return Variant(label, slug, changes, values, fitted), [f"{label}: {note}" for note in notes]


def _value_at(config: Config, key: str) -> Any:
    """The value of a key that the configuration has; a section is a dictionary."""
    value: Any = config_tree(config)
    for name in key.split("."):
        value = value[name]
    return value
