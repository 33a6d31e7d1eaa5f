"""A configuration and a prepared data set to what training and evaluation hold: catalogue, time range, network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.config import Config, config_from_tree, config_tree
from athwe_core.data.prepared import PreparedDataset
from athwe_core.device import resolve_device, resolve_precision
from athwe_core.errors import CheckpointError
from athwe_core.network import Network
from athwe_core.training.checkpoint import is_there, load_weights
from athwe_core.training.randomness import keyed_generator
from athwe_core.training.run_folder import RunFolder


def fit_config(config: Config, prepared: PreparedDataset) -> tuple[Config, list[str]]:
    """The configuration without what the data set has no features for, and one sentence for each thing switched off."""
    tree, notes = config_tree(config), []
    have = {"text": prepared.text_features, "image": prepared.image_features}
    for modality in config.model.modalities[1:]:
        if have[modality] is None:
            tree["model"]["modalities"].remove(modality)
            notes.append(f"{prepared.name} has no {modality} features: the {modality} modality is off")
    modalities = tree["model"]["modalities"]
    clusters = {"text": prepared.text_clusters, "image": prepared.image_clusters}
    how = f"; to have them: athwe prepare --dataset {prepared.name} --refresh clusters --clusters 100"
    lacking = {
        "cp": prepared.categories is None and "no categories: the category term (cp) is off",
        "cluster": all(clusters[m] is None for m in modalities[1:])
        and f"no cluster labels: the cluster term is off{how if modalities[1:] else ''}",
        "pcl": modalities == ["id"] and "no modality but id in use: the placeholder term (pcl) is off",
    }
    for term, reason in lacking.items():
        if reason and tree["losses"][term]["weight"] > 0:
            tree["losses"][term]["weight"] = 0.0
            notes.append(f"{prepared.name} has {reason}")
    return config_from_tree(tree), notes


def make_catalogue(prepared: PreparedDataset, config: Config) -> Catalogue:
    """The item-side tensors that the configuration uses."""

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(array))

    features = {"text": prepared.text_features, "image": prepared.image_features}
    clusters = {"text": prepared.text_clusters, "image": prepared.image_clusters}
    used = config.model.modalities[1:]
    use_cp, use_cluster = config.losses.cp.weight > 0, config.losses.cluster.weight > 0
    return Catalogue(
        num_rows=prepared.num_rows,
        features={m: tensor(f) for m in used if (f := features[m]) is not None},
        categories=tensor(prepared.categories) if use_cp and prepared.categories is not None else None,
        clusters={m: tensor(c) for m in used if use_cluster and (c := clusters[m]) is not None},
    )


def training_time_range(prepared: PreparedDataset) -> TimeRange:
    """First and last time and longest interval of the training split."""
    times = np.asarray(prepared.timestamps)
    is_training = prepared.split.is_training(len(times))
    interval = np.diff(times, prepend=times[:1])
    interval[prepared.offsets[:-1]] = 0
    training = times[is_training]
    return TimeRange(int(training.min()), int(training.max()), int(interval[is_training].max()))


@dataclass(frozen=True)
class Assembly:
    """A network on its device with the item-side tensors it needs."""

    network: Network
    catalogue: Catalogue
    device: torch.device
    compute_dtype: torch.dtype


def assemble(config: Config, prepared: PreparedDataset) -> Assembly:
    """Build the network of a configuration that fits the data set, weights drawn from the run's seed."""
    device = resolve_device(config.training.device)
    compute_dtype = resolve_precision(config.training.precision, device)
    return build(config, make_catalogue(prepared, config), training_time_range(prepared), device, compute_dtype)


def assemble_best(run: RunFolder, prepared: PreparedDataset) -> Assembly:
    """The network of a run with its best weights, in evaluation mode.

    Raises: CheckpointError when the run has none yet, or they are damaged.
    """
    if not is_there(run.best):
        remedy = f"athwe train --resume {run.name}"
        raise CheckpointError(f"run {run.name}", "must have finished an epoch", remedy=remedy)
    assembly = assemble(run.config(), prepared)
    load_weights(run.best, assembly.network)
    assembly.network.eval()
    return assembly


def build(
    config: Config, catalogue: Catalogue, time_range: TimeRange, device: torch.device, compute_dtype: torch.dtype
) -> Assembly:
    """The network of a configuration on `device`."""
    generator = keyed_generator(config.training.seed, "weights")
    network = Network(
        config.model, config.losses, catalogue, time_range, compute_dtype=compute_dtype, generator=generator
    )
    on_device = Catalogue(
        num_rows=catalogue.num_rows,
        categories=None if catalogue.categories is None else catalogue.categories.to(device),
        clusters={m: c.to(device) for m, c in catalogue.clusters.items()},
    )
    return Assembly(network.to(device), on_device, device, compute_dtype)
