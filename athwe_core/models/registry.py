"""The models that can be trained, by name, and configurations for them.

A model NAME of this package lies in `athwe_core/models/NAME.py` (or a package of that name, dashes as underscores) and is
declared there as `MODEL`, a `ModelSpec`. Other packages declare theirs as entry points of the group `athwe.models`.
"""

from __future__ import annotations

import copy
import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from typing import Any, cast

import athwe_core.models
from athwe_core.config import merged, parse_override, parse_yaml
from athwe_core.config_schema import Config, config_tree, validated
from athwe_core.errors import ConfigError, require
from athwe_core.messages import reason
from athwe_core.models.protocol import Model, ModelInputs, ModelSpec, Tree
from athwe_core.nn.repetition import Repetition

GROUP = "athwe.models"
DEFAULT_MODEL = "athwe"
"""Of a configuration without `model.name`, as version 0.1.0 wrote it."""
ADDED_KEYS: dict[tuple[str, str], object] = {
    ("training", "selection_metric"): "ndcg@20",
    ("training", "schedule"): {"kind": "constant", "warmup": 0.1, "final": 0.02},
    ("training", "weight_decay"): 0.0,
    ("training", "shard_tables"): False,
    ("evaluation", "validation_users"): None,
    ("model", "repeat"): False,
}
"""Keys younger than version 0.1.0, with the value that changes nothing: what runs and presets without them were made for."""
ADDED_KEYS_OF_MODELS: dict[str, dict[tuple[str, str], object]] = {"athwe": {("model", "unknown_id_dropout"): 0.0}}
"""The same of single models."""
_ENGINE = {"attribute_model", "golden", "id_model", "inputs", "parity", "protocol", "registry"}
"""Modules of `athwe_core.models` that are no model."""


def model_names() -> list[str]:
    """Names of all models, those of other packages last."""
    return [*_own_names(), *(name for name in _foreign() if name not in _own_names())]


def find_model(name: str) -> ModelSpec:
    """The model of a name.

    Raises: ConfigError for an unknown name, with the nearest known one; for a model of another package that fails to load.
    """
    if name in _own_names():
        module = import_module(f"{athwe_core.models.__name__}.{name.replace('-', '_')}")
        return cast(ModelSpec, module.MODEL)
    if name not in _foreign():
        near = difflib.get_close_matches(name, model_names(), n=1)
        known = f"Known: {', '.join(model_names())}"
        raise ConfigError("model.name", "is unknown", name, f"Did you mean {near[0]}? {known}" if near else known)
    return _load(_foreign()[name])


@cache
def _own_names() -> tuple[str, ...]:
    found = (module.name for module in pkgutil.iter_modules(athwe_core.models.__path__))
    return tuple(sorted(name.replace("_", "-") for name in found if name not in _ENGINE))


