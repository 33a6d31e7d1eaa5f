"""Recommendations as tables equal a slow twin that scores and sorts everything, and what `evaluate` ranks."""

import numpy as np
import polars as pl
import pytest
import torch

import athwe_core as athwe
from athwe_core.data.histories import Histories, histories_of_users
from athwe_core.data.packing import pack_histories
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.serving.recommendations import SimilarItems, UserRecommendations
from athwe_core.serving.trained_model import TrainedModel


def twin(trained: TrainedModel, histories: Histories, user: int, *, exclude_seen: bool) -> list[str]:
    """All item ids, best first: every item scored alone and sorted."""
    span = slice(histories.offsets[user], histories.offsets[user + 1])
    items, times = histories.item_ids[span].tolist(), histories.timestamps[span].tolist()
    length = trained.model.max_length
    with torch.no_grad():
        vector = trained.model.user_vectors(pack_histories([(items[-length:], times[-length:])]))[0]
        scores = [float(vector @ row) for row in trained.model.item_table()]
    kept = [item for item in range(1, len(scores)) if not (exclude_seen and item in items)]
    return [trained.item_tokens[item] for item in sorted(kept, key=lambda item: (-scores[item], item))]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_users_have_the_items_of_a_slow_twin(run: athwe.Run, trained: TrainedModel, exclude_seen: bool) -> None:
    histories = histories_of_users(run.data)
    table = UserRecommendations(trained, histories, k=5, exclude_seen=exclude_seen)
    found = pl.concat([table.rows(0, 60), table.rows(60, table.size)])
    assert found.columns == ["user_id", "rank", "item_id", "score"]
    for user, mine in enumerate(found.partition_by("user_id", maintain_order=True)):
        assert mine["user_id"].unique().to_list() == [histories.user_ids[user]]
        assert mine["rank"].to_list() == [1, 2, 3, 4, 5]
        assert mine["item_id"].to_list() == twin(trained, histories, user, exclude_seen=exclude_seen)[:5]
        assert mine["score"].is_sorted(descending=True)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_held_out_item_has_the_place_that_evaluate_gives_it(
    run: athwe.Run, trained: TrainedModel, exclude_seen: bool
) -> None:
    """Of the history without it, as `evaluate` reads it; the items of these users' inputs do not repeat the target."""
    data = run.data
    ranks = rank_users(trained.model, data, split="test", exclude_seen=exclude_seen)
    users = data.split.users("test")
    stop = data.split.held_out("test")[users]
    source = np.concatenate([np.arange(data.offsets[user], end) for user, end in zip(users, stop, strict=True)])
    offsets = np.concatenate([[0], np.cumsum(stop - data.offsets[users])])
    ids = [data.user_tokens[user] for user in users]
    histories = Histories(ids, offsets, data.item_ids[source], data.timestamps[source])
    table = UserRecommendations(trained, histories, k=data.num_items, exclude_seen=exclude_seen)
    found = table.rows(0, table.size).partition_by("user_id", maintain_order=True)
    for row, mine in enumerate(found):
        target = int(data.item_ids[stop[row]])
        seen = set(histories.item_ids[offsets[row] : offsets[row + 1]].tolist())
        if exclude_seen and target in seen:
            continue
        place = mine["item_id"].to_list().index(data.item_tokens[target])
        scores = mine["score"].to_list()
        others = sum(score == scores[place] for score in scores) - 1
        above = sum(score > scores[place] for score in scores)
        assert ranks[row] == above + 1 + others / 2
    assert len(found) == len(users) > 100


def test_only_allowed_items_with_columns_of_the_item_table(run: athwe.Run, trained: TrainedModel) -> None:
    histories = histories_of_users(run.data).part(0, 4)
    allowed = np.array([9, 3, 12, 5])
    tokens = {trained.item_tokens[item] for item in allowed}
    table = UserRecommendations(trained, histories, k=3, exclude_seen=False, allowed=allowed, columns=("title",))
    found = table.rows(0, 4)
    assert found.columns == ["user_id", "rank", "item_id", "score", "title"]
    titles = dict(trained.items.select("item_id", "title").iter_rows())
    for user, mine in enumerate(found.partition_by("user_id", maintain_order=True)):
        expected = [item for item in twin(trained, histories, user, exclude_seen=False) if item in tokens][:3]
        assert mine["item_id"].to_list() == expected
        assert mine["title"].to_list() == [titles[item] for item in expected]


def test_similar_items_have_the_largest_cosines(trained: TrainedModel) -> None:
    table = SimilarItems(trained, np.array([7, 2]), k=4)
    found = table.rows(0, 2)
    assert found.columns == ["like", "rank", "item_id", "score"]
    assert found["like"].to_list() == [trained.item_tokens[7]] * 4 + [trained.item_tokens[2]] * 4
    with torch.no_grad():
        vectors = trained.model.item_table().double()
    cosines = (vectors @ vectors[7]) / vectors.norm(dim=1) / vectors[7].norm()
    order = sorted(set(range(1, len(vectors))) - {7}, key=lambda item: -float(cosines[item]))
    assert found["item_id"].to_list()[:4] == [trained.item_tokens[item] for item in order[:4]]


def test_the_identity_changes_with_whatever_changes_a_row(run: athwe.Run, trained: TrainedModel) -> None:
    histories = histories_of_users(run.data)
    made = [
        UserRecommendations(trained, histories, k=3),
        UserRecommendations(trained, histories, k=4),
        UserRecommendations(trained, histories, k=3, exclude_seen=False),
        UserRecommendations(trained, histories, k=3, allowed=np.array([1, 2])),
        UserRecommendations(trained, histories, k=3, allowed=np.array([1, 3])),
        UserRecommendations(trained, histories, k=3, columns=("title",)),
        UserRecommendations(trained, histories.part(0, 5), k=3),
    ]
    assert len({table.identity for table in made}) == len(made)
    assert made[0].identity == UserRecommendations(trained, histories, k=3).identity
