"""A prepared data set to what a model is built from: the catalogue and the time range of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from athwe_core.batch import Attribute, Catalogue, Histories, TimeRange
from athwe_core.config import Config, config_tree
from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.similar_items import most_similar_items
from athwe_core.data.split import Split
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.errors import DataError
from athwe_core.models.protocol import Available, Model, ModelInputs
from athwe_core.models.registry import build_model, config_from_tree, find_model
from athwe_core.nn.item_embeddings import RESIDENT_BYTES
from athwe_core.warning_filters import warnings_as

CATEGORIES = "categories"
"""The kind of labels of which an item may have several."""


def adapt_to_data(config: Config, prepared: PreparedDataset) -> tuple[Config, list[str]]:
    """The configuration without the parts that the data set has no features for.

    Returns: the configuration, and one sentence for each part that is off.
    Raises: DataError for features that the model cannot do without.
    """
    spec, tree = find_model(config.model.name), config_tree(config)
    available = available_inputs(prepared)
    notes = spec.adapt(tree, available)
    adapted = config_from_tree(tree)
    for modality in spec.needs(adapted).features:
        if modality not in available.features:
            rule = f"has no {modality} features, which model {spec.name} needs"
            remedy = f"See athwe prepare --help for how to make them, or place {modality[:3]}_emb.npy next to the data"
            raise DataError(f"data set {prepared.name}", rule, remedy=remedy)
    return adapted, notes


def available_inputs(prepared: PreparedDataset) -> Available:
    """What the data set has besides interactions."""
    features = {"text": prepared.text_features, "image": prepared.image_features}
    clusters = {"text": prepared.text_clusters, "image": prepared.image_clusters}
    columns = set(prepared.manifest.get("item_columns", {})) - {"item_id", CATEGORIES}
    return Available(
        dataset=prepared.name,
        features=frozenset(name for name, found in features.items() if found is not None),
        categories=prepared.categories is not None,
        clusters=frozenset(name for name, found in clusters.items() if found is not None),
        attributes=frozenset(columns | ({CATEGORIES} if prepared.categories is not None else set())),
        layer_states=frozenset(name for name, found in _layer_states(prepared).items() if found is not None),
    )


def _layer_states(prepared: PreparedDataset) -> dict[str, NDArray[Any] | None]:
    return {"text": prepared.text_layers, "image": prepared.image_layers}


def model_inputs(
    prepared: PreparedDataset,
    config: Config,
    *,
    compute_dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
    world: ProcessGroup = ALONE,
) -> ModelInputs:
    """Everything that the model of `config` is built from."""
    catalogue, histories = make_catalogue(prepared, config, world=world), needed_histories(prepared, config)
    return ModelInputs(catalogue, training_time_range(prepared), compute_dtype, generator, histories, world)


def meta_model(
    prepared: PreparedDataset,
    config: Config,
    *,
    compute_dtype: torch.dtype = torch.float32,
    world: ProcessGroup = ALONE,
) -> Model | None:
    """The model of `config` on torch's meta device, where tensors have shapes but take no memory.

    Args:
        world: processes that divide the item tables where the configuration has `training.shard_tables`.
    Returns: the model; None where its builder needs the values of the features.
    Raises: AthweError for a configuration that the builder refuses.
    """
    try:
        with torch.device("meta"), _NoRandomNumbers():
            catalogue = make_catalogue(prepared, config, on_meta=True)
            histories = needed_histories(prepared, config)
            times, sharing = training_time_range(prepared), world if config.training.shard_tables else ALONE
            inputs = ModelInputs(catalogue, times, compute_dtype, histories=histories, world=sharing)
            return build_model(config, inputs)
    except (NotImplementedError, RuntimeError):  # torch raises one of them for a value of a meta tensor
        return None


class _NoRandomNumbers(TorchFunctionMode):
    """Draws no initial weights. On the meta device there is nothing to fill, and torch loads its compiler for it: 2 s."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (torch.Tensor.normal_, torch.Tensor.uniform_) else func(*args, **(kwargs or {}))


