"""Exported vectors: their products are the scores."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import athwe_core as athwe
from athwe_core.data.histories import Histories, histories_of_users
from athwe_core.evaluation.recommend import Recommender
from athwe_core.serving import vectors
from athwe_core.serving.recommendations import UserRecommendations
from athwe_core.serving.trained_model import TrainedModel
from athwe_core.serving.vectors import item_vectors, user_vectors, write_vectors


def test_products_of_the_files_are_the_scores_of_recommend(
    run: athwe.Run, trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "USERS_AT_ONCE", 40)
    histories = histories_of_users(run.data)
    write_vectors(trained, histories, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "items.npy",
        "items.parquet",
        "users.npy",
        "users.parquet",
    ]
    items, users = np.load(tmp_path / "items.npy"), np.load(tmp_path / "users.npy")
    item_table, user_table = pl.read_parquet(tmp_path / "items.parquet"), pl.read_parquet(tmp_path / "users.parquet")
    assert item_table["item_id"].to_list() == trained.item_tokens[1:]
    assert user_table["user_id"].to_list() == histories.user_ids
    assert np.array_equal(item_table["vector"].to_numpy(), items)
    assert np.array_equal(user_table["vector"].to_numpy(), users)
    scores = users @ items.T
    found = UserRecommendations(trained, histories, k=3, exclude_seen=False).rows(0, len(users))
    number = {token: row for row, token in enumerate(trained.item_tokens[1:])}
    for user, mine in enumerate(found.partition_by("user_id", maintain_order=True)):
        own = [scores[user, number[item]] for item in mine["item_id"]]
        assert mine["score"].to_list() == pytest.approx(own, abs=1e-5)
        assert max(scores[user]) == pytest.approx(own[0], abs=1e-5)


class Biased(torch.nn.Module):
    """The latest item's row is the user vector; item v has the bias v."""

    max_length, device = 2, torch.device("cpu")

    def item_table(self) -> torch.Tensor:
        return torch.arange(12.0).view(4, 3)

    def item_bias(self) -> torch.Tensor:
        return torch.arange(4.0)

    def user_vectors(self, batch: object, table: torch.Tensor) -> torch.Tensor:
        return table[batch.item_ids[batch.target_index]]

    def seen_items(self, batch: object) -> None:
        """It has none."""

    def scores(self, user_vectors: torch.Tensor, table: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return user_vectors @ table.T + bias


def test_a_bias_is_one_more_column_of_the_items() -> None:
    recommender = Recommender(Biased())
    histories = Histories(["u"], np.array([0, 2]), np.array([1, 2], np.int32), np.array([5, 6]))
    items, users = item_vectors(recommender), user_vectors(recommender, histories)
    assert users.tolist() == [[6, 7, 8, 1]]
    dots = [6 * row[0] + 7 * row[1] + 8 * row[2] for row in Biased().item_table().tolist()]
    assert (users @ items.T).tolist() == [[dot + item for item, dot in enumerate(dots)]]
