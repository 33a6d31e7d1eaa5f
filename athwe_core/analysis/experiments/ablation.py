"""Ablation: a configuration, and the same without one of its parts or without several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from athwe_core.analysis.experiments.plan import Experiment, Variant, limited
from athwe_core.config import Config, config_tree, flattened
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.protocol import Removal
from athwe_core.models.registry import config_from_tree, find_model


def removable(config: Config) -> list[str]:
    """Names of the parts that the configuration has, of those that its model declares."""
    tree = config_tree(config)
    return [removal.name for removal in find_model(config.model.name).parts if removal.is_in(tree)]


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
        config: the full model; it fits the data set.
        prepared: the data set.
        preset: the preset that `config` started from.
        remove: names of parts of the model, in upper or lower case. `A+B` removes both. A name given twice is one variant.
        remove_all: remove each part that the configuration has in turn, before those of `remove`.
        seeds: of each variant, >= 1.
        metric: the metric of changes and tests.
        split: the split of changes and tests.
        quick_epochs: at most so many epochs; None = as many as the configuration has.
    Returns: the full model, which is the reference, and the variants.
    Raises: ConfigError for a model without parts, no removal, an unknown part, or one that the configuration does not have.
    """
    parts = removable(config)
    if not parts:
        raise ConfigError(
            "--preset", "must have a part that can be removed", preset, "Choose a preset of another model"
        )
    removals = {removal.name: removal for removal in find_model(config.model.name).parts}
    chosen = [[name] for name in parts] if remove_all else []
    chosen += [_names(text, removals, parts, preset) for text in remove]
    if not chosen:
        remedy = f"{preset} on {prepared.name} has {', '.join(parts)}"
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


def _names(text: str, removals: Mapping[str, Removal], parts: list[str], preset: str) -> list[str]:
    """`tmoe+CP` as `[TMoE, CP]`, in the order of the model's parts, each one that the configuration has."""
    by_lower = {name.lower(): name for name in removals}
    found = set()
    for part in text.split("+"):
        name = by_lower.get(part.strip().lower())
        if name is None:
            near = get_close_matches(part.strip().lower(), by_lower, n=1)
            hint = f"Did you mean {by_lower[near[0]]}?" if near else ""
            raise ConfigError("--remove", f"must be among {', '.join(parts)}, joined by +", part, hint)
        if name not in parts:
            rule = f"must be a part that {preset} has on this data set: {', '.join(parts)}"
            raise ConfigError("--remove", rule, name)
        found.add(name)
    return [name for name in removals if name in found]


def _without(config: Config, prepared: PreparedDataset, removals: Sequence[Removal]) -> tuple[Variant, list[str]]:
    """The variant, and one sentence for each further part that is removed with it."""
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


def changed_values(before: Config, after: Config) -> dict[str, object]:
    """Keys of `after` that differ from `before`, with their values."""
    old = flattened(config_tree(before))
    return {key: value for key, value in flattened(config_tree(after)).items() if value != old[key]}


def _yaml(value: object) -> str:
    """A value as for `--set`."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
