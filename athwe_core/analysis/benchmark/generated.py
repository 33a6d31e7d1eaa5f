"""Generated interactions and item features, for benchmarks of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from athwe_core.batch import Attribute, Catalogue, TimeRange
from athwe_core.config import Config
from athwe_core.data.split import Split, leave_one_out
from athwe_core.models.inputs import training_histories
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import find_model
from athwe_core.training.build import TrainingSetup, build

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
