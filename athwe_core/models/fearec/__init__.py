"""FEARec: the network and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.fearec.config import FEARecConfig
from athwe_core.models.fearec.network import FEARec
from athwe_core.models.fearec.published import golden_pairs
from athwe_core.models.id_model import DROPOUT
from athwe_core.models.protocol import InputNeeds, ModelSpec, Removal, Tree
from athwe_core.models.sasrec import POSITION

WEIGHTS = ("unsupervised_weight", "supervised_weight", "frequency_weight")


def _needs(config: FEARecConfig) -> InputNeeds:
    return InputNeeds(histories=config.losses.contrastive.has_same_target)


def _has_contrast(tree: Tree) -> bool:
    return any(tree["losses"]["contrastive"][name] > 0 for name in WEIGHTS)


def _take_out_contrast(tree: Tree) -> Mapping[str, str]:
    tree["losses"]["contrastive"] |= dict.fromkeys(WEIGHTS, 0.0)
    return {}


def _take_out_time(tree: Tree) -> Mapping[str, str]:
    tree["model"]["dual_domain"] = False
    return {}


def _take_out_bands(tree: Tree) -> Mapping[str, str]:
    tree["model"]["global_ratio"] = 1.0
    return {}


MODEL = ModelSpec(
    name="fearec",
    summary="FEARec: attention in frequency bands with contrastive terms (Du et al., SIGIR 2023)",
    config=FEARecConfig,
    build=FEARec,
    batchings=("prefix", "packed"),
    needs=_needs,
    removals=(
        Removal("Contrast", _has_contrast, _take_out_contrast),
        Removal("TimeDomain", lambda tree: tree["model"]["dual_domain"], _take_out_time),
        Removal("Bands", lambda tree: tree["model"]["global_ratio"] < 1, _take_out_bands),
        POSITION,
        DROPOUT,
    ),
    golden_pairs=golden_pairs,
)
