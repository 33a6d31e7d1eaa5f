"""A search space: configuration keys and the values they may take, read from YAML and checked against a configuration."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from athwe_core.config import Config, config_tree, read_yaml
from athwe_core.errors import ConfigError, require
from athwe_core.models.registry import find_model, replace_in
from athwe_core.training.randomness import keyed_rng

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FIXED = ("evaluation.ks", "evaluation.exclude_seen", "training.seed", "training.device")
"""Keys that decide how a trial is evaluated, or where it runs, and the seed."""
DRAWS = 200
"""Combinations drawn before a value counts as allowed in none."""

Scalar = str | int | float | bool | None
Values = dict[str, Any]
"""Configuration keys with a value for each."""


@dataclass(frozen=True)
class Choices:
    """One of several values without an order."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def ends(self) -> tuple[Any, ...]:
        """The values that the configuration must allow."""
        return self.values

    def count(self) -> int | None:
        return len(self.values)

    def encode(self, value: Any) -> Scalar:
        """As optuna stores it: a list as text."""
        return json.dumps(value) if isinstance(value, list) else value

    def decode(self, stored: Any) -> Any:
        return next(value for value in self.values if self.encode(value) == stored)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution  # noqa: PLC0415 - an extra

        return CategoricalDistribution([self.encode(value) for value in self.values])

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; in steps, or log-uniform."""

    low: float
    high: float
    step: float | None
    log: bool
    whole: bool
    """Whole numbers only; `step` is then one too, by default 1."""

    def draw(self, rng: np.random.Generator) -> Any:
        if self.step is not None and not self.log:
            return self.decode(self.low + self.step * int(rng.integers(round((self.high - self.low) / self.step) + 1)))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = float(rng.uniform(low, high))
        return self.decode(min(self.high, max(self.low, math.exp(value) if self.log else value)))

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    def count(self) -> int | None:
        """None for a continuous range."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def encode(self, value: Any) -> Scalar:
        return value

    def decode(self, stored: Any) -> Any:
        """A multiple of the step without its rounding error: 0.3, not 0.30000000000000004."""
        if self.whole:
            return round(stored)
        return stored if self.step is None else round(stored, 10)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution  # noqa: PLC0415 - an extra

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        steps = f" in steps of {self.step:g}" if self.step is not None and not (self.whole and self.step == 1) else ""
        return f"{self.low:g} to {self.high:g}{steps}{', log-uniform' if self.log else ''}"


SearchSpace = dict[str, Choices | Range]
"""Configuration keys with what each may be."""


def read_space(path: Path | None, *, model: str) -> Mapping[str, Any]:
    """Read a search space, for `parse_space`.

    Args:
        path: a YAML file; None = the search space that comes with the model.
        model: value of `model.name`.
    Raises: ConfigError where the file does not exist or holds no YAML mapping, or where the model comes without a space.
    """
    if path is not None:
        require(path.is_file(), "--space", "must be a file", str(path))
        return read_yaml(path)
    own = find_model(model).presets / "search" / f"{model}.yaml"
    if not own.is_file():
        remedy = "Write a YAML file with lines such as: training.lr: {low: 0.0003, high: 0.01, log: true}"
        raise ConfigError("--space", f"must be given: model {model} comes without a search space", remedy=remedy)
    tree: Mapping[str, Any] = yaml.safe_load(own.read_text(encoding="utf-8"))
    return tree


def parse_space(tree: Mapping[str, Any], base: Config) -> SearchSpace:
    """The space of a tree `key: {choices: [...]}` or `key: {low, high, step?, log?}`.

    Args:
        base: gives each key its type. A range is of whole numbers where the value in `base` is one.
    Raises: ConfigError for an empty space, an unknown key, a malformed value, or one that no combination allows.
    """
    require(len(tree) > 0, "search space", "must have at least one key", dict(tree))
    space = {key: _parse(str(key), entry, _present(base, str(key))) for key, entry in tree.items()}
    return {key: _checked(key, part, base, space) for key, part in space.items()}


def combinations(space: SearchSpace) -> int | None:
    """How many combinations there are; None with a continuous range."""
    counts = [count for part in space.values() if (count := part.count()) is not None]
    return math.prod(counts) if len(counts) == len(space) else None


def draw(space: SearchSpace, rng: np.random.Generator) -> Values:
    """A value for each key, independently."""
    return {key: part.draw(rng) for key, part in space.items()}


