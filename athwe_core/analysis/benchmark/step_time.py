"""How long a training step takes, compared with the floor that no implementation of the catalogue's loss can go below."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from statistics import median

import numpy as np
import torch

from athwe_core.analysis.benchmark.floors import floors, peak_memory_bytes, synchronize
from athwe_core.analysis.benchmark.generated import BenchData, build_generated, needed_features
from athwe_core.analysis.benchmark.records import BenchResult, StepTimes
from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, NO_PADDING, SOME_PADDING, Padding, pack_shard
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import SplitInteractionArrays, epoch_batches, training_rows
from athwe_core.distributed import ALONE, BatchShards, ProcessGroup
from athwe_core.training.batches import in_advance
from athwe_core.training.build import TrainingSetup, build_setup
from athwe_core.training.compiled import compile_or_not, wants_compiler
from athwe_core.training.optim import make_optimizer
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.recorded import RecordedSteps, recorded_or_not
from athwe_core.training.step import PendingLosses, steps_ahead, train_step

WARM_UP_STEPS = 20
"""Most untimed steps. In the first steps libraries compile a kernel for each new shape."""


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
    records: bool = True,
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
        records: whether compiled steps on CUDA are recorded as graphs too, as in training.
        notify: called with one sentence when the steps cannot be compiled or recorded as the configuration says.
    """
    setup = setup.distribute(world)
    optimizer = make_optimizer(setup.model, lr=config.training.lr)
    is_compiled = wants_compiler(config, setup.device, world, has_fixed_shapes=setup.model.has_fixed_shapes)
    padding = NO_PADDING if is_padded else FIXED_PADDING if is_compiled else SOME_PADDING
    batches = training_batches(data, config, world, padding)
    recorded: RecordedSteps | None = None
    if is_compiled:
        setup = compile_or_not(setup, next(batches)[0].to(setup.device), config, notify=notify)
        recorded = recorded_or_not(setup, optimizer, config, notify=notify) if records else None

    def next_batch(_: int) -> tuple[PackedBatch, BatchShards]:
        packed, shards = next(batches)
        if is_padded:
            packed = padded_rows(packed, max_length=config.model.max_length)
        return packed.pinned() if setup.device.type == "cuda" else packed, shards

    unread: deque[PendingLosses] = deque()
    ends, tokens, targets = [time.perf_counter()], 0, 0
    warm_up = min(steps, WARM_UP_STEPS)
    with closing(in_advance(next_batch, count(), count=steps_ahead(setup.device))) as prepared:
        for step, (packed, shards) in enumerate(islice(prepared, warm_up + steps)):
            batch = packed.to(setup.device)
            terms = None if recorded is None else recorded.take(batch, epoch=0, step=step)
            if terms is None:
                terms = train_step(setup, optimizer, batch, config, epoch=0, step=step, shards=shards)
            unread.append(PendingLosses(terms))
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
            synchronize(setup.device)
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
