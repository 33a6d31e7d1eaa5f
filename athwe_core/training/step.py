"""One optimiser step, straight through: batch -> outputs -> terms -> loss -> gradients -> new weights."""

from __future__ import annotations

import torch
from torch import Tensor

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.errors import NonFiniteLossError
from athwe_core.objective import loss_terms, placeholder_mask, total_loss
from athwe_core.training.assemble import Assembly
from athwe_core.training.randomness import keyed_generator, keyed_seed
from athwe_core.training.thrift import LEVELS, Thrift, sparing


def make_optimizer(network: torch.nn.Module, *, lr: float) -> torch.optim.Adam:
    """Adam over every trainable weight, fused where the device can."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trainable, lr=lr, fused=True)


def train_step(
    assembly: Assembly,
    optimizer: torch.optim.Optimizer,
    batch: PackedBatch,
    config: Config,
    *,
    epoch: int,
    step: int,
    thrift: Thrift = LEVELS[0],
) -> dict[str, Tensor]:
    """Update the weights on one batch.

    Args:
        epoch, step: counted from 0; with the seed they key every random draw of the step.
        thrift: how memory is spared; the result is the same to rounding.
    Returns: each loss term, unweighted, and their weighted sum as `total`; detached.
    Raises: NonFiniteLossError before the update when a term is NaN or infinite.
    """
    optimizer.zero_grad(set_to_none=True)
    terms = compute_gradients(assembly, batch, config, epoch=epoch, step=step, thrift=thrift)
    optimizer.step()
    return terms


def compute_gradients(
    assembly: Assembly, batch: PackedBatch, config: Config, *, epoch: int, step: int, thrift: Thrift = LEVELS[0]
) -> dict[str, Tensor]:
    """The part of `train_step` before the update: done again it draws the same and comes to the same."""
    network, seed = assembly.network, config.training.seed
    network.train()
    torch.manual_seed(keyed_seed(seed, "dropout", epoch, step))
    replaced = None
    if network.placeholders is not None:
        replaced = placeholder_mask(
            batch,
            mask_share=config.losses.pcl.mask_share,
            batching=config.training.batching,
            generator=keyed_generator(seed, "placeholder", epoch, step),
        )
    with sparing(network, thrift):
        terms = loss_terms(
            network,
            network(batch),
            batch,
            assembly.catalogue,
            config.losses,
            replaced=replaced,
            compute_dtype=assembly.compute_dtype,
        )
    total = total_loss(terms, config.losses)
    if not torch.isfinite(total):
        broken = next((name for name, value in terms.items() if not torch.isfinite(value)), "total")
        raise NonFiniteLossError(
            f"loss term {broken} at epoch {epoch + 1}, step {step + 1}",
            "must be finite",
            terms.get(broken, total).item(),
            f"Lower training.lr (now {config.training.lr:g}); the last good checkpoint is kept",
        )
    total.backward()
    return {name: value.detach() for name, value in (terms | {"total": total}).items()}
