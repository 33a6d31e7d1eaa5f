"""Times that no implementation of a step goes below, measured in the same process, and the memory of a step."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median

import torch

from athwe_core.analysis.benchmark.records import FloorSeconds
from athwe_core.config import Config
from athwe_core.training.build import TrainingSetup


def floors(setup: TrainingSetup, config: Config) -> FloorSeconds:
    """`catalogue_floor_seconds` of a step of the configuration, in both precisions."""
    with torch.inference_mode():
        V, K = setup.model.item_table().shape
    N = config.training.batch_targets
    return {
        "fp32": catalogue_floor_seconds(N, V, K, torch.float32, setup.device),
        "bf16": catalogue_floor_seconds(N, V, K, torch.bfloat16, setup.device),
    }


def state_bytes(setup: TrainingSetup) -> int:
    """Bytes that stay on the device from step to step: weights, their two moments, features and labels."""
    weights = sum(weight.nbytes * (3 if weight.requires_grad else 1) for weight in setup.model.parameters())
    return weights + sum(buffer.nbytes for buffer in setup.model.buffers())


def memory_floor_seconds(setup: TrainingSetup) -> float:
    """Median time to move the bytes that no dense step can avoid, measured as a copy of half as many.

    Adam reads weight, gradient and two moments of each weight and writes all but the gradient. Forward and backward pass
    each read the features in the compute dtype.
    """
    weights = sum(weight.nbytes for weight in setup.model.parameters() if weight.requires_grad)
    features = sum(value.nbytes for name, value in setup.model.named_buffers() if "training_features" in name)
    source = torch.ones((7 * weights + 2 * features) // 2, dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)

    def move() -> None:
        target.copy_(source)
        synchronize(setup.device)

    return median(islice(_timings(move), 3, 13))


def catalogue_floor_seconds(N: int, V: int, K: int, dtype: torch.dtype, device: torch.device) -> float:
    """Median time of the three matrix products of the catalogue's cross-entropy: the scores and their two gradients.

    Args:
        N: targets.
        V: rows of the item table.
        K: width of a vector.
        dtype: of all matrices.
        device: where the products are computed.
    """
    states, table, gradient = (torch.randn(*shape, device=device).to(dtype) for shape in ((N, K), (V, K), (N, V)))

    def products() -> None:
        _ = states @ table.T, gradient @ table, gradient.T @ states
        synchronize(device)

    return median(islice(_timings(products), 3, 13))


def _timings(call: Callable[[], None]) -> Iterator[float]:
    while True:
        began = time.perf_counter()
        call()
        yield time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait for a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory use so far: of the device where it is CUDA, else of this process; 0 on Windows, where it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
