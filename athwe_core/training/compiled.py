"""The loss module through torch's compiler: fewer, fused kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.distributed import ProcessGroup
from athwe_core.safe_write import reason
from athwe_core.training.build import TrainingSetup
from athwe_core.training.step import compute_gradients

LossTerms = dict[str, torch.Tensor]

MOST_SHAPES = 64
"""Most batch shapes that code is compiled for; further shapes run uncompiled."""


def wants_compiler(config: Config, device: torch.device, world: ProcessGroup, *, has_fixed_shapes: bool) -> bool:
    """Whether the steps of a run are to be compiled: `auto` is on CUDA only, where a step is bound by its kernels' starts.

    (On a CPU the encoders without dropout took 17.6 ms compiled and 22.7 as they are; with torch's dropout compiled 47.6.)
    A sampled catalogue loss has other shapes in each step, some models do too, and several processes exchange rows within
    one.
    """
    choice = config.training.compiler
    has_one_shape = config.losses.catalogue.kind == "full" and has_fixed_shapes and world.size == 1
    return has_one_shape and (choice == "on" or (choice == "auto" and device.type == "cuda"))


def compile_or_not(
    setup: TrainingSetup, batch: PackedBatch, config: Config, *, notify: Callable[[str], None] = lambda _: None
) -> TrainingSetup:
    """The setup with a compiled loss module, tried on one batch; as it is, with a sentence to `notify`, where that fails.

    No weight is changed. On CUDA `RecordedSteps` records the compiled code with the rest of the step.
    """
    try:
        compiled = torch.compile(setup.loss_module, dynamic=False)
        trial = replace(setup, compiled=_for_many_shapes(compiled))
        compute_gradients(trial, batch, config, epoch=0, step=0)
    except Exception as error:  # it raises many kinds; what is wrong with the batch itself shows in the step without it
        notify(f"the compiler failed ({reason(error)}): going on without it")
        trial = setup
    setup.model.zero_grad(set_to_none=True)
    return trial


def _for_many_shapes(compiled: Callable[..., LossTerms]) -> Callable[..., LossTerms]:
    """Compiled code that may be compiled for `MOST_SHAPES` shapes; the limit of other code in this process stays."""

    def run(*arguments: Any) -> LossTerms:
        with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
            return compiled(*arguments)

    return run
