"""TiSASRec: the network and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.id_model import DROPOUT
from athwe_core.models.protocol import ModelSpec, Removal, Tree
from athwe_core.models.tisasrec.network import TiSASRec, TiSASRecConfig
from athwe_core.models.tisasrec.published import golden_pairs


def _take_out_interval(tree: Tree) -> Mapping[str, str]:
    tree["model"]["interval_embedding"] = False
    return {}


def _take_out_position(tree: Tree) -> Mapping[str, str]:
    tree["model"] |= {"position_embedding": False, "attends_padding": False}
    return {}


def _take_out_penalty(tree: Tree) -> Mapping[str, str]:
    tree["losses"]["penalty"]["weight"] = 0.0
    return {}


MODEL = ModelSpec(
    name="tisasrec",
    summary="TiSASRec: self-attention over item ids, positions and time intervals (Li et al., WSDM 2020)",
    config=TiSASRecConfig,
    build=TiSASRec,
    removals=(
        Removal("Interval", lambda tree: tree["model"]["interval_embedding"], _take_out_interval),
        Removal("Position", lambda tree: tree["model"]["position_embedding"], _take_out_position),
        Removal("Penalty", lambda tree: tree["losses"]["penalty"]["weight"] > 0, _take_out_penalty),
        DROPOUT,
    ),
    golden_pairs=golden_pairs,
)
