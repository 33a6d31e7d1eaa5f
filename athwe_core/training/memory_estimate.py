"""What training will take of the memory, from the configuration and the data alone, before anything is built.

    peak = process + data + features + state + max(step, evaluation, saving)

    process     interpreter and libraries (CPU), or context and libraries on the device (CUDA)
    data        CPU: interactions mapped from disk and touched (the system takes them back), split and rows of an epoch
    features    text and image vectors as read and in the precision of training, categories, clusters
    state       16 bytes a weight: weight, gradient, Adam's two moments (12 of the id table's with a sampled catalogue loss)
    step        activations of a step + item table and its gradients + a chunk of catalogue scores; with a sampled
                catalogue loss the table is its rows for inputs, targets and negatives
    evaluation  item table + activations of the users who are ranked at a time + their scores
    saving      Adam's moments once more, as bytes

Activations are counted stage by stage for T tokens, N targets and a G x S attention grid, which are those of the largest of a
few batches drawn from the data. All is at the usual memory_saving; what is spared when memory runs out is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.data.packing import MIN_BIN_SLOTS, Rows, batch_boundaries, pack, training_rows
from athwe_core.data.prepare import PreparedDataset
from athwe_core.device import available_memory, resolve_device, resolve_precision
from athwe_core.evaluation.evaluate import BLOCK_TOKENS, workers_and_users
from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS
from athwe_core.models.athwe.config import AthweConfig, AthweModelConfig
from athwe_core.models.athwe.network import Network
from athwe_core.models.inputs import training_time_range
from athwe_core.nn.item_embeddings import ItemEmbeddings
from athwe_core.training.randomness import keyed_rng

PROCESS_BYTES = {"cpu": 430e6, "cuda": 500e6}
"""Measured on a CPU: interpreter, torch with its thread pool and compiler, polars; on CUDA: the usual size of a context."""
SLACK = 1.15
"""Of a step: what allocators round up and libraries take for themselves inside a product."""
BATCHES_DRAWN = 8
BATCHES_PACKED = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of each part of the peak; see the module for the law."""

    device: str
    process: int
    data: int
    features: int
    state: int
    step: int
    evaluation: int
    saving: int
    available: int | None
    """What the device has left now; None where that cannot be known."""

    @property
    def peak(self) -> int:
        return self.process + self.data + self.features + self.state + max(self.step, self.evaluation, self.saving)

    @property
    def needed(self) -> int:
        """What has still to be taken: this process is there already, mapped data are given back when memory is short."""
        return self.peak - (self.process + self.data if self.device == "cpu" else 0)

    @property
    def fits(self) -> bool:
        """False only where it is known not to."""
        return self.available is None or self.needed <= self.available

    def facts(self) -> dict[str, int | str | bool | None]:
        """For programs, in bytes."""
        parts = {name: getattr(self, name) for name in ("process", "data", "features", "state", "step", "evaluation")}
        parts |= {"saving": self.saving, "peak": self.peak, "needed": self.needed, "available": self.available}
        return {"device": self.device, **parts, "fits": self.fits}


def estimate_memory(prepared: PreparedDataset, config: AthweConfig) -> MemoryEstimate:
    """The estimate for a configuration that fits the data set, on the device it asks for."""
    device = resolve_device(config.training.device)
    compute_bytes = resolve_precision(config.training.precision, device).itemsize
    rows = training_rows(prepared.split, batching=config.training.batching, max_length=config.model.max_length)
    sizes = _largest_batch(prepared, rows, config)
    network, catalogue = _on_paper(prepared, config)
    weights = sum(parameter.numel() for parameter in network.parameters())
    without_gradient = network.tables.id.weight.numel() if network.tables.sparse else 0
    on_cpu = device.type == "cpu"
    return MemoryEstimate(
        device=str(device),
        process=int(PROCESS_BYTES["cpu" if on_cpu else "cuda"]),
        data=_data_bytes(prepared, rows) if on_cpu else 0,
        features=_feature_bytes(network.tables, catalogue, compute_bytes, on_cpu=on_cpu),
        state=16 * weights - 4 * without_gradient,
        step=int(SLACK * step_bytes(config, network, sizes, compute_bytes)),
        evaluation=int(SLACK * _evaluation_bytes(config, prepared.num_item_rows, device)),
        saving=8 * weights,
        available=available_memory(device),
    )


