"""Vectors of items and users as files: the product of a user's and an item's vector is the score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from athwe_core.data.histories import Histories
from athwe_core.evaluation.recommend import Recommender
from athwe_core.serving.trained_model import TrainedModel

USERS_AT_ONCE = 16_384


def item_vectors(recommender: Recommender) -> np.ndarray:
    """(V, K) float32 vectors by item number, row 0 the padding. A bias of the items is one more column."""
    bias = recommender.item_bias
    vectors = recommender.item_vectors
    return vectors if bias is None else np.concatenate([vectors, bias[:, None]], axis=1)


def user_vectors(recommender: Recommender, histories: Histories) -> np.ndarray:
    """(n, K) float32 vectors of histories. Where the items have a bias, one more column is 1."""
    vectors = recommender.user_vectors(histories)
    has_bias = recommender.item_bias is not None
    return np.concatenate([vectors, np.ones_like(vectors[:, :1])], axis=1) if has_bias else vectors


def write_vectors(trained: TrainedModel, histories: Histories, folder: Path) -> None:
    """Write `items.npy`, `items.parquet`, `users.npy` and `users.parquet`.

    Row k of an array belongs to row k of the table beside it, which has the raw id and the same vector. Items are in the
    order of their numbers, without the padding; users in the order of `histories`. Memory is bounded by a block of users.

    Args:
        trained: the model and its items.
        histories: of the users.
        folder: must exist.
    """
    recommender = Recommender(trained.model)
    items = item_vectors(recommender)[1:]
    np.save(folder / "items.npy", items, allow_pickle=False)
    _table("item_id", trained.items["item_id"][1:], items).write_parquet(folder / "items.parquet")
    num_users, width = len(histories.user_ids), items.shape[1]
    users = np.lib.format.open_memmap(folder / "users.npy", mode="w+", dtype=np.float32, shape=(num_users, width))
    parts = []
    for first in range(0, num_users, USERS_AT_ONCE):
        part = histories.part(first, min(first + USERS_AT_ONCE, num_users))
        vectors = user_vectors(recommender, part)
        users[first : first + len(vectors)] = vectors
        parts.append(folder / f"part-{first:012}.parquet")
        _table("user_id", pl.Series(part.user_ids, dtype=pl.String), vectors).write_parquet(parts[-1])
    users.flush()
    pl.scan_parquet(parts, glob=False).sink_parquet(folder / "users.parquet")
    for path in parts:
        path.unlink()


def _table(column: str, ids: pl.Series, vectors: np.ndarray) -> pl.DataFrame:
    kind = pl.Array(pl.Float32, vectors.shape[1])
    return pl.DataFrame({column: ids.alias(column), "vector": pl.Series(vectors, dtype=kind)})
