"""IISAN: the network and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Mapping

from athwe_core.models.id_model import DROPOUT
from athwe_core.models.iisan.config import TOWERS, IISANConfig
from athwe_core.models.iisan.network import IISAN, modalities_of
from athwe_core.models.iisan.published import golden_pairs
from athwe_core.models.protocol import Available, InputNeeds, ModelSpec, Removal, Tree
from athwe_core.models.sasrec import POSITION


def _needs(config: IISANConfig) -> InputNeeds:
    is_in_batch = config.losses.catalogue.kind == "in_batch"
    return InputNeeds(features=modalities_of(config.model), layer_states=True, target_counts=is_in_batch)


def _adapt(tree: Tree, available: Available) -> list[str]:
    """Take out the towers without features, as long as one is left; tell which have no layer states."""
    notes, towers = [], tree["model"]["towers"]
    for name in ("text", "image"):
        gone = [tower for tower in towers if tower in (name, "both")]
        left = [tower for tower in towers if tower not in gone]
        if gone and left and name not in available.features:
            tree["model"]["towers"] = towers = left
            notes.append(f"{available.dataset} has no {name} features: without the towers {' and '.join(gone)}")
        elif gone and name in available.features - available.layer_states:
            reason = f"{available.dataset} has no layer states of its {name} encoder: its vectors are the only state"
            notes.append(f"{reason}; to have them: athwe prepare --{name}-encoder MODEL --{name}-layers 0,2,4")
    if len(available.layer_states & available.features) == 1 and "both" in towers and len(towers) > 1:
        tree["model"]["towers"] = [tower for tower in towers if tower != "both"]
        notes.append("one encoder has layer states and the other has not: without the tower both")
    return notes


def _remove(name: str, tower: str) -> Removal:
    def take_out(tree: Tree) -> Mapping[str, str]:
        tree["model"]["towers"] = [other for other in tree["model"]["towers"] if other != tower]
        return {}

    return Removal(name, lambda tree: tower in tree["model"]["towers"] and len(tree["model"]["towers"]) > 1, take_out)


MODEL = ModelSpec(
    name="iisan",
    summary="IISAN: item vectors from side networks over cached states of frozen encoders (Fu et al., SIGIR 2024)",
    config=IISANConfig,
    build=IISAN,
    needs=_needs,
    adapt=_adapt,
    removals=(*(_remove(f"{tower.capitalize()}Tower", tower) for tower in TOWERS), POSITION, DROPOUT),
    golden_pairs=golden_pairs,
    golden_tolerance={"loss_logits": 1e-3},
)
