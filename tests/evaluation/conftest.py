"""Prepared data sets written down as one list of item ids per user."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from athwe_core.data.store.dataset import PreparedDataset


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Build a data set of users `u0`, `u1`, ... and items `i1`, `i2`, ...; times count up in seconds unless given."""

    def build(
        sequences: Sequence[Sequence[int]], *, num_items: int, timestamps: Sequence[Sequence[int]] | None = None
    ) -> PreparedDataset:
        pl.DataFrame({"user_id": [f"u{user}" for user in range(len(sequences))]}).write_parquet(
            tmp_path / "users.parquet"
        )
        pl.DataFrame({"item_id": ["", *(f"i{item}" for item in range(1, num_items + 1))]}).write_parquet(
            tmp_path / "items.parquet"
        )
        items = np.concatenate([np.asarray(sequence, np.int32) for sequence in sequences])
        times = np.arange(len(items)) if timestamps is None else np.concatenate(timestamps)
        return PreparedDataset(
            name="small",
            path=tmp_path,
            version="0" * 12,
            manifest={"statistics": {"items": num_items}},
            offsets=np.cumsum([0, *map(len, sequences)]).astype(np.int64),
            item_ids=items,
            timestamps=times.astype(np.int64),
        )

    return build


@pytest.fixture(params=[0, 1, 2])
def random_dataset(request: pytest.FixtureRequest, dataset: Callable[..., PreparedDataset]) -> PreparedDataset:
    """23 users over 7 items: repeats, ties and transitions never seen are all common."""
    rng = np.random.default_rng(request.param)
    sequences = [rng.integers(1, 8, size=rng.integers(3, 9)).tolist() for _ in range(23)]
    return dataset(sequences, num_items=7)