@dataclass(frozen=True)
class BatchSizes:
    """Axes of a batch, see `athwe_core.batch`."""

    tokens: int
    targets: int
    bins: int
    slots: int

    @staticmethod
    def of(batch: PackedBatch) -> BatchSizes:
        bins, slots = batch.grid_tokens.shape
        return BatchSizes(batch.num_tokens, batch.num_targets, int(bins), int(slots))


def step_bytes(config: AthweConfig, network: Network, sizes: BatchSizes, compute_bytes: int) -> float:
    """Most bytes of tensors alive in a step beside weights, features and moments.

    Either while the catalogue's scores are there, or at the end of the forward pass and on the way back.
    """
    model, losses = config.model, config.losses
    T, N, M, V = sizes.tokens, sizes.targets, len(model.modalities), network.tables.id.weight.shape[0]
    if losses.catalogue.kind == "sampled":
        V = min(V, T + N + losses.catalogue.num_negatives)
    table = 4 * V * M * model.hidden_size
    passes = 2 * M - 1 if losses.pcl.weight > 0 and model.temporal_moe.enabled else M
    activations = _mixture_bytes(model, sizes, compute_bytes) + compute_bytes * _encoder_elements(model, sizes, passes)
    chunk = compute_bytes * min(N * V, max(CHUNK_ELEMENTS, V))
    copies = table * compute_bytes / 4 if compute_bytes < 4 else 0
    at_scores = activations + 3 * table + 2 * copies + chunk
    classes = sum(weight.shape[0] for name, weight in network.named_parameters() if name in _head_weights(network))
    logits = 4.0 * T * 4 * classes
    pairs = 0.0
    if losses.idcl.weight > 0 or losses.pcl.weight > 0:
        pairs = compute_bytes * N * N + max(3.0 * N * N, compute_bytes * min(N * N, max(CHUNK_ELEMENTS, N)))
    at_end = activations + logits + pairs + 4 * table
    return max(at_scores, at_end)


def _head_weights(network: Network) -> set[str]:
    """Weights of the heads that tell categories and clusters of every token's item."""
    return {"category_head.weight", *(f"cluster_heads.{name}.weight" for name in network.cluster_heads)}


def _mixture_bytes(model: AthweModelConfig, sizes: BatchSizes, compute_bytes: int) -> float:
    """From item rows to what the Transformers read, dropout included: arrays of T x K kept for the way back."""
    M, share = len(model.modalities), compute_bytes / 4
    arrays = 5.0  # rows, with positions; normalised, dropout and its result
    if model.interactive_moe.enabled:
        arrays += model.interactive_moe.num_experts * share + 2
    if model.wavelet.enabled:
        arrays += (1 + model.wavelet.levels) * ((M + 1) * share + 2) + 1
    if model.temporal_moe.enabled:
        arrays += 3
    return 4 * arrays * sizes.tokens * M * model.hidden_size


def _encoder_elements(model: AthweModelConfig, sizes: BatchSizes, m: int) -> float:
    """Numbers that m Transformers with dropout keep; the last layer works on the supervised tokens once it has attended."""
    D, inner = model.hidden_size, model.inner_size
    weights = sizes.bins * m * model.num_heads * sizes.slots**2
    attention = 3 * sizes.bins * sizes.slots * m * D + 3 * weights
    behind = [sizes.tokens] * (model.num_layers - 1) + [sizes.targets]
    return float(sum(attention + tokens * m * (9 * D + 2 * inner) for tokens in behind) + weights)


