"""One optimiser step: batch -> outputs -> loss terms -> total -> gradients -> new weights.

Nothing in it waits for the device. `PendingLosses` reads the loss terms later. A step whose loss or gradient is not finite
leaves the weights and the optimiser as they are.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.distributed import BatchShards, all_here
from athwe_core.errors import NonFiniteLossError
from athwe_core.losses.sampled_ce import sample_candidates
from athwe_core.models.protocol import LossInputs, total_loss
from athwe_core.nn.item_embeddings import divided_rows
from athwe_core.training.build import TrainingSetup
from athwe_core.training.memory_saving import LEVELS, MemorySaving, saving_memory
from athwe_core.training.optim import GuardedAdam
from athwe_core.training.randomness import keyed_generator, keyed_seed, seeded_dropout

GRADIENT_NORM = "gradient_norm"
"""Key of the gradient's norm beside the loss terms of a step."""


def train_step(
    setup: TrainingSetup,
    optimizer: GuardedAdam,
    batch: PackedBatch,
    config: Config,
    *,
    epoch: int,
    step: int,
    memory_saving: MemorySaving = LEVELS[0],
    shards: BatchShards | None = None,
) -> dict[str, Tensor]:
    """Update the weights on one batch, unless its loss or gradient is not finite.

    Args:
        epoch, step: counted from 0; with the seed they key every random draw of the step.
        memory_saving: how memory is saved; the result is the same up to rounding.
        shards: how the batch is divided over processes: `batch` is the part of this one, and every process takes the step.
    Returns: each loss term of the whole batch, unweighted, their weighted sum as `total`, and the norm of the gradient of
        all weights as `gradient_norm`; scalars on the device, detached. Where total or norm is not finite, weights and
        optimiser are unchanged; `check_finite` reports it when the values are read.
    """
    inputs = draw_inputs(setup, batch, config, epoch=epoch, step=step, memory_saving=memory_saving, shards=shards)
    with dropout_of_step(config, epoch=epoch, step=step, shards=shards):
        return update(setup, optimizer, batch, inputs, memory_saving=memory_saving)


def update(
    setup: TrainingSetup,
    optimizer: GuardedAdam,
    batch: PackedBatch,
    inputs: LossInputs,
    *,
    memory_saving: MemorySaving = LEVELS[0],
) -> dict[str, Tensor]:
    """The part of `train_step` that runs on the device alone: it can be recorded and replayed with other inputs.

    Args:
        inputs: from `draw_inputs`; dropout draws from the generators as they are.
    Returns: as of `train_step`.
    """
    optimizer.zero_grad(set_to_none=True)
    terms = _gradients(setup, batch, inputs, memory_saving)
    terms[GRADIENT_NORM] = gradient_norm(setup.model)
    optimizer.found_inf = (~torch.isfinite(terms["total"] + terms[GRADIENT_NORM])).float()
    optimizer.step()
    return terms


@torch.no_grad()
def gradient_norm(model: nn.Module) -> Tensor:
    """Euclidean norm of the gradient of all weights: () float32, infinite where its square exceeds float32.

    Args:
        model: after a backward pass. Sparse gradients are coalesced in place. Where its tables are divided, all processes
            call this together.
    """
    shards = divided_rows(model)
    values: list[Tensor] = []
    own: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
        if parameter.grad is not None:
            gradient = parameter.grad.values() if parameter.grad.is_sparse else parameter.grad
            (own if name in shards else values).append(gradient)
    if shards:
        (group,) = {rows.group for rows in shards.values()}
        values.append(group.total(get_total_norm(own).square()).sqrt())
    return get_total_norm(values)


def compute_gradients(
    setup: TrainingSetup,
    batch: PackedBatch,
    config: Config,
    *,
    epoch: int,
    step: int,
    memory_saving: MemorySaving = LEVELS[0],
    shards: BatchShards | None = None,
) -> dict[str, Tensor]:
    """The part of `train_step` before the update: done again it draws the same and comes to the same."""
    inputs = draw_inputs(setup, batch, config, epoch=epoch, step=step, memory_saving=memory_saving, shards=shards)
    with dropout_of_step(config, epoch=epoch, step=step, shards=shards):
        return _gradients(setup, batch, inputs, memory_saving)