def with_values(base: Config, values: Mapping[str, Any]) -> Config:
    """`base` with other values of some keys; ConfigError where they do not fit together."""
    return replace_in(base, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def _present(base: Config, key: str) -> Any:
    """The value of a key in `base`; ConfigError for a key that may not be searched."""
    if key in FIXED:
        raise ConfigError(key, "cannot be searched: trials that differ in it cannot be ranked", remedy=_remedy_of(key))
    value: Any = config_tree(base)
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            replace_in(base, [f"{key}=null"])  # names the nearest key
        value = value[name]
    if isinstance(value, dict):
        raise ConfigError(key, "must be one key and not a section", remedy=f"It has {', '.join(value)}")
    return value


def _remedy_of(key: str) -> str:
    return f"Leave it out of the space; set it with --set {key}=VALUE"


def _parse(key: str, entry: Any, present: Any) -> Choices | Range:
    form = "must be {choices: [...]} or {low: ..., high: ..., step: ..., log: ...}"
    require(isinstance(entry, Mapping), key, form, entry)
    known = ("choices", "low", "high", "step", "log")
    for name in entry:
        near = difflib.get_close_matches(str(name), known, n=1)
        require(
            name in known,
            f"{key}.{name}",
            "is unknown: " + form,
            entry[name],
            f"Did you mean {near[0]}?" if near else "",
        )
    if "choices" in entry:
        require(len(entry) == 1, key, form + " and not both", dict(entry))
        values = entry["choices"]
        is_list = isinstance(values, list) and len(values) > 0
        require(is_list, f"{key}.choices", "must be a list of at least one value", values)
        return Choices(tuple(values))
    require({"low", "high"} <= entry.keys(), key, form, dict(entry))
    return _range(key, entry, present)


def _range(key: str, entry: Mapping[str, Any], present: Any) -> Range:
    is_number = isinstance(present, int | float) and not isinstance(present, bool)
    require(
        is_number, key, f"must have choices: its value in the configuration, {present!r}, is no number", dict(entry)
    )
    low, high = _number(f"{key}.low", entry["low"]), _number(f"{key}.high", entry["high"])
    require(low < high, f"{key}.low", f"must be below high={high:g}", low)
    log = entry.get("log", False)
    require(isinstance(log, bool), f"{key}.log", "must be true or false", log)
    require(not log or low > 0, f"{key}.low", "must be positive with log: true", low)
    require(not (log and "step" in entry), f"{key}.step", "must be left out with log: true", entry.get("step"))
    whole = isinstance(present, int)
    for name in ("low", "high", "step") if whole else ():
        value = entry.get(name, 1)
        require(_number(f"{key}.{name}", value).is_integer(), f"{key}.{name}", "must be a whole number", value)
    step = _number(f"{key}.step", entry["step"]) if "step" in entry else 1.0 if whole else None
    if step is not None:
        require(step > 0, f"{key}.step", "must be positive", step)
        steps = (high - low) / step
        is_reached = abs(steps - round(steps)) < 1e-8
        reached = low + step * math.floor(steps)
        require(
            is_reached,
            f"{key}.high",
            f"must be reached from low={low:g} in steps of {step:g}",
            high,
            f"Try {reached:g}",
        )
    number = int if whole else float
    return Range(number(low), number(high), None if step is None else number(step), log, whole)


def _number(name: str, value: Any) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # YAML 1.1 reads 1e-3 as text
    except (TypeError, ValueError):
        found = math.nan
    require(math.isfinite(found), name, "must be a number", value)
    return found


def _checked(key: str, part: Choices | Range, base: Config, space: SearchSpace) -> Choices | Range:
    """`part` with its values as the configuration holds them."""
    values = []
    for value in part.ends():
        found: Any = config_tree(_allowed(key, value, base, space))
        for name in key.split("."):
            found = found[name]
        values.append(found)
    if isinstance(part, Range):
        return part
    for i, value in enumerate(values):
        require(value not in values[:i], f"{key}.choices", "must not repeat a value", value)
    return Choices(tuple(values))


def _allowed(key: str, value: Any, base: Config, space: SearchSpace) -> Config:
    """A configuration with the value, alone or with other values of the space; ConfigError where there is none."""
    try:
        return with_values(base, {key: value})
    except ConfigError as error:
        first = error
    rng = keyed_rng(0, "search space", key)
    for _ in range(DRAWS):
        try:
            return with_values(base, draw(space, rng) | {key: value})
        except ConfigError:
            continue
    raise first