def _evaluation_bytes(config: AthweConfig, num_item_rows: int, device: torch.device) -> float:
    model = config.model
    M, S = len(model.modalities), max(MIN_BIN_SLOTS, model.max_length)
    workers, users = workers_and_users(num_item_rows, device)
    sizes = BatchSizes(BLOCK_TOKENS, users, -(-BLOCK_TOKENS // S), S)
    activations = _mixture_bytes(model, sizes, 4) / 2 + 4 * _encoder_elements(model, sizes, M) / model.num_layers / 2
    return 2 * 4 * num_item_rows * M * model.hidden_size + workers * (6 * users * num_item_rows + activations)


def _largest_batch(prepared: PreparedDataset, rows: Rows, config: AthweConfig) -> BatchSizes:
    """Sizes of the batch with most tokens among a few drawn at random."""
    rng = keyed_rng(config.training.seed, "memory estimate")
    budget = config.training.batch_targets
    per_row = max(1.0, rows.num_targets / max(len(rows), 1))
    count = min(len(rows), int(BATCHES_DRAWN * budget / per_row) + 1)
    drawn = rng.permutation(len(rows))[:count] if count > len(rows) // 2 else rng.integers(len(rows), size=count)
    lengths = rows.stop[drawn] - rows.start[drawn]
    ranges = batch_boundaries(rows.num_supervised[drawn], batch_targets=budget)
    tokens = [int(lengths[first:last].sum()) for first, last in ranges]
    largest = np.argsort(tokens)[-BATCHES_PACKED:]
    batches = [drawn[slice(*ranges[index])] for index in largest]
    sizes = [BatchSizes.of(pack(prepared, rows, chosen, max_length=config.model.max_length)) for chosen in batches]
    return max(sizes, key=lambda found: found.bins * found.slots**2 + found.tokens)


def _data_bytes(prepared: PreparedDataset, rows: Rows) -> int:
    """Mapped interactions, the split's arrays, and the rows of an epoch with their order and its batches."""
    mapped = sum(int(a.nbytes) for a in (prepared.offsets, prepared.item_ids, prepared.timestamps))
    return mapped + 4 * 8 * prepared.num_users + 8 * 8 * len(rows)


def _feature_bytes(tables: ItemEmbeddings, catalogue: Catalogue, compute_bytes: int, *, on_cpu: bool) -> int:
    """Vectors in float32 and in the precision of training; on a CPU the files they were read from stay mapped."""
    labels = [*catalogue.clusters.values(), *([] if catalogue.categories is None else [catalogue.categories])]
    small = sum(values.numel() * values.itemsize for values in labels)
    copied = sum(values.numel() for name, values in catalogue.features.items() if name not in tables.mapped)
    copies = 4 + (compute_bytes if compute_bytes < 4 and not tables.sparse else 0)
    mapped = sum(values.numel() * values.itemsize for values in catalogue.features.values())
    return copied * copies + small + (mapped + small if on_cpu else 0)


def _on_paper(prepared: PreparedDataset, config: AthweConfig) -> tuple[Network, Catalogue]:
    """Network and catalogue whose tensors have shapes but no memory."""
    features = {"text": prepared.text_features, "image": prepared.image_features}
    clusters = {"text": prepared.text_clusters, "image": prepared.image_clusters}
    used, losses = config.model.modalities[1:], config.losses
    with torch.device("meta"):
        catalogue = Catalogue(
            num_item_rows=prepared.num_item_rows,
            features={m: torch.empty(f.shape) for m in used if (f := features[m]) is not None},
            categories=None
            if prepared.categories is None or losses.cp.weight == 0
            else torch.empty(prepared.categories.shape, dtype=torch.uint8),
            clusters={
                m: torch.from_numpy(np.array(c))
                for m in used
                if losses.cluster.weight > 0 and (c := clusters[m]) is not None
            },
        )
        network = Network(config.model, losses, catalogue, training_time_range(prepared))
    return network, catalogue
