"""Out-of-memory handling: repeat the step with more memory saving; if that fails, find the batch size that fits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.errors import AthweError
from athwe_core.training.allocator import release_free_memory
from athwe_core.training.build import TrainingSetup
from athwe_core.training.memory_saving import LEVELS
from athwe_core.training.optim import GuardedAdam
from athwe_core.training.step import compute_gradients, train_step

TRIALS = 6
"""Bisection steps in the search for the largest batch; its result is exact to 2 % of the batch."""
MARGIN = 0.95
"""Share of the largest fitting batch that is proposed: other batches of as many targets have more tokens."""

Pack = Callable[[int | None], PackedBatch | None]
"""Packs the first rows of the batch that have at most this many targets; the whole batch for None. Returns the batch on the
device, or None where the first row has more targets."""


class NoMemoryError(AthweError):
    """Weights, features or a step do not fit into the memory of the device, even with all memory saving (exit code 1)."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, on a device or on this machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def step_within_memory(
    setup: TrainingSetup,
    optimizer: GuardedAdam,
    pack: Pack,
    config: Config,
    *,
    epoch: int,
    step: int,
    level: int,
    notify: Callable[[str], None],
) -> tuple[dict[str, Tensor], int]:
    """`train_step` on the whole batch, with more memory saving until it fits.

    Args:
        level: index into LEVELS to begin with.
        notify: called with one sentence for each level that is added.
    Returns: what `train_step` returns, and the level it took.
    Raises: NoMemoryError, with the weights as they were, naming the largest number of targets that fits.
    """
    where = f"step {step + 1} of epoch {epoch + 1}"
    while True:
        has_moments = len(optimizer.state) > 0
        batch = None
        try:
            batch = pack(None)
            assert batch is not None
            return train_step(
                setup, optimizer, batch, config, epoch=epoch, step=step, memory_saving=LEVELS[level]
            ), level
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        del batch  # and outside of the handler, which holds the step's tensors
        _let_go(optimizer, keep_moments=has_moments)
        if level + 1 == len(LEVELS):
            break
        level += 1
        notify(f"{where} does not fit into memory: going on with {LEVELS[level].what} (the same to rounding, slower)")
    fitting = largest_batch(setup, optimizer, pack, config, epoch=epoch, step=step)
    raise _does_not_fit(where, fitting, config, setup.device)


def largest_batch(
    setup: TrainingSetup, optimizer: torch.optim.Optimizer, pack: Pack, config: Config, *, epoch: int, step: int
) -> int:
    """Most targets of this batch whose gradients fit with all memory saving, less a margin; 0 where not even one row fits.

    Found by trial, with room held free for what Adam keeps once it has made a step.
    """
    has_moments = len(optimizer.state) > 0

    def fits(targets: int) -> bool:
        try:
            batch = pack(targets)
            if batch is None:
                return False
            room = [] if has_moments else [torch.empty_like(p) for p in _trainable(setup) for _ in range(2)]
            compute_gradients(setup, batch, config, epoch=epoch, step=step, memory_saving=LEVELS[-1])
            del room
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    most, too_many = 0, config.training.batch_targets
    for _ in range(TRIALS):
        middle = (most + too_many) // 2
        if middle == most:
            break
        if fits(middle):
            most = middle
        else:
            too_many = middle
        _let_go(optimizer, keep_moments=True)
    return max(int(MARGIN * most), min(most, 1))


def _trainable(setup: TrainingSetup) -> list[Tensor]:
    return [parameter for parameter in setup.model.parameters() if parameter.requires_grad]


def _let_go(optimizer: torch.optim.Optimizer, *, keep_moments: bool) -> None:
    """Free what an interrupted step left: gradients, and moments that it had only begun to allocate."""
    optimizer.zero_grad(set_to_none=True)
    if not keep_moments:
        optimizer.state.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    release_free_memory()


def _does_not_fit(where: str, fitting: int, config: Config, device: torch.device) -> NoMemoryError:
    rule = f"must fit into the memory of {device}, and does not with {LEVELS[-1].what} either"
    if fitting == 0:
        remedy = "Not even one row fits: lower model.max_length or model.hidden_size, or use a larger device"
    else:
        remedy = (
            f"Start a new run with --batch-targets {fitting}, the most that fits here (it changes the in-batch losses, "
            "which is why a run does not change it by itself)"
        )
    return NoMemoryError(where, rule, f"{config.training.batch_targets} targets", remedy)
