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
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from athwe_core.config_schema import Config, LossesConfig, ModelConfig
from athwe_core.errors import ConfigError, require

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
    "parse_yaml",
    "preset_tree",
    "read_yaml",
    "replace_in",
]

PRESETS = ("athwe", "athwe-published", "hm4sr")
MAX_YAML_LENGTH = 100_000
"""Characters or bytes of a YAML text; a complete configuration has two thousand."""
MAX_YAML_DEPTH = 20
MAX_NUMBER_LENGTH = 1000
MAX_KEY_PARTS = 10
MAX_WHOLE = 2**32
MAX_REAL = 3e38
"""What float32 holds: the network computes in it."""
_COMPARE = "Compare it with a preset: plain keys, numbers, text and lists"

_Section = TypeVar("_Section")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _convert(key: str, annotation: Any, value: object) -> Any:
    """`value` as the annotated type; no conversion that could hide a mistake (true is no number, 1.5 no count).

    Numbers are finite and of a size that the network's own types hold.
    """
    if _is_union(annotation):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        if isinstance(value, bool) and {"on", "off"} <= set(choices):  # what YAML 1.1 makes of these words
            value = "on" if value else "off"
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
    if annotation is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_REAL:
        value = float(value)
    if annotation is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    is_right = isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    require(is_right, key, f"must be {words[annotation]}", value)
    if annotation in (float, int):
        largest = MAX_REAL if annotation is float else MAX_WHOLE
        is_bounded = abs(typing.cast(float, value)) <= largest
        require(is_bounded, key, f"must be finite, at most {largest:g} in size", value)
    return value


def _build(cls: type[_Section], tree: object, prefix: str) -> _Section:
    require(isinstance(tree, Mapping), prefix or "configuration", "must be a section of keys", tree)
    tree = typing.cast(Mapping[str, object], tree)
    hints = typing.get_type_hints(cls)
    for name in tree:
        _require_known(name, [f.name for f in fields(typing.cast(Any, cls))], prefix)
    values: dict[str, Any] = {}
    for f in fields(typing.cast(Any, cls)):
        key = f"{prefix}.{f.name}".lstrip(".")
        if f.name not in tree:
            raise ConfigError(key, "is missing from the configuration", remedy="Start from a preset")
        hint = hints[f.name]
        is_section = isinstance(hint, type) and is_dataclass(hint)
        values[f.name] = _build(hint, tree[f.name], key) if is_section else _convert(key, hint, tree[f.name])
    return cls(**values)


def _require_known(name: object, known: list[str], prefix: str) -> None:
    if name in known:
        return
    shown = _shown(name)
    near = difflib.get_close_matches(shown, known, n=1)
    where = f"{prefix}." if prefix else ""
    remedy = f"Did you mean {where}{near[0]}?" if near else f"Known under {prefix or 'the top'}: {', '.join(known)}"
    raise ConfigError(f"{where}{shown}", "is no configuration key", remedy=remedy)


def _shown(name: object) -> str:
    """A key as an error shows it: what could steer the terminal is escaped, what would fill it is cut."""
    text = str(name)
    shown = text if text.isprintable() and text.strip() else ascii(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def _merge(base: dict[str, Any], change: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`base` with the leaves of `change` replaced; a key `base` does not have is an error."""
    merged = dict(base)
    for name, value in change.items():
        _require_known(name, list(base), prefix)
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(base[name], dict):
            require(isinstance(value, Mapping), key, "must be a section of keys", value)
            merged[name] = _merge(base[name], value, key)
        elif isinstance(value, Mapping):
            raise ConfigError(key, "must be a value, not a section of keys", remedy="No key has keys below a value")
        else:
            merged[name] = value
    return merged


class _PlainLoader(yaml.SafeLoader):
    """Text, numbers, true and false, null, lists and mappings, nested to a limit: no other tag, no alias, no key twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node and what is in it. An alias repeats a part: ten lines of them can hold more than the memory."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "an alias is not allowed: write the part out", mark)
        if self.depth == MAX_YAML_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {MAX_YAML_DEPTH}", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A dictionary; plain YAML would take the last of two values of one key."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {_shown(key.value)} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_bounded(self, node: Any) -> Any:
        """A number or truth value; the error of a text that looks like one has a line too."""
        try:
            if len(node.value) <= MAX_NUMBER_LENGTH:
                return yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        except (ValueError, OverflowError, LookupError):
            pass
        raise ConstructorError(None, None, "a number or truth value that cannot be read", node.start_mark)


_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
_BOUNDED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag in _PLAIN]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.yaml_constructors = {
    tag: _PlainLoader.construct_bounded if tag in _BOUNDED else construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag in _PLAIN
}


def parse_yaml(text: str, name: str) -> Any:
    """The plain value of a YAML text.

    Args:
        name: what the text is, for errors: a file, an option.
    Raises: ConfigError with the line for what is no YAML, and for tags, aliases, a key given twice, numbers of more than
        1,000 characters, more than 20 levels, more than 100,000 characters.
    """
    limit = f"must have at most {MAX_YAML_LENGTH} characters"
    require(len(text) <= MAX_YAML_LENGTH, name, limit, len(text), _COMPARE)
    try:
        return _PlainLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name} line {mark.line + 1}" if mark is not None else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(where, f"must be readable YAML ({problem})", remedy=_COMPARE) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (UTF-8); ConfigError with line where it is no YAML or no mapping, see `parse_yaml`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_YAML_LENGTH + 1)
    except FileNotFoundError:
        raise ConfigError(str(path), "must be a file", remedy="Check the path given to --config") from None
    except OSError as error:
        remedy = "Check the path and who may read it"
        raise ConfigError(str(path), f"must be readable ({error.strerror})", remedy=remedy) from None
    require(len(content) <= MAX_YAML_LENGTH, str(path), f"must have at most {MAX_YAML_LENGTH} bytes", "more", _COMPARE)
    try:
        tree = parse_yaml(content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"must be readable YAML ({error})", remedy="Save it as UTF-8 text") from None
    require(tree is None or isinstance(tree, dict), str(path), "must be a mapping of configuration keys", tree)
    return tree or {}


def preset_tree(name: str) -> dict[str, Any]:
    """The complete tree of a preset."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        known = f"Known: {', '.join(PRESETS)}"
        raise ConfigError("preset", "is unknown", name, f"Did you mean {near[0]}? {known}" if near else known)
    text = resources.files("athwe_core").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return typing.cast(dict[str, Any], parse_yaml(text, f"preset {name}"))


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as `{"a": {"b": c}}`; c is read as YAML."""
    key, equals, value = text.partition("=")
    require(bool(equals) and bool(key.strip()), f"--set {_shown(text)}", "must have the form a.b=value", text)
    name = f"--set {_shown(key)}"
    require(key.count(".") < MAX_KEY_PARTS, name, f"must have at most {MAX_KEY_PARTS} parts", key.count(".") + 1)
    try:
        parsed = parse_yaml(value, name)
    except ConfigError as error:
        raise ConfigError(name, error.rule, value, error.remedy) from None
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
