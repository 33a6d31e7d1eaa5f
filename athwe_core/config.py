"""Configurations read and written: presets, YAML files and `a.b=c` overrides.

Layers, later ones win: preset, the project's `config/NAME.yaml`, `--config FILE`, `--set a.b=c`. An unknown key is an error
that names the nearest known one; nothing has a silent default.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from athwe_core.config_sections import Config, LossesConfig, ModelConfig, require
from athwe_core.errors import ConfigError

__all__ = [
    "PRESETS",
    "Config",
    "LossesConfig",
    "ModelConfig",
    "build_config",
    "config_from_tree",
    "config_tree",
    "nested",
    "parse_override",
    "preset_tree",
    "read_yaml",
    "replace_in",
]

PRESETS = ("athwe", "athwe-published", "hm4sr")

_Section = TypeVar("_Section")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _convert(key: str, annotation: Any, value: object) -> Any:
    """`value` as the annotated type; no conversion that could hide a mistake (true is no number, 1.5 no count)."""
    if _is_union(annotation):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        require(value in choices, key, f"must be one of {', '.join(map(str, choices))}", value)
        return value
    if typing.get_origin(annotation) is tuple:
        require(isinstance(value, list | tuple), key, "must be a list", value)
        element = typing.get_args(annotation)[0]
        return tuple(_convert(f"{key}[{i}]", element, v) for i, v in enumerate(typing.cast(Iterable[object], value)))
    if annotation is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(key, "must be a number", value) from None
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if annotation is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    is_right = isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    require(is_right, key, f"must be {words[annotation]}", value)
    return value


def _build(cls: type[_Section], tree: object, prefix: str) -> _Section:
    require(isinstance(tree, Mapping), prefix or "configuration", "must be a section of keys", tree)
    tree = typing.cast(Mapping[str, object], tree)
    hints = typing.get_type_hints(cls)
    for name in tree:
        _require_known(
            f"{prefix}.{name}".lstrip("."), str(name), [f.name for f in fields(typing.cast(Any, cls))], prefix
        )
    values: dict[str, Any] = {}
    for f in fields(typing.cast(Any, cls)):
        key = f"{prefix}.{f.name}".lstrip(".")
        if f.name not in tree:
            raise ConfigError(key, "is missing from the configuration", remedy="Start from a preset")
        hint = hints[f.name]
        is_section = isinstance(hint, type) and is_dataclass(hint)
        values[f.name] = _build(hint, tree[f.name], key) if is_section else _convert(key, hint, tree[f.name])
    return cls(**values)


def _require_known(key: str, name: str, known: list[str], prefix: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    where = f"{prefix}." if prefix else ""
    remedy = f"Did you mean {where}{near[0]}?" if near else f"Known under {prefix or 'the top'}: {', '.join(known)}"
    raise ConfigError(key, "is no configuration key", remedy=remedy)


def _merge(base: dict[str, Any], change: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`base` with the leaves of `change` replaced; a key `base` does not have is an error."""
    merged = dict(base)
    for name, value in change.items():
        key = f"{prefix}.{name}".lstrip(".")
        _require_known(key, str(name), list(base), prefix)
        if isinstance(base[name], dict):
            require(isinstance(value, Mapping), key, "must be a section of keys", value)
            merged[name] = _merge(base[name], value, key)
        else:
            merged[name] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError with line where it is no YAML or no mapping."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), "must be a file", remedy="Check the path given to --config") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{where}", f"must be readable YAML ({str(error).splitlines()[0]})") from None
    require(tree is None or isinstance(tree, dict), str(path), "must be a mapping of configuration keys", tree)
    return tree or {}


def preset_tree(name: str) -> dict[str, Any]:
    """The complete tree of a preset."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        known = f"Known: {', '.join(PRESETS)}"
        raise ConfigError("preset", "is unknown", name, f"Did you mean {near[0]}? {known}" if near else known)
    text = resources.files("athwe_core").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return typing.cast(dict[str, Any], yaml.safe_load(text))


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as `{"a": {"b": c}}`; c is read as YAML."""
    key, equals, value = text.partition("=")
    require(bool(equals) and bool(key.strip()), f"--set {text}", "must have the form a.b=value", text)
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}", "must have a YAML value after =", value) from None
    return nested(key.strip(), parsed)


def nested(key: str, value: object) -> dict[str, Any]:
    """`("a.b", c)` as `{"a": {"b": c}}`."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return typing.cast(dict[str, Any], value)


def build_config(preset: str, changes: Iterable[Mapping[str, Any]] = ()) -> Config:
    """The configuration of a preset after `changes`, in order.

    Raises: ConfigError for an unknown preset or key, or a value of the wrong type or out of its range.
    """
    tree = preset_tree(preset)
    for change in changes:
        tree = _merge(tree, change)
    return config_from_tree(tree)


def config_from_tree(tree: Mapping[str, Any]) -> Config:
    """A complete tree, e.g. the `config.yaml` of a run, as a configuration."""
    return _build(Config, tree, "")


def config_tree(config: Config) -> dict[str, Any]:
    """The configuration as plain dictionaries and lists, complete: `config_from_tree` of it is `config`."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))


def replace_in(config: Config, overrides: Iterable[str]) -> Config:
    """`config` after `a.b=c` overrides."""
    tree = config_tree(config)
    for text in overrides:
        tree = _merge(tree, parse_override(text))
    return config_from_tree(tree)
