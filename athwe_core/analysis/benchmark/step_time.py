"""How long a training step takes, compared with the floor that no implementation of the catalogue's loss can go below."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from athwe_core.analysis.benchmark.records import BenchResult, FloorSeconds, StepTimes
from athwe_core.batch import Attribute, Catalogue, PackedBatch, TimeRange
from athwe_core.config import Config
from athwe_core.data.packing import (
    FIXED_PADDING,
    NO_PADDING,
    SOME_PADDING,
    Padding,
    SplitInteractionArrays,
    epoch_batches,
    pack_shard,
    training_rows,
)
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.split import Split, leave_one_out
from athwe_core.distributed import ALONE, BatchShards, ProcessGroup
from athwe_core.models.inputs import training_histories
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import find_model
from athwe_core.training.build import TrainingSetup, build, build_setup
from athwe_core.training.compiled import compile_or_not, wants_compiler
from athwe_core.training.optim import make_optimizer
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.step import PendingLosses, steps_ahead, train_step

WARM_UP_STEPS = 20
"""Most untimed steps. In the first steps libraries compile a kernel for each new shape."""
NUM_CATEGORIES = 300
NUM_CLUSTERS = 100
_ROWS_AT_ONCE = 2**16


@dataclass(frozen=True)
class BenchData:
    """Generated interactions in compressed rows, for a benchmark of any size.

    Args:
        offsets: (users + 1,) start of each user's interactions.
        item_ids: (N,) rows of the catalogue, >= 1.
        timestamps: (N,) seconds, not decreasing for a user.
    """

    offsets: np.ndarray[Any, np.dtype[np.int64]]
    item_ids: np.ndarray[Any, np.dtype[np.int32]]
    timestamps: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def split(self) -> Split:
        """Leave-one-out."""
        return leave_one_out(self.offsets)


def generate_bench_data(*, num_users: int, num_items: int, mean_length: float, seed: int = 0) -> BenchData:
    """Generate users with at least five items each, some items far more popular than others, days between interactions.

    Args:
        num_users: >= 1.
        num_items: >= 1.
        mean_length: mean number of items of a user, >= 5. In Beauty it is 8.9.
        seed: of everything that is random.
    """
    rng = np.random.default_rng(seed)
    lengths = 4 + rng.geometric(1 / max(mean_length - 4, 1), size=num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    item_ids = 1 + (num_items * rng.random(offsets[-1]) ** 2).astype(np.int32)
    gaps = (rng.pareto(1.0, size=offsets[-1]) * 10).clip(max=1000).astype(np.int64) * 86_400
    timestamps = 1_300_000_000 + np.cumsum(gaps)
    timestamps -= np.repeat(timestamps[offsets[:-1]] - 1_300_000_000, lengths)
    return BenchData(offsets, item_ids.astype(np.int32), timestamps)


def bench_prepared(prepared: PreparedDataset, config: Config, *, steps: int) -> BenchResult:
    """Time training steps on a prepared data set.

    Args:
        prepared: the data set.
        config: a configuration that fits it.
        steps: timed steps, >= 1.
    """
    used = {"text": prepared.text_features, "image": prepared.image_features}
    widths = [found.shape[1] for name in needed_features(config) if (found := used[name]) is not None]
    sizes = {"num_item_rows": prepared.num_item_rows, "feature_width": max(widths, default=0)}
    result = _bench(prepared, build_setup(config, prepared), config, **sizes, steps=steps)
    result["dataset"] = prepared.name
    return result


def bench_generated(data: BenchData, config: Config, *, num_items: int, feature_width: int, steps: int) -> BenchResult:
    """Time training steps on generated interactions with random features, categories and clusters.

    Args:
        data: of `generate_bench_data`.
        config: any complete configuration.
        num_items: items of the catalogue, as `data` was generated with.
        feature_width: width of the features of each modality.
        steps: timed steps, >= 1.
    """
    setup = build_generated(data, config, num_items=num_items, feature_width=feature_width)
    width = feature_width if needed_features(config) else 0
    return _bench(data, setup, config, num_item_rows=num_items + 1, feature_width=width, steps=steps)


def needed_features(config: Config) -> tuple[str, ...]:
    """Modalities besides ids that a configuration reads."""
    return find_model(config.model.name).needs(config).features


def build_generated(
    data: BenchData, config: Config, *, num_items: int, feature_width: int, folder: Path | None = None
) -> TrainingSetup:
    """Build the model of a configuration for generated interactions.

    Args:
        data: of `generate_bench_data`.
        config: any complete configuration.
        num_items: items of the catalogue.
        feature_width: width of the features of each modality.
        folder: where to keep the features in half precision, mapped into memory; None = in memory.
    """
    generator = torch.Generator().manual_seed(0)
    V, used, needs = num_items + 1, needed_features(config), find_model(config.model.name).needs(config)

    def features(name: str) -> torch.Tensor:
        if folder is None:
            return torch.randn(V, feature_width, generator=generator)
        found = np.memmap(folder / name, np.float16, "w+", shape=(V, feature_width))
        for first in range(0, V, _ROWS_AT_ONCE):
            block = found[first : first + _ROWS_AT_ONCE]
            block[:] = torch.randn(*block.shape, generator=generator).half().numpy()
        return torch.from_numpy(found)

    catalogue = Catalogue(
        num_item_rows=V,
        features={m: features(m) for m in used},
        categories=(torch.rand(V, NUM_CATEGORIES, generator=generator) < 0.01).byte(),
        clusters={m: torch.randint(0, NUM_CLUSTERS, (V,), generator=generator) for m in used},
        attributes={
            name: Attribute(torch.randint(0, NUM_CATEGORIES, (V,), generator=generator), NUM_CATEGORIES)
            for name in needs.attributes
        },
        target_counts=torch.from_numpy(np.bincount(data.item_ids, minlength=V)),
    )
    span = TimeRange(int(data.timestamps.min()), int(data.timestamps.max()), 1000 * 86_400)
    histories = training_histories(data.item_ids, data.split) if needs.histories else None
    return build(config, lambda **settings: ModelInputs(catalogue, span, histories=histories, **settings))


def _bench(
    data: BenchData | PreparedDataset,
    setup: TrainingSetup,
    config: Config,
    *,
    num_item_rows: int,
    feature_width: int,
    steps: int,
) -> BenchResult:
    notes: list[str] = []
    timed = time_steps(data, setup, config, steps=steps, notify=notes.append)
    peak = peak_memory_bytes(setup.device)
    N, floor = config.training.batch_targets, floors(setup, config)
    return {
        "step_seconds": timed["step_seconds"],
        "targets_per_second": timed["targets_per_second"],
        "tokens_per_second": timed["tokens_per_second"],
        "peak_memory_bytes": peak,
        "floor_seconds": floor,
        "ratio": timed["step_seconds"]["median"] / floor["fp32"],
        "notes": notes,
        "settings": {
            "rows": num_item_rows,
            "feature_width": feature_width,
            "mean_length": len(data.item_ids) / (len(data.offsets) - 1),
            "batching": config.training.batching,
            "batch_targets": N,
            "precision": str(setup.compute_dtype).removeprefix("torch."),
            "device": str(setup.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "steps": steps,
        },
    }


def time_steps(
    data: SplitInteractionArrays,
    setup: TrainingSetup,
    config: Config,
    *,
    steps: int,
    world: ProcessGroup = ALONE,
    is_padded: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> StepTimes:
    """Time complete training steps, with the packing of their batches.

    Losses are read as late as in training.

    Args:
        data: interactions.
        setup: model and device.
        config: the configuration of `setup`.
        steps: timed steps, >= 1. As many untimed ones come before, at most `WARM_UP_STEPS`.
        world: processes that take the steps together.
        is_padded: pad rows to max_length, as the published code does, for comparison.
        notify: called with one sentence when the steps cannot be compiled as the configuration says.
    """
    setup = setup.distribute(world)
    optimizer = make_optimizer(setup.model, lr=config.training.lr)
    is_compiled = wants_compiler(config, setup.device, world, has_fixed_shapes=setup.model.has_fixed_shapes)
    padding = NO_PADDING if is_padded else FIXED_PADDING if is_compiled else SOME_PADDING
    batches = training_batches(data, config, world, padding)
    if is_compiled:
        setup = compile_or_not(setup, next(batches)[0].to(setup.device), config, notify=notify)
    unread: deque[PendingLosses] = deque()
    ends, tokens, targets = [time.perf_counter()], 0, 0
    warm_up = min(steps, WARM_UP_STEPS)
    for step in range(warm_up + steps):
        packed, shards = next(batches)
        if is_padded:
            packed = padded_rows(packed, max_length=config.model.max_length)
        batch = packed.to(setup.device)
        unread.append(PendingLosses(train_step(setup, optimizer, batch, config, epoch=0, step=step, shards=shards)))
        if step >= warm_up:
            tokens += int((packed.item_ids > 0).sum())
            targets += batch.num_targets
        is_last = step + 1 == warm_up + steps
        while len(unread) > (0 if is_last else steps_ahead(setup.device)):
            unread.popleft().read()
            ends.append(time.perf_counter())
    seconds = np.diff(ends)[warm_up:].tolist()
    return {
        "seconds": seconds,
        "step_seconds": {"median": median(seconds), "min": min(seconds), "max": max(seconds)},
        "targets_per_second": targets / sum(seconds),
        "tokens_per_second": tokens / sum(seconds),
    }


def padded_rows(batch: PackedBatch, *, max_length: int) -> PackedBatch:
    """The batch with as many padding tokens as padding every row to max_length would add.

    Args:
        batch: packed, one attention bin for several rows.
        max_length: >= the longest row.
    """
    B, T = batch.num_rows, batch.num_tokens
    add = B * max_length - T
    slots = batch.rows * max_length + batch.positions
    grid = torch.full((B * max_length,), -1)
    grid[slots] = torch.arange(T)
    more = torch.zeros(add, dtype=torch.int64)
    return replace(
        batch,
        item_ids=torch.cat([batch.item_ids, more]),
        intervals=torch.cat([batch.intervals, more]),
        positions=torch.cat([batch.positions, more]),
        timestamps=torch.cat([batch.timestamps, more + batch.timestamps[-1]]),
        offsets=torch.cat([batch.offsets, torch.tensor([T + add])]),
        rows=torch.cat([batch.rows, more + B]),
        user_index=torch.cat([batch.user_index, torch.tensor([-1])]),
        prefix_weight=torch.cat([batch.prefix_weight, torch.zeros(add)]),
        grid_tokens=grid.view(B, max_length),
        token_slots=torch.cat([slots, (grid < 0).nonzero()[:, 0]]),
        all_supervised=False,
    )


def count_kernels(data: SplitInteractionArrays, setup: TrainingSetup, config: Config) -> int:
    """Number of CUDA kernels of one step, not compiled and without a CUDA graph."""
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 - only on CUDA

    optimizer = make_optimizer(setup.model, lr=config.training.lr)
    batch, shards = next(training_batches(data, config))
    batch = batch.to(setup.device)
    for step in range(2):
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            train_step(setup, optimizer, batch, config, epoch=0, step=step, shards=shards)
            _synchronize(setup.device)
    return sum(str(event.device_type).endswith("CUDA") for event in recorded.events() or [])


def training_batches(
    data: SplitInteractionArrays, config: Config, world: ProcessGroup = ALONE, padding: Padding = SOME_PADDING
) -> Iterator[tuple[PackedBatch, BatchShards]]:
    """This process's shard of each full batch, epoch after epoch without end."""
    L, budget = config.model.max_length, config.training.batch_targets
    rows = training_rows(data.split, batching=config.training.batching, max_length=L)
    for epoch in count():
        for chosen in epoch_batches(rows, batch_targets=budget, rng=keyed_rng(config.training.seed, "shuffle", epoch)):
            if rows.num_supervised[chosen].sum() > 0.9 * min(budget, rows.num_targets):
                is_own, shards = world.divide(rows.num_supervised[chosen], multiple=padding.targets)
                yield pack_shard(data, rows, chosen, max_length=L, is_own=is_own, padding=padding), shards


def floors(setup: TrainingSetup, config: Config) -> FloorSeconds:
    """`catalogue_floor_seconds` of a step of the configuration, in both precisions."""
    with torch.inference_mode():
        V, K = setup.model.item_table().shape
    N = config.training.batch_targets
    return {
        "fp32": catalogue_floor_seconds(N, V, K, torch.float32, setup.device),
        "bf16": catalogue_floor_seconds(N, V, K, torch.bfloat16, setup.device),
    }


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
        _synchronize(device)

    return median(islice(_timings(products), 3, 13))


def _timings(call: Callable[[], None]) -> Iterator[float]:
    while True:
        began = time.perf_counter()
        call()
        yield time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
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
