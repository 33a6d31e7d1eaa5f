"""Ablation: one configuration, and the same without one of its parts, or without several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from athwe_core.analysis.experiments.plan import Experiment, Variant, limited
from athwe_core.config import Config, config_tree
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.protocol import Removal, Tree
from athwe_core.models.registry import config_from_tree, find_model


def removable(config: Config) -> list[str]:
    """Names of the parts that the configuration has, of those that its model declares."""
    tree = config_tree(config)
    return [removal.name for removal in find_model(config.model.name).removals if removal.is_in(tree)]


def ablation(
    config: Config,
    prepared: PreparedDataset,
    *,
    preset: str,
    remove: Sequence[str] = (),
    remove_all: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
    metric: str = "ndcg@10",
    split: str = "test",
    quick_epochs: int | None = None,
) -> Experiment:
    """The full model and a variant for each removal.

    Args:
        config: the full model, one that fits the data set.
        remove: names of parts of the model, in any case; `A+B` removes both. A name given twice is one variant.
        remove_all: every part the configuration has, each alone, before those of `remove`.
        quick_epochs: at most so many epochs instead of the configuration's.
    Raises: ConfigError for no removal, an unknown one, or one that the configuration does not have.
    """
    there = removable(config)
    if not there:
        raise ConfigError(
            "--preset", "must have a part that can be removed", preset, "Choose a preset of another model"
        )
    removals = {removal.name: removal for removal in find_model(config.model.name).removals}
    chosen = [[name] for name in there] if remove_all else []
    chosen += [_names(text, removals, there, preset) for text in remove]
    if not chosen:
        remedy = f"{preset} on {prepared.name} has {', '.join(there)}"
        raise ConfigError("--remove", "must name a part, or be replaced by --all", remedy=remedy)
    config = limited(config, quick_epochs)
    variants, notes = [Variant("full", "full", (), {}, config)], dict[str, None]()
    for names in {tuple(names): None for names in chosen}:
        variant, further = _without(config, prepared, [removals[name] for name in names])
        variants.append(variant)
        notes.update(dict.fromkeys(further))
    return Experiment(
        kind="ablation",
        preset=preset,
        variants=tuple(variants),
        seeds=tuple(seeds),
        metric=metric,
        split=split,
        reference=0,
        notes=tuple(notes),
        quick_epochs=quick_epochs,
    )


def _names(text: str, removals: Mapping[str, Removal], there: list[str], preset: str) -> list[str]:
    """`tmoe+CP` as `[TMoE, CP]`, in the order of the model's parts, each one that the configuration has."""
    by_lower = {name.lower(): name for name in removals}
    found = set()
    for part in text.split("+"):
        name = by_lower.get(part.strip().lower())
        if name is None:
            near = get_close_matches(part.strip().lower(), by_lower, n=1)
            hint = f"Did you mean {by_lower[near[0]]}?" if near else ""
            raise ConfigError("--remove", f"must be among {', '.join(there)}, joined by +", part, hint)
        if name not in there:
            rule = f"must be a part that {preset} has on this data set: {', '.join(there)}"
            raise ConfigError("--remove", rule, name)
        found.add(name)
    return [name for name in removals if name in found]


def _without(config: Config, prepared: PreparedDataset, removals: Sequence[Removal]) -> tuple[Variant, list[str]]:
    """The variant, and one sentence for each further part that goes with it."""
    names, tree = [removal.name for removal in removals], config_tree(config)
    label, notes = f"-{'+'.join(names)}", list[str]()
    for removal in removals:
        if removal.is_in(tree):
            notes += [note for part, note in removal.take_out(tree).items() if part not in names]
    fitted, also = adapt_to_data(config_from_tree(tree), prepared)
    notes += [f"{label}: {note}" for note in also]
    values = changed_values(config, fitted)
    changes = tuple(f"{key}={_yaml(value)}" for key, value in values.items())
    return Variant(label, f"{'-'.join(names)}-removed", changes, values, fitted), notes


def changed_values(before: Config, after: Config) -> dict[str, Any]:
    """Keys of `after` that differ from `before`, with their values."""

    def leaves(tree: Tree, prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in tree.items():
            found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return found

    old = leaves(config_tree(before))
    return {key: value for key, value in leaves(config_tree(after)).items() if value != old[key]}


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
