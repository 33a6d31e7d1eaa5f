"""UniSRec: the network and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.id_model import DROPOUT
from athwe_core.models.protocol import InputNeeds, ModelSpec, Removal, Tree
from athwe_core.models.sasrec import POSITION
from athwe_core.models.unisrec.config import UniSRecConfig
from athwe_core.models.unisrec.network import UniSRec
from athwe_core.models.unisrec.published import golden_pairs


def _take_out_ids(tree: Tree) -> Mapping[str, str]:
    tree["model"]["id_embedding"] = False
    return {}


def _take_out_experts(tree: Tree) -> Mapping[str, str]:
    tree["model"]["adaptor"]["num_experts"] = 1
    had_noise, tree["model"]["adaptor"]["gate_noise"] = tree["model"]["adaptor"]["gate_noise"], False
    return {"GateNoise": "removing MoE removes GateNoise too: one expert has no gate"} if had_noise else {}


def _take_out_gate_noise(tree: Tree) -> Mapping[str, str]:
    tree["model"]["adaptor"]["gate_noise"] = False
    return {}


MODEL = ModelSpec(
    name="unisrec",
    summary="UniSRec: sequences of item texts through a mixture of experts, with or without ids (Hou et al., KDD 2022)",
    config=UniSRecConfig,
    build=UniSRec,
    needs=lambda config: InputNeeds(features=("text",)),
    removals=(
        Removal("Id", lambda tree: tree["model"]["id_embedding"], _take_out_ids),
        Removal("MoE", lambda tree: tree["model"]["adaptor"]["num_experts"] > 1, _take_out_experts),
        Removal("GateNoise", lambda tree: tree["model"]["adaptor"]["gate_noise"], _take_out_gate_noise),
        POSITION,
        DROPOUT,
    ),
    golden_pairs=golden_pairs,
    golden_tolerance={"scores": 5e-5, "scores_inductive": 5e-5},  # tells exact gelu from its approximation
)
