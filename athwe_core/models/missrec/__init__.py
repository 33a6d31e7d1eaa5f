"""MISSRec: the network and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.id_model import DROPOUT
from athwe_core.models.missrec.config import MISSRecConfig
from athwe_core.models.missrec.network import MISSRec
from athwe_core.models.missrec.published import golden_pairs
from athwe_core.models.protocol import InputNeeds, ModelSpec, Removal, Tree


def _take_out_ids(tree: Tree) -> Mapping[str, str]:
    tree["model"]["id_embedding"] = False
    return {}


def _take_out_fusion(tree: Tree) -> Mapping[str, str]:
    tree["model"]["fusion"] = "static"
    return {}


def _take_out_orthogonal(tree: Tree) -> Mapping[str, str]:
    tree["losses"]["orthogonal"]["weight"] = 0.0
    return {}


MODEL = ModelSpec(
    name="missrec",
    summary="MISSRec: sequences of item texts and images with interests from clusters (Wang et al., ACM MM 2023)",
    config=MISSRecConfig,
    build=MISSRec,
    batchings=("prefix",),
    offers_repeat=False,
    needs=lambda config: InputNeeds(features=("text", "image")),
    removals=(
        Removal("Id", lambda tree: tree["model"]["id_embedding"], _take_out_ids),
        Removal("Fusion", lambda tree: tree["model"]["fusion"] != "static", _take_out_fusion),
        Removal("Orthogonal", lambda tree: tree["losses"]["orthogonal"]["weight"] > 0, _take_out_orthogonal),
        DROPOUT,
    ),
    golden_pairs=golden_pairs,
)
