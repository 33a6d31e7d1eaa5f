"""A configuration and a prepared data set to what training and evaluation hold: catalogue, time range, network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.config import Config, config_from_tree, config_tree
from athwe_core.data.prepare import PreparedDataset
from athwe_core.device import resolve_device, resolve_precision
from athwe_core.distributed import ProcessGroup
from athwe_core.errors import CheckpointError
from athwe_core.losses.sampled_ce import LogUniformSampler
from athwe_core.models.athwe.network import Network
from athwe_core.models.athwe.objective import Objective
from athwe_core.models.inputs import make_catalogue, training_time_range
from athwe_core.runs.checkpoint import is_there, load_weights
from athwe_core.runs.find import RunFolder
from athwe_core.training.randomness import keyed_generator


def adapt_to_data(config: Config, prepared: PreparedDataset) -> tuple[Config, list[str]]:
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


_IS_NEW = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # from torch 2.13 on
_NO_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _IS_NEW else "broadcast_buffers": False}
"""The features never change: no step needs to send them."""


@dataclass(frozen=True)
class TrainingSetup:
    """A network on its device with the item-side tensors it needs."""

    network: Network
    catalogue: Catalogue
    device: torch.device
    compute_dtype: torch.dtype
    objective: nn.Module
    """Batch to loss terms (`Objective`); of several processes, with their gradients shared."""
    sampler: LogUniformSampler | None
    """Draws the negatives of a sampled catalogue loss."""
    compiled: Callable[..., dict[str, torch.Tensor]] | None = None
    """The objective compiled, for steps that spare no memory."""

    def spread(self, world: ProcessGroup) -> TrainingSetup:
        """The same for a batch that is spread over processes: after a backward pass each holds the whole batch's gradient."""
        if world.size == 1:
            return self
        return replace(self, objective=DistributedDataParallel(self.objective, **_NO_BUFFERS))


def build_setup(config: Config, prepared: PreparedDataset) -> TrainingSetup:
    """Build the network of a configuration that fits the data set, weights drawn from the run's seed."""
    device = resolve_device(config.training.device)
    compute_dtype = resolve_precision(config.training.precision, device)
    return build(config, make_catalogue(prepared, config), training_time_range(prepared), device, compute_dtype)


def build_best(run: RunFolder, prepared: PreparedDataset) -> TrainingSetup:
    """The network of a run with its best weights, in evaluation mode.

    Raises: CheckpointError when the run has none yet, or they are damaged.
    """
    if not is_there(run.best):
        remedy = f"athwe train --resume {run.name}"
        raise CheckpointError(f"run {run.name}", "must have finished an epoch", remedy=remedy)
    setup = build_setup(run.config(), prepared)
    load_weights(run.best, setup.network)
    setup.network.eval()
    return setup


def build(
    config: Config, catalogue: Catalogue, time_range: TimeRange, device: torch.device, compute_dtype: torch.dtype
) -> TrainingSetup:
    """The network of a configuration on `device`."""
    generator = keyed_generator(config.training.seed, "weights")
    network = Network(
        config.model, config.losses, catalogue, time_range, compute_dtype=compute_dtype, generator=generator
    )
    on_device = Catalogue(
        num_item_rows=catalogue.num_item_rows,
        categories=None if catalogue.categories is None else catalogue.categories.to(device),
        clusters={m: c.to(device) for m, c in catalogue.clusters.items()},
    )
    network = network.to(device)
    objective = Objective(network, on_device, config.losses, compute_dtype=compute_dtype)
    sampler = None
    if config.losses.catalogue.kind == "sampled":
        assert catalogue.target_counts is not None, "a sampled loss needs the catalogue's target counts"
        section = config.losses.catalogue
        sampler = LogUniformSampler(catalogue.target_counts.to(device), num_negatives=section.num_negatives)
    return TrainingSetup(network, on_device, device, compute_dtype, objective, sampler)