def draw_inputs(
    setup: TrainingSetup,
    batch: PackedBatch,
    config: Config,
    *,
    epoch: int,
    step: int,
    memory_saving: MemorySaving = LEVELS[0],
    shards: BatchShards | None = None,
) -> LossInputs:
    """What the losses of a step use besides its batch, every random choice but dropout among it.

    Args: as of `train_step`.
    Returns: the same on every call.
    """
    model, seed = setup.model, config.training.seed
    model.train()
    own = _own(shards)
    draws = model.draw(batch, lambda purpose: keyed_generator(seed, purpose, epoch, step, *own))
    candidates = None
    if setup.sampler is not None:
        negatives = keyed_generator(seed, "negatives", epoch, step)  # the same on every process
        of_all = (shards or all_here(batch.num_targets)).gather(batch.target_ids)
        candidates = sample_candidates(setup.sampler, of_all, negatives)
    return LossInputs(
        draws=draws,
        candidates=candidates,
        shards=shards if shards is not None and shards.num_processes > 1 else None,
        chunk_elements=memory_saving.chunk_elements,
    )


def dropout_of_step(
    config: Config, *, epoch: int, step: int, shards: BatchShards | None = None
) -> AbstractContextManager[None]:
    """The context in which a step draws its dropout, with the arguments of `train_step`."""
    return seeded_dropout(keyed_seed(config.training.seed, "dropout", epoch, step, *_own(shards)))


def _own(shards: BatchShards | None) -> tuple[int, ...]:
    """Part of a key by which each process draws for its own tokens."""
    return (shards.rank,) if shards is not None and shards.rank > 0 else ()


def _gradients(
    setup: TrainingSetup, batch: PackedBatch, inputs: LossInputs, memory_saving: MemorySaving
) -> dict[str, Tensor]:
    """Forward and backward pass; the loss terms of the whole batch."""
    is_plain = setup.compiled is None or memory_saving is not LEVELS[0]
    loss_module = setup.loss_module if is_plain else setup.compiled
    assert loss_module is not None
    with saving_memory(setup.model, memory_saving):
        parts = loss_module(batch, inputs)
    total = total_loss(parts, setup.model.loss_weights)
    shards = inputs.shards or all_here(batch.num_targets)
    terms = _of_all(parts | {"total": total}, shards)
    (total * shards.num_processes).backward()  # DistributedDataParallel takes the mean of the processes' gradients
    _mean_of_divided(setup.model)
    return terms


@torch.no_grad()
def _mean_of_divided(model: nn.Module) -> None:
    """The same mean for tables whose rows have received the sum of the processes' gradients."""
    shards = divided_rows(model)
    for name, parameter in model.named_parameters():
        if name in shards and parameter.grad is not None:
            parameter.grad = parameter.grad / shards[name].group.size


def _of_all(parts: dict[str, Tensor], shards: BatchShards) -> dict[str, Tensor]:
    """Terms of the whole batch from every process's parts, detached."""
    summed = shards.total(torch.stack([value.detach() for value in parts.values()]))
    return dict(zip(parts, summed, strict=True))


class PendingLosses:
    """The terms of a step on their way from the device: reading them waits for that step, not for those begun since."""

    def __init__(self, terms: dict[str, Tensor]) -> None:
        self._names, values = list(terms), torch.stack(list(terms.values()))
        self._arrived: torch.cuda.Event | None = None
        if values.is_cuda:
            here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = here.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        self._values = values

    def read(self) -> dict[str, float]:
        """Terms by name."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))


def steps_ahead(device: torch.device) -> int:
    """Steps that may be under way before the first of them is read, so that a CUDA device never waits for this process."""
    return 2 if device.type == "cuda" else 0


def has_lost_gradient(terms: dict[str, float]) -> bool:
    """Whether the loss of a step was finite and its gradient was not, so that its update was left out."""
    losses = (value for name, value in terms.items() if name != GRADIENT_NORM)
    return not math.isfinite(terms.get(GRADIENT_NORM, 0.0)) and all(map(math.isfinite, losses))


def check_finite(terms: dict[str, float], config: Config, *, epoch: int, step: int) -> None:
    """Check the values that `train_step` returned.

    Args:
        terms: values by name.
        epoch, step: counted from 0, for the message.
    Raises: NonFiniteLossError for the first value that is NaN or infinite; the step has left the weights as they were.
    """
    for name, value in terms.items():
        if not math.isfinite(value):
            what = "gradient norm" if name == GRADIENT_NORM else f"loss term {name}"
            raise NonFiniteLossError(
                f"{what} at epoch {epoch + 1}, step {step + 1}",
                "must be finite",
                value,
                f"Lower training.lr (now {config.training.lr:g}) with --lr in a new run; the last checkpoint is kept",
            )