@cache
def _foreign() -> dict[str, EntryPoint]:
    """Read once: to look through all installed packages takes many times as long as all else here."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> ModelSpec:
    where = f"model {point.name} of the entry point {point.value}"
    try:
        spec = point.load()
    except Exception as error:  # code of another package may raise anything
        remedy = "Update or uninstall the package that brings it"
        raise ConfigError(
            where, f"cannot be loaded ({type(error).__name__}: {reason(error)})", remedy=remedy
        ) from error
    require(isinstance(spec, ModelSpec), where, "must be a ModelSpec", type(spec).__name__)
    require(spec.name == point.name, where, f"must be named {point.name}", spec.name)
    return cast(ModelSpec, spec)


def build_model(config: Config, inputs: ModelInputs) -> Model:
    """The model of a configuration on the CPU, with its initial weights."""
    model = find_model(config.model.name).build(config, inputs)
    if config.model.repeat:
        model.add_module("repeat", Repetition())
    return model


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(_presets())


def _presets() -> dict[str, Traversable]:
    """Preset files by name; a model of another package adds those of its own folder, and replaces none."""
    folders = [find_model(DEFAULT_MODEL).presets]
    for point in _foreign().values():
        try:
            folders.append(_load(point).presets)
        except ConfigError:  # reported where the model is used
            continue
    found: dict[str, Traversable] = {}
    for folder in folders:
        for file in folder.iterdir():
            if file.name.endswith(".yaml"):
                found.setdefault(file.name.removesuffix(".yaml"), file)
    return found


def preset_tree(name: str) -> Tree:
    """The complete tree of a preset; upper and lower case are one.

    Raises: ConfigError for an unknown name, with the nearest known one.
    """
    presets = _presets()
    if name.lower() not in presets:
        near = difflib.get_close_matches(name.lower(), presets, n=1)
        known = f"Known: {', '.join(sorted(presets))}"
        raise ConfigError("--preset", "is unknown", name, f"Did you mean {near[0]}? {known}" if near else known)
    text = presets[name.lower()].read_text(encoding="utf-8")
    return _upgraded(copy.deepcopy(_parsed(text, f"preset {name}")))


@cache
def _parsed(text: str, name: str) -> Tree:
    return cast(Tree, parse_yaml(text, name))


def build_config(preset: str, changes: Iterable[Mapping[str, Any]] = ()) -> Config:
    """The configuration of a preset after `changes`, in order.

    Raises: ConfigError for an unknown preset or key, or a value of the wrong type or out of its range.
    """
    tree = preset_tree(preset)
    for change in changes:
        tree = merged(tree, change)
    own = tree["model"]["name"]
    require(
        own == preset_tree(preset)["model"]["name"],
        "model.name",
        f"is {preset_tree(preset)['model']['name']} in the preset {preset} and cannot be changed",
        own,
        "Choose a preset of that model with --preset",
    )
    return config_from_tree(tree)


def config_from_tree(tree: object) -> Config:
    """A complete tree, e.g. the `config.yaml` of a run, as the configuration of its model.

    Keys that came after version 0.1.0 may be missing; see `ADDED_KEYS` and `ADDED_KEYS_OF_MODELS`.
    """
    require(isinstance(tree, Mapping), "configuration", "must be a section of keys", tree)
    tree = _upgraded(cast(Mapping[str, Any], tree))
    model = tree.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    require(name is None or isinstance(name, str), "model.name", "must be text", name)
    spec = find_model(name or DEFAULT_MODEL)
    config = validated(spec.config, tree)
    require(
        config.training.batching in spec.batchings,
        "training.batching",
        f"must be {' or '.join(spec.batchings)} with model {spec.name}",
        config.training.batching,
        f"Use --batching {spec.batchings[0]}",
    )
    require(
        not config.model.repeat or (spec.offers_repeat and config.losses.catalogue.kind in ("full", "sampled")),
        "model.repeat",
        "needs losses.catalogue.kind full or sampled"
        if spec.offers_repeat
        else f"must be false with model {spec.name}",
        config.model.repeat,
        "Use --set model.repeat=false",
    )
    require(
        not config.training.shard_tables or (spec.offers_sharding and config.losses.catalogue.kind == "sampled"),
        "training.shard_tables",
        "needs losses.catalogue.kind=sampled" if spec.offers_sharding else f"must be false with model {spec.name}",
        config.training.shard_tables,
        "Use --set losses.catalogue.kind=sampled" if spec.offers_sharding else "Use --set training.shard_tables=false",
    )
    return config


def _upgraded(tree: Mapping[str, Any]) -> Tree:
    """A copy that has the keys which came after version 0.1.0."""
    result: Tree = dict(tree)
    added = dict(ADDED_KEYS)
    if isinstance(model := tree.get("model"), Mapping):
        result["model"] = {"name": DEFAULT_MODEL, **model}
        added |= ADDED_KEYS_OF_MODELS.get(str(result["model"]["name"]), {})
    for (section, key), value in added.items():
        if isinstance(result.get(section), Mapping):
            result[section] = {key: value, **result[section]}
    return result


def replace_in(config: Config, overrides: Iterable[str]) -> Config:
    """`config` after `a.b=c` overrides."""
    tree = config_tree(config)
    for text in overrides:
        tree = merged(tree, parse_override(text))
    return config_from_tree(tree)
