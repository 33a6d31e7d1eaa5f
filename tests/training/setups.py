"""Models on catalogues that tests make up."""

from __future__ import annotations

from typing import Any

import torch

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.config import Config
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.models.protocol import ModelInputs
from athwe_core.training.build import TrainingSetup, build


def setup_of(
    config: Config,
    catalogue: Catalogue,
    time_range: TimeRange,
    compute_dtype: torch.dtype = torch.float32,
    world: ProcessGroup = ALONE,
) -> TrainingSetup:
    """A setup on the CPU, its tables divided over the processes of a group."""

    def inputs(generator: torch.Generator, **_: Any) -> ModelInputs:
        return ModelInputs(catalogue, time_range, compute_dtype, generator, world=world)

    return build(config, inputs)
