"""Estimate of the memory that training needs, measured on small batches before the run starts.

    peak = process + data + features + state + max(step, evaluation, saving)

    process     interpreter and libraries (CPU), or context and libraries on the device (CUDA)
    data        CPU: interactions mapped from disk (the system can take their pages back), the split and the rows of an epoch
    features    the model's buffers: text and image vectors, categories, clusters; on a CPU also their mapped files
    state       16 bytes a weight: weight, gradient and Adam's two moments; 12 for a table whose gradient is sparse; 20 where
                several processes take the mean of their gradients, which they do in a copy
    step        all other tensors of a forward and backward pass
    evaluation  item table, and a batch of users and a tile of scores for each worker
    saving      a copy of Adam's moments; not of tables that are divided over processes, which are written in pieces

Of several processes, the estimate is for the one that holds most. It has its part of each batch, and with
`training.shard_tables` its rows of the item tables; the others are simulated.

Weights and features are counted on torch's meta device. When they do not fit, nothing is built. Otherwise a step is taken on
1/8 and on 1/4 of a large batch, and two small blocks of users are ranked. Their peaks are extrapolated linearly. All steps
run without memory saving; what is saved when memory runs out is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import pack, pack_shard
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.rows import Rows, batch_boundaries, training_rows
from athwe_core.data.split import Split
from athwe_core.device import available_memory, resolve_device, resolve_precision
from athwe_core.distributed import ALONE, BatchShards, ProcessGroup, local_size
from athwe_core.evaluation.blocks import BATCH_TOKENS, most_users, workers_on
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS
from athwe_core.models.inputs import make_catalogue, meta_model
from athwe_core.nn.item_embeddings import divided_rows, divided_tables
from athwe_core.training.build import TrainingSetup, build_setup
from athwe_core.training.memory_meter import peak_bytes
from athwe_core.training.memory_saving import LEVELS
from athwe_core.training.out_of_memory import is_out_of_memory
from athwe_core.training.randomness import keyed_rng
from athwe_core.training.simulated_processes import SimulatedGroup, SimulatedShards
from athwe_core.training.step import compute_gradients

PROCESS_BYTES = {"cpu": 430e6, "cuda": 500e6}
"""Measured on a CPU: interpreter, torch with its thread pool and compiler, polars. On CUDA the usual size of a context."""
SLACK = 1.15
"""Factor for memory that allocators round up to and that libraries take inside a product."""
WEIGHT_BYTES, MOMENT_BYTES, GRADIENT_BYTES = 4, 8, 4
PAGE_BYTES = 4096
BATCHES_DRAWN = 8
SHARES = (8, 4)
"""A step is measured on 1/8 and 1/4 of a batch."""
MIN_TARGETS = 256
"""A batch of fewer targets is measured whole."""
USERS_RANKED = (32, 64)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of each part of the peak, see the module's docstring."""

    device: str
    process: int
    data: int
    features: int
    state: int
    step: int
    evaluation: int
    saving: int
    available: int | None
    """Free memory of the device now; None where it is not known."""
    processes: int = 1
    """Processes that train together; all numbers are of one of them."""
    is_measured: bool = True
    """False where weights, moments and features alone do not fit, or a part of a batch does not: step and evaluation are
    then 0."""

    @property
    def peak(self) -> int:
        """Most bytes at any time."""
        return self.process + self.data + self.features + self.state + max(self.step, self.evaluation, self.saving)

    @property
    def needed(self) -> int:
        """Bytes that are still to be allocated. On a CPU this process is there already, and mapped data can be dropped."""
        return self.peak - (self.process + self.data if self.device == "cpu" else 0)

    @property
    def fits(self) -> bool:
        """False only where it is known not to fit."""
        return self.is_measured and (self.available is None or self.needed <= self.available)

    def facts(self) -> dict[str, int | str | bool | None]:
        """The parts in bytes by name, for JSON."""
        parts = {name: getattr(self, name) for name in ("process", "data", "features", "state", "step", "evaluation")}
        parts |= {"saving": self.saving, "peak": self.peak, "needed": self.needed, "available": self.available}
        return {"device": self.device, "processes": self.processes, **parts, "fits": self.fits}


