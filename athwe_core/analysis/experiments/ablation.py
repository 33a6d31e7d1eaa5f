"""Ablation: one configuration, and the same without one of its parts, or without several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from athwe_core.analysis.experiments.plan import Experiment, Variant, limited
from athwe_core.config import Config, config_from_tree, config_tree
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.training.build import adapt_to_data

Tree = dict[str, Any]


@dataclass(frozen=True)
class Removal:
    """A part that can be taken out of a configuration."""

    name: str
    is_in: Callable[[Tree], bool]
    take_out: Callable[[Tree], None]
    """Changes the tree so that the part is gone and the rest is legal."""


def _stage(name: str, section: str) -> Removal:
    return Removal(
        name,
        lambda tree: tree["model"][section]["enabled"],
        lambda tree: tree["model"][section].update(enabled=False),
    )


def _term(name: str, term: str) -> Removal:
    return Removal(
        name,
        lambda tree: tree["losses"][term]["weight"] > 0,
        lambda tree: tree["losses"][term].update(weight=0.0),
    )


def _modality(name: str, modality: str) -> Removal:
    return Removal(
        name,
        lambda tree: modality in tree["model"]["modalities"],
        lambda tree: tree["model"]["modalities"].remove(modality),
    )


def _take_out_temporal_moe(tree: Tree) -> None:
    tree["model"]["temporal_moe"]["enabled"] = False
    for term in DEPENDENTS_OF_TMOE:
        tree["losses"][term]["weight"] = 0.0


DEPENDENTS_OF_TMOE = {
    "pcl": "removing TMoE removes PCL too: its placeholders are made of time",
    "diversity": "removing TMoE removes Diversity too: it is about the temporal experts",
}
"""Loss terms that cannot be without the temporal experts, and why."""

REMOVALS = {
    removal.name: removal
    for removal in (
        _stage("IMoE", "interactive_moe"),
        Removal("TMoE", lambda tree: tree["model"]["temporal_moe"]["enabled"], _take_out_temporal_moe),
        _stage("DWT", "wavelet"),
        _term("CP", "cp"),
        _term("IDCL", "idcl"),
        _term("PCL", "pcl"),
        _term("Cluster", "cluster"),
        _term("Diversity", "diversity"),
        _modality("Text", "text"),
        _modality("Image", "image"),
    )
}
"""What can be removed, by the name that the papers and the command line use."""


def removable(config: Config) -> list[str]:
    """Names of the parts that the configuration has."""
    tree = config_tree(config)
    return [name for name, removal in REMOVALS.items() if removal.is_in(tree)]


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
        remove: names of `REMOVALS`, in any case; `A+B` removes both. A name given twice is one variant.
        remove_all: every part the configuration has, each alone, before those of `remove`.
        quick_epochs: at most so many epochs instead of the configuration's.
    Raises: ConfigError for no removal, an unknown one, or one that the configuration does not have.
    """
    there = removable(config)
    asked = [[name] for name in there] if remove_all else []
    asked += [_names(text, there, preset) for text in remove]
    if not asked:
        remedy = f"{preset} on {prepared.name} has {', '.join(there)}"
        raise ConfigError("--remove", "must name a part, or be replaced by --all", remedy=remedy)
    config = limited(config, quick_epochs)
    variants, notes = [Variant("full", "full", (), {}, config)], dict[str, None]()
    for names in {tuple(names): None for names in asked}:
        variant, said = _without(config, prepared, names)
        variants.append(variant)
        notes.update(dict.fromkeys(said))
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


def _names(text: str, there: list[str], preset: str) -> list[str]:
    """`tmoe+CP` as `[TMoE, CP]`, in the order of `REMOVALS`, each one that the configuration has."""
    by_lower = {name.lower(): name for name in REMOVALS}
    found = set()
    for part in text.split("+"):
        name = by_lower.get(part.strip().lower())
        if name is None:
            near = get_close_matches(part.strip().lower(), by_lower, n=1)
            hint = f"Did you mean {by_lower[near[0]]}? " if near else ""
            raise ConfigError("--remove", f"must be among {', '.join(there)}, joined by +", part, f"{hint}".strip())
        if name not in there:
            rule = f"must be a part that {preset} has on this data set: {', '.join(there)}"
            raise ConfigError("--remove", rule, name)
        found.add(name)
    return [name for name in REMOVALS if name in found]


def _without(config: Config, prepared: PreparedDataset, names: Sequence[str]) -> tuple[Variant, list[str]]:
    """The variant, and what goes with it that was not asked for."""
    label, tree = f"-{'+'.join(names)}", config_tree(config)
    notes = []
    if "TMoE" in names:
        alive = {term: note for term, note in DEPENDENTS_OF_TMOE.items() if tree["losses"][term]["weight"] > 0}
        notes += [note for term, note in alive.items() if term not in {name.lower() for name in names}]
    for name in names:
        REMOVALS[name].take_out(tree)
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
