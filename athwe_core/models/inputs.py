"""A prepared data set to what a network needs of it: the catalogue and the time range of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.nn.item_embeddings import RESIDENT_BYTES


def make_catalogue(prepared: PreparedDataset, config: Config) -> Catalogue:
    """The item-side tensors that the configuration uses."""

    is_sampled = config.losses.catalogue.kind == "sampled"

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        stays_mapped = is_sampled and array.nbytes > RESIDENT_BYTES
        return torch.from_numpy(np.asarray(array) if stays_mapped else np.array(array))

    features = {"text": prepared.text_features, "image": prepared.image_features}
    clusters = {"text": prepared.text_clusters, "image": prepared.image_clusters}
    used = config.model.modalities[1:]
    use_cp, use_cluster = config.losses.cp.weight > 0, config.losses.cluster.weight > 0
    return Catalogue(
        num_item_rows=prepared.num_item_rows,
        features={m: tensor(f) for m in used if (f := features[m]) is not None},
        categories=tensor(prepared.categories) if use_cp and prepared.categories is not None else None,
        clusters={m: tensor(c) for m in used if use_cluster and (c := clusters[m]) is not None},
        target_counts=_target_counts(prepared) if is_sampled else None,
    )


def _target_counts(prepared: PreparedDataset) -> torch.Tensor:
    """How often each item is a training target."""
    is_target = prepared.split.is_training(len(prepared.item_ids))
    is_target[prepared.split.start[prepared.split.start < len(is_target)]] = False  # a user's first item is only input
    return torch.from_numpy(np.bincount(prepared.item_ids[is_target], minlength=prepared.num_item_rows))


def training_time_range(prepared: PreparedDataset) -> TimeRange:
    """First and last time and longest interval of the training split."""
    times = np.asarray(prepared.timestamps)
    is_training = prepared.split.is_training(len(times))
    interval = np.diff(times, prepend=times[:1])
    interval[prepared.offsets[:-1]] = 0
    training = times[is_training]
    return TimeRange(int(training.min()), int(training.max()), int(interval[is_training].max()))
