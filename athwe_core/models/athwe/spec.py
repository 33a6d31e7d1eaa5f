"""HM4SR and ATHWE for the registry: what they read, how they adapt to a data set, and which parts can be removed."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.athwe.config import AthweConfig
from athwe_core.models.athwe.model import Athwe
from athwe_core.models.athwe.parity import golden_pairs
from athwe_core.models.protocol import Available, InputNeeds, ModelSpec, Removal, Tree


def _needs(config: AthweConfig) -> InputNeeds:
    return InputNeeds(
        features=config.model.modalities[1:],
        categories=config.losses.cp.weight > 0,
        clusters=config.losses.cluster.weight > 0,
        target_counts=config.model.unknown_id_dropout > 0,
    )


def _adapt(tree: Tree, available: Available) -> list[str]:
    """Switch off modalities without features, and terms without labels."""
    name, notes = available.dataset, []
    for modality in tree["model"]["modalities"][1:]:
        if modality not in available.features:
            tree["model"]["modalities"].remove(modality)
            notes.append(f"{name} has no {modality} features: the {modality} modality is off")
    modalities = tree["model"]["modalities"]
    remedy = f"; to have them: athwe prepare --dataset {name} --refresh clusters --clusters 100"
    lacking = {
        "cp": not available.categories and "no categories: the category term (cp) is off",
        "cluster": not available.clusters & set(modalities[1:])
        and f"no cluster labels: the cluster term is off{remedy if modalities[1:] else ''}",
        "pcl": modalities == ["id"] and "no modality but id in use: the placeholder term (pcl) is off",
    }
    for term, reason in lacking.items():
        if reason and tree["losses"][term]["weight"] > 0:
            tree["losses"][term]["weight"] = 0.0
            notes.append(f"{name} has {reason}")
    return notes


def _stage(name: str, section: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["model"][section]["enabled"] = False
        return {}

    return Removal(name, lambda tree: tree["model"][section]["enabled"], take_out)


def _term(name: str, term: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["losses"][term]["weight"] = 0.0
        return {}

    return Removal(name, lambda tree: tree["losses"][term]["weight"] > 0, take_out)


def _modality(name: str, modality: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["model"]["modalities"].remove(modality)
        return {}

    return Removal(name, lambda tree: modality in tree["model"]["modalities"], take_out)


NEED_TEMPORAL_MOE = {
    "PCL": "removing TMoE removes PCL too: its placeholders are made of time",
    "Diversity": "removing TMoE removes Diversity too: it is about the temporal experts",
}
"""Loss terms that cannot be without the temporal experts, and why."""


def _take_out_temporal_moe(tree: Tree) -> Mapping[str, str]:
    tree["model"]["temporal_moe"]["enabled"] = False
    notes = {name: note for name, note in NEED_TEMPORAL_MOE.items() if tree["losses"][name.lower()]["weight"] > 0}
    for name in NEED_TEMPORAL_MOE:
        tree["losses"][name.lower()]["weight"] = 0.0
    return notes


def _has_temporal_moe(tree: Tree) -> bool:
    return bool(tree["model"]["temporal_moe"]["enabled"])


MODEL = ModelSpec(
    name="athwe",
    summary="HM4SR (WWW 2025) and ATHWE: mixtures of experts over modalities and time, wavelet alignment",
    config=AthweConfig,
    build=Athwe,
    needs=_needs,
    adapt=_adapt,
    offers_sharding=True,
    removals=(
        _stage("IMoE", "interactive_moe"),
        Removal("TMoE", _has_temporal_moe, _take_out_temporal_moe),
        _stage("DWT", "wavelet"),
        _term("CP", "cp"),
        _term("IDCL", "idcl"),
        _term("PCL", "pcl"),
        _term("Cluster", "cluster"),
        _term("Diversity", "diversity"),
        _modality("Text", "text"),
        _modality("Image", "image"),
    ),
    golden_pairs=golden_pairs,
)
