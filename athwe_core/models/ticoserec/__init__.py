"""TiCoSeRec: the network and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.id_model import DROPOUT
from athwe_core.models.protocol import InputNeeds, ModelSpec, Removal, Tree
from athwe_core.models.ticoserec.config import OPERATORS, TiCoSeRecConfig
from athwe_core.models.ticoserec.network import TiCoSeRec
from athwe_core.models.ticoserec.published import golden_pairs


def _remove(name: str, operator: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["views"]["operators"] = [other for other in tree["views"]["operators"] if other != operator]
        return {}

    return Removal(name, lambda tree: operator in tree["views"]["operators"], take_out)


def _take_out_views(tree: Tree) -> Mapping[str, str]:
    tree["losses"]["contrastive"]["weight"] = 0.0
    return {}


MODEL = ModelSpec(
    name="ticoserec",
    summary="TiCoSeRec: SASRec with contrastive views that even out time intervals (Dang et al., AAAI 2023)",
    config=TiCoSeRecConfig,
    build=TiCoSeRec,
    needs=lambda config: InputNeeds(similar_items=True),
    removals=(
        Removal("Views", lambda tree: tree["losses"]["contrastive"]["weight"] > 0, _take_out_views),
        *(_remove(operator.capitalize(), operator) for operator in OPERATORS),
        DROPOUT,
    ),
    golden_pairs=golden_pairs,
)
