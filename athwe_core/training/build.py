"""A configuration and a prepared data set to a model on its device, ready to take steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.device import resolve_device, resolve_precision
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.errors import CheckpointError
from athwe_core.losses.sampled_ce import LogUniformSampler
from athwe_core.models.inputs import model_inputs
from athwe_core.models.protocol import LossInputs, Model, ModelInputs
from athwe_core.models.registry import build_model
from athwe_core.nn.item_embeddings import divided_rows
from athwe_core.runs.checkpoint import is_there, load_weights
from athwe_core.runs.find import RunFolder
from athwe_core.training.randomness import default_generators_kept, keyed_generator

_IS_NEW = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # from torch 2.13 on
_NO_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _IS_NEW else "broadcast_buffers": False}
"""The features never change: no step needs to send them."""


class LossModule(nn.Module):
    """Batch to loss terms in one call, which is what torch compiles, and what it wraps to share gradients."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """The model's terms, unweighted."""
        return self.model.losses(batch, inputs)


@dataclass(frozen=True)
class TrainingSetup:
    """A model on its device with what its steps need."""

    model: Model
    device: torch.device
    compute_dtype: torch.dtype
    loss_module: nn.Module
    """Batch to loss terms; of several processes, with their gradients shared."""
    sampler: LogUniformSampler | None
    """Draws the negatives of a sampled catalogue loss."""
    compiled: Callable[..., dict[str, torch.Tensor]] | None = None
    """The loss module compiled, for steps that save no memory."""

    def distribute(self, world: ProcessGroup) -> TrainingSetup:
        """The same for batches divided over processes: after a backward pass each holds the whole batch's gradient.

        Of tables that are divided by rows each process holds its rows' gradient, N times too large: `_gradients` divides it.
        """
        if world.size == 1:
            return self
        # each process has the buffers already; some are files mapped read-only, into which nothing can be received
        buffers = [f"model.{name}" for name, _ in self.model.named_buffers()]
        ignored = [*buffers, *(f"model.{name}" for name in divided_rows(self.model))]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.loss_module, ignored)
        return replace(self, loss_module=DistributedDataParallel(self.loss_module, **_NO_BUFFERS))


def build_setup(config: Config, prepared: PreparedDataset, world: ProcessGroup = ALONE) -> TrainingSetup:
    """Build the model of a configuration that fits the data set, weights drawn from the run's seed.

    Args:
        world: processes that divide the item tables where the configuration has `training.shard_tables`; all call this.
    """
    sharing = world if config.training.shard_tables else ALONE
    return build(config, lambda **settings: model_inputs(prepared, config, world=sharing, **settings))


def build_best(run: RunFolder, prepared: PreparedDataset) -> TrainingSetup:
    """The model of a run with its best weights, in evaluation mode.

    Raises: CheckpointError when the run has none yet, or they are damaged.
    """
    if not is_there(run.best):
        remedy = f"athwe train --resume {run.name}"
        raise CheckpointError(f"run {run.name}", "must have finished an epoch", remedy=remedy)
    setup = build_setup(run.config(), prepared)
    load_weights(run.best, setup.model)
    setup.model.eval()
    return setup


def build(config: Config, inputs_with: Callable[..., ModelInputs]) -> TrainingSetup:
    """The model of a configuration on its device.

    Args:
        inputs_with: gives the model's inputs for the keyword arguments `compute_dtype` and `generator`.
    """
    device = resolve_device(config.training.device)
    compute_dtype = resolve_precision(config.training.precision, device)
    generator = keyed_generator(config.training.seed, "weights")
    inputs = inputs_with(compute_dtype=compute_dtype, generator=generator)
    with default_generators_kept():  # layers of torch draw initial weights from them, which are then replaced
        model = build_model(config, inputs).to(device)
    sampler = None
    if config.losses.catalogue.kind == "sampled":
        counts = inputs.catalogue.target_counts
        assert counts is not None, "a sampled loss needs the catalogue's target counts"
        sampler = LogUniformSampler(counts.to(device), num_negatives=config.losses.catalogue.num_negatives)
    return TrainingSetup(model, device, compute_dtype, LossModule(model), sampler)