def estimate_memory(prepared: PreparedDataset, config: Config, *, world: ProcessGroup = ALONE) -> MemoryEstimate:
    """Estimate the memory of a run, for any model.

    The model is built and freed again. No random state of torch changes.

    Args:
        prepared: the data set.
        config: a configuration that fits it; `training.device` is where the memory is measured.
        world: the processes that are to train together. Only this one need call it: nothing is sent to the others.
    Returns: the estimate; see `MemoryEstimate.is_measured` for a model that does not fit by far.
    Raises: ConfigError where the machine does not have the device.
    """
    known = estimate_state(prepared, config, world=world)
    if known is not None and not known.fits:
        return replace(known, is_measured=False)
    device = resolve_device(config.training.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        world = _simulated(world)
        setup = build_setup(config, prepared, world)
        known = known or _state(prepared, config, setup.model, world)
        try:
            step = _step_bytes(setup, prepared, config, world)
            evaluation = _evaluation_bytes(setup, prepared, config)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return replace(known, is_measured=False)
    return replace(known, step=int(SLACK * step), evaluation=int(SLACK * evaluation))


def estimate_state(prepared: PreparedDataset, config: Config, *, world: ProcessGroup = ALONE) -> MemoryEstimate | None:
    """The parts that follow from shapes: state, features, saving, process and data. Nothing is built or read.

    Args:
        prepared, config, world: as in `estimate_memory`.
    Returns: an estimate whose step and evaluation are 0; None for a model that cannot be built on torch's meta device.
    Raises: ConfigError where the machine does not have the device.
    """
    device = resolve_device(config.training.device)
    compute_dtype = resolve_precision(config.training.precision, device)
    world = _simulated(world)
    model = meta_model(prepared, config, compute_dtype=compute_dtype, world=world)
    return None if model is None else _state(prepared, config, model, world)


def _simulated(world: ProcessGroup) -> ProcessGroup:
    """The group as its first process sees it, which holds as many rows as any other."""
    return world if world.size == 1 else SimulatedGroup(0, world.size)


def _state(prepared: PreparedDataset, config: Config, model: torch.nn.Module, world: ProcessGroup) -> MemoryEstimate:
    device = resolve_device(config.training.device)
    on_cpu = device.type == "cpu"
    trainable = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    weights, divided = sum(trainable.values()), divided_rows(model)
    whole = sum(count for name, count in trainable.items() if name not in divided)
    gradients = _gradient_bytes(model) + (GRADIENT_BYTES * whole if world.size > 1 else 0)
    available = available_memory(device)
    if on_cpu and available is not None and world.size > 1:
        available //= local_size()
    return MemoryEstimate(
        device=str(device),
        process=int(PROCESS_BYTES["cpu" if on_cpu else "cuda"]),
        data=_data_bytes(prepared, config) if on_cpu else 0,
        features=sum(buffer.nbytes for buffer in model.buffers())
        + (_file_bytes(prepared, config, model) if on_cpu else 0),
        state=weights * (WEIGHT_BYTES + MOMENT_BYTES) + gradients,
        step=0,
        evaluation=0,
        saving=whole * MOMENT_BYTES,
        available=available,
        processes=world.size,
    )


def _gradient_bytes(model: torch.nn.Module) -> int:
    """Of the dense gradients. A sparse one has the rows of a step and counts as part of it."""
    modules = model.modules()
    sparse = {module.weight for module in modules if isinstance(module, torch.nn.Embedding) and module.sparse}
    return sum(GRADIENT_BYTES * p.numel() for p in model.parameters() if p.requires_grad and p not in sparse)


def _data_bytes(prepared: PreparedDataset, config: Config) -> int:
    """Mapped interactions, the split's arrays, and the rows of an epoch with their order and its batches."""
    rows = training_rows(prepared.split, batching=config.training.batching, max_length=config.model.max_length)
    mapped = sum(int(array.nbytes) for array in (prepared.offsets, prepared.item_ids, prepared.timestamps))
    return mapped + 2 * 8 * prepared.num_users + 7 * 8 * len(rows)


def _file_bytes(prepared: PreparedDataset, config: Config, model: torch.nn.Module) -> int:
    """Feature files that the configuration reads; where tables are divided, the pages with rows of this process."""
    catalogue, tables = make_catalogue(prepared, config, on_meta=True), divided_tables(model)
    features = [tensor.nbytes for tensor in catalogue.features.values()]
    if tables is not None:
        own, rows = len(tables.rows), tables.rows.num_rows
        features = [min(size, own * (size // rows + PAGE_BYTES)) for size in features]
    labels = (*catalogue.clusters.values(), catalogue.categories)
    return sum(features) + sum(tensor.nbytes for tensor in labels if tensor is not None)


def _step_bytes(setup: TrainingSetup, prepared: PreparedDataset, config: Config, world: ProcessGroup) -> float:
    """Most bytes of a forward and backward pass on a large batch, without the dense gradients of the weights."""
    rows = training_rows(prepared.split, batching=config.training.batching, max_length=config.model.max_length)
    chosen = _large_batch(rows, config)
    targets = rows.num_supervised[chosen].sum()
    parts = [chosen] if targets < MIN_TARGETS * world.size else [_every(chosen, rows, share) for share in SHARES]
    tokens, peaks = [], []
    for part in parts:
        batch, shards = _part_of_first(prepared, rows, part, config, world)
        share = rows.num_supervised[part].sum() / targets
        tokens.append(batch.num_tokens)
        peaks.append(_peak_of_step(setup, batch.to(setup.device), shards, config, share=float(share)))
    largest, _ = _part_of_first(prepared, rows, chosen, config, world)
    return max(_extrapolated(tokens, peaks, largest.num_tokens) - _gradient_bytes(setup.model), 0.0)


def _part_of_first(
    prepared: PreparedDataset, rows: Rows, chosen: NDArray[np.int64], config: Config, world: ProcessGroup
) -> tuple[PackedBatch, BatchShards]:
    """What the first process has of a batch, and how the batch is divided."""
    length = config.model.max_length
    is_own, shards = world.divide(rows.num_supervised[chosen])
    batch = pack_shard(prepared, rows, chosen, max_length=length, is_own=is_own)
    if world.size > 1:
        target_ids = pack(prepared, rows, chosen, max_length=length).target_ids
        shards = SimulatedShards(shards.counts, target_ids=target_ids.to(resolve_device(config.training.device)))
    return batch, shards


def _peak_of_step(
    setup: TrainingSetup, batch: PackedBatch, shards: BatchShards, config: Config, *, share: float
) -> int:
    """Peak of a step on a part of a batch, gradients included.

    The chunk of scores that is held at a time is the same part of the usual one, so that all is linear in the batch.
    """
    usual = replace(LEVELS[0], chunk_elements=max(int(CHUNK_ELEMENTS * share), 1))
    try:
        return peak_bytes(
            lambda: compute_gradients(setup, batch, config, epoch=0, step=0, memory_saving=usual, shards=shards),
            setup.device,
        )
    finally:
        setup.model.zero_grad(set_to_none=True)


def _large_batch(rows: Rows, config: Config) -> NDArray[np.int64]:
    """The rows of the batch with most tokens among a few drawn at random."""
    rng = keyed_rng(config.training.seed, "memory estimate")
    budget = config.training.batch_targets
    per_row = max(1.0, rows.num_targets / max(len(rows), 1))
    count = min(len(rows), int(BATCHES_DRAWN * budget / per_row) + 1)
    drawn = rng.permutation(len(rows))[:count] if count > len(rows) // 2 else rng.integers(len(rows), size=count)
    lengths = rows.stop[drawn] - rows.start[drawn]
    ranges = batch_boundaries(rows.num_supervised[drawn], batch_targets=budget)
    first, last = max(ranges, key=lambda ends: int(lengths[ends[0] : ends[1]].sum()))
    return drawn[first:last]


def _every(chosen: NDArray[np.int64], rows: Rows, share: int) -> NDArray[np.int64]:
    """Each `share`-th row from the longest on, so that short and long rows are as frequent as in the batch."""
    lengths = rows.stop[chosen] - rows.start[chosen]
    return chosen[np.argsort(-lengths, kind="stable")][::share]


def _extrapolated(sizes: list[int], peaks: list[int], size: int) -> float:
    """The peak at `size` on the line through the measured ones; never less than the largest of them."""
    if len(sizes) == 1 or sizes[0] == sizes[-1]:
        return float(peaks[-1])
    slope = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
    return max(peaks[-1] + slope * (size - sizes[-1]), float(max(peaks)))


@dataclass(frozen=True)
class _SomeUsers:
    """Interactions of a data set with the split of a few of its users."""

    offsets: NDArray[np.int64]
    item_ids: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    split: Split


def _evaluation_bytes(setup: TrainingSetup, prepared: PreparedDataset, config: Config) -> float:
    """Most bytes of a ranking of the test split: the item table and the blocks that are ranked side by side."""
    split, exclude_seen = prepared.split, config.evaluation.exclude_seen
    asked = split.users("test")
    if not len(asked):  # trained on all data
        return 0.0
    history = np.minimum(split.test[asked] - split.start[asked], config.model.max_length)
    tables = divided_tables(setup.model)
    workers, items = workers_on(setup.device), prepared.num_item_rows
    if tables is not None:
        workers, items = 1, len(tables.rows)
    in_batch = min(most_users(items), int(BATCH_TOKENS / history.mean()) + 1)
    at_once = min(workers * in_batch, len(asked))
    sizes = sorted({min(count, at_once) for count in USERS_RANKED})
    peaks = []
    for count in sizes:
        users = asked[np.linspace(0, len(asked) - 1, count).astype(np.int64)]
        few = Split(split.start[users], split.training_end[users], split.validation[users], split.test[users])
        data = _SomeUsers(split.start[users], prepared.item_ids, prepared.timestamps, few)
        rank = partial(rank_users, setup.model, data, split="test", exclude_seen=exclude_seen)
        peaks.append(peak_bytes(rank, setup.device))
    return _extrapolated(sizes, peaks, at_once)