def make_catalogue(
    prepared: PreparedDataset, config: Config, *, on_meta: bool = False, world: ProcessGroup = ALONE
) -> Catalogue:
    """The item-side tensors that the configuration uses.

    Args:
        world: processes over which the item tables are divided; of several, each reads its rows of the features later.
        on_meta: features and categories are on torch's meta device: their files are not read.
    """
    is_sampled = config.losses.catalogue.kind == "sampled"
    needs = find_model(config.model.name).needs(config)

    def tensor(array: NDArray[Any], *, on_meta: bool = on_meta) -> torch.Tensor:
        if on_meta:
            return torch.empty(array.shape, dtype=torch.from_numpy(np.array(array[:0])).dtype, device="meta")
        stays_mapped = is_sampled and (array.nbytes > RESIDENT_BYTES or world.size > 1)
        if not stays_mapped:
            return torch.from_numpy(np.array(array))
        with warnings_as("ignore", "The given NumPy array is not writable"):  # nothing writes to it
            return torch.from_numpy(np.asarray(array))

    features = {"text": prepared.text_features, "image": prepared.image_features}
    clusters = {"text": prepared.text_clusters, "image": prepared.image_clusters}
    layers = _layer_states(prepared)
    similar = similar_items(prepared, on_meta=on_meta) if needs.similar_items else {}
    use_categories = needs.categories and prepared.categories is not None
    return Catalogue(
        num_item_rows=prepared.num_item_rows,
        features={m: tensor(f) for m in needs.features if (f := features[m]) is not None},
        layer_states={m: tensor(s) for m in needs.features if needs.layer_states and (s := layers[m]) is not None},
        categories=tensor(prepared.categories) if use_categories and prepared.categories is not None else None,
        clusters={
            m: tensor(c, on_meta=False) for m in needs.features if needs.clusters and (c := clusters[m]) is not None
        },
        attributes={name: attribute(prepared, name) for name in needs.attributes},
        similar_items=similar.get("similar_items"),
        similarity=similar.get("similarity"),
        target_counts=target_counts(prepared) if is_sampled or needs.target_counts else None,
    )


def attribute(prepared: PreparedDataset, name: str) -> Attribute:
    """The labels of one kind: `categories`, or a column of the item metadata.

    Raises: DataError where the data set has no such labels.
    """
    if name != CATEGORIES:
        values = prepared.item_values(name)
        return Attribute(torch.from_numpy(values), int(values.max()) + 1)
    if prepared.categories is None:
        raise DataError(f"data set {prepared.name}", "has no categories", remedy="Choose other model.attributes")
    item, category = np.nonzero(prepared.categories)
    first = np.searchsorted(item, np.arange(prepared.num_item_rows))
    rank = np.arange(len(item)) - first[item]
    values = np.zeros((prepared.num_item_rows, 1 + int(rank.max(initial=0))), np.int64)
    values[item, rank] = category + 1
    return Attribute(torch.from_numpy(values), prepared.categories.shape[1] + 1)


def needed_histories(prepared: PreparedDataset, config: Config) -> Histories | None:
    """The training split, if the model of the configuration reads it."""
    if not find_model(config.model.name).needs(config).histories:
        return None
    return training_histories(prepared.item_ids, prepared.split)


def training_histories(item_ids: NDArray[np.int32], split: Split) -> Histories:
    """The training split of interactions as tensors."""
    counts = np.maximum(split.training_end - split.start, 0)
    items = np.asarray(item_ids, np.int64)[split.is_training(len(item_ids))]
    return Histories(torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])), torch.from_numpy(items))


def similar_items(prepared: PreparedDataset, *, on_meta: bool = False) -> dict[str, torch.Tensor]:
    """The most similar item of each item in the training split, and how similar it is, by field of `Catalogue`."""
    V = prepared.num_item_rows
    if on_meta:
        return {"similar_items": torch.zeros(V, dtype=torch.int64), "similarity": torch.zeros(V)}
    is_training = prepared.split.is_training(len(prepared.item_ids))
    users = np.repeat(np.arange(len(prepared.offsets) - 1), np.diff(prepared.offsets))[is_training]
    items = np.asarray(prepared.item_ids, np.int64)[is_training]
    nearest, best = most_similar_items(users, items, num_item_rows=V)
    return {"similar_items": torch.from_numpy(nearest), "similarity": torch.from_numpy(best)}


def target_counts(prepared: PreparedDataset) -> torch.Tensor:
    """How often each item is a training target, (V,) int64."""
    split, V = prepared.split, prepared.num_item_rows
    counts = np.zeros(V, np.int64)
    for block, is_target in split.training_blocks(len(prepared.item_ids), V):
        is_target[_first_rows(split, block) - block.start] = False  # a user's first item is only input
        counts += np.bincount(prepared.item_ids[block][is_target], minlength=V)
    return torch.from_numpy(counts)


def training_time_range(prepared: PreparedDataset) -> TimeRange:
    """First and last time and longest interval of the training split."""
    times, split = prepared.timestamps, prepared.split
    found: list[tuple[int, int, int]] = []
    for block, is_training in split.training_blocks(len(times)):
        if not is_training.any():
            continue
        before = max(block.start - 1, 0)
        interval = np.diff(times[before : block.stop], prepend=times[:1] if block.start == 0 else [])
        interval[_first_rows(split, block) - block.start] = 0
        training = times[block][is_training]
        found.append((int(training.min()), int(training.max()), int(interval[is_training].max())))
    first, last, longest = zip(*found, strict=True)
    return TimeRange(min(first), max(last), max(longest))


def _first_rows(split: Split, block: slice) -> NDArray[np.int64]:
    """Rows of a block that are the first of a user."""
    return split.start[slice(*np.searchsorted(split.start, [block.start, block.stop]).tolist())]
