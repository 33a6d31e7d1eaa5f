"""Configuration text to plain trees: YAML files and `a.b=c` overrides, read without a way to do harm, and merged.

Layers, later ones win: preset, the project's `config/NAME.yaml`, `--config FILE`, `--set a.b=c`. Trees become a validated
configuration in `athwe_core.models.registry`, which knows the sections of each model.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from athwe_core.config_schema import Config, config_tree, shown_key, unknown_key
from athwe_core.errors import ConfigError, require

__all__ = ["Config", "config_tree", "flattened", "merged", "nested", "parse_override", "parse_yaml", "read_yaml"]

MAX_YAML_LENGTH = 100_000
"""Characters or bytes of a YAML text; a complete configuration has two thousand."""
MAX_YAML_DEPTH = 20
MAX_NUMBER_LENGTH = 1000
MAX_KEY_PARTS = 10
_COMPARE = "Compare it with a preset: plain keys, numbers, text and lists"


def merged(base: dict[str, Any], change: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`base` with the leaves of `change` replaced; a key `base` does not have is an error."""
    result = dict(base)
    for name, value in change.items():
        if name not in base:
            raise unknown_key(name, list(base), prefix)
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(base[name], dict):
            require(isinstance(value, Mapping), key, "must be a section of keys", value)
            result[name] = merged(base[name], value, key)
        elif isinstance(value, Mapping):
            raise ConfigError(key, "must be a value, not a section of keys", remedy="No key has keys below a value")
        else:
            result[name] = value
    return result


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
                raise ConstructorError(None, None, f"the key {shown_key(key.value)} is there twice", key.start_mark)
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


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as `{"a": {"b": c}}`; c is read as YAML."""
    key, equals, value = text.partition("=")
    require(bool(equals) and bool(key.strip()), f"--set {shown_key(text)}", "must have the form a.b=value", text)
    name = f"--set {shown_key(key)}"
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


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": c}}` as `{"a.b": c}`."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
