"""The best items equal those of a slow twin that sorts everything."""

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.histories import Histories
from athwe_core.errors import AthweError, ConfigError
from athwe_core.evaluation import blocks, recommend, tiles
from athwe_core.evaluation.recommend import Recommender, best_in_tiles, recommend_items, top_items
from athwe_core.evaluation.tiles import TiledScores
from athwe_core.models.protocol import Model
from athwe_core.nn.repetition import Repetition

NOTHING = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
VALUES = st.sampled_from([-np.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, 3e38, np.inf])


@given(st.lists(VALUES, min_size=2, max_size=12), st.data())
def test_items_come_by_score_and_then_by_number(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values) - 1))
    seen = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=6))
    scores = torch.tensor([values, values[::-1]], dtype=torch.float32)
    rows = torch.zeros(len(seen), dtype=torch.int64)
    items, best = top_items(scores.clone(), k=k, excluded=(rows, torch.tensor(seen, dtype=torch.int64)))
    for row, left_out in ((0, set(seen)), (1, set())):
        numbers = scores[row].tolist()
        candidates = [item for item in range(1, len(values)) if item not in left_out]
        expected = sorted(candidates, key=lambda item: (-numbers[item], item))[:k]
        assert items[row].tolist() == expected + [0] * (k - len(expected))
        assert best[row].tolist() == [numbers[item] for item in expected] + [0.0] * (k - len(expected))


@pytest.mark.parametrize("spread", [2, 1000])
def test_many_rows_with_and_without_ties_equal_sorting_everything(spread: int) -> None:
    """Few distinct scores tie in nearly every row; with many, most rows take the quick way."""
    generator = torch.Generator().manual_seed(spread)
    scores = torch.randint(-spread, spread, (50, 40), generator=generator).float()
    seen = torch.randint(0, 50, (60,), generator=generator), torch.randint(0, 40, (60,), generator=generator)
    items, _ = top_items(scores.clone(), k=7, excluded=seen)
    left_out = set(zip(*(part.tolist() for part in seen), strict=True))
    for row, numbers in enumerate(scores.tolist()):
        kept = [item for item in range(1, 40) if (row, item) not in left_out]
        assert items[row].tolist() == sorted(kept, key=lambda item: (-numbers[item], item))[:7]


@given(st.integers(1, 4), st.integers(2, 12), st.integers(1, 5), st.data())
def test_the_best_of_tiles_are_those_of_all_scores_together(
    users: int, items: int, size: int, data: st.DataObject
) -> None:
    """The table's columns are the users' scores, so that products with unit vectors are exact, infinite scores included."""
    cells = data.draw(st.lists(VALUES, min_size=users * items, max_size=users * items))
    scores = torch.tensor(cells, dtype=torch.float32).view(items, users)
    table = torch.cat([torch.full((1, users), torch.inf), scores])
    pairs = data.draw(st.lists(st.tuples(st.integers(0, users - 1), st.integers(0, items)), max_size=12))
    seen = tuple(torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T)
    k = data.draw(st.integers(1, items))
    expected = top_items(table.T.clone(), k=k, excluded=seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_SCORES", size * users)
        patch.setattr(tiles, "TILE_MULTIPLE", 1)
        found = best_in_tiles(TiledScores(lambda part, _: part.T.clone(), table, None, users=users), k=k, excluded=seen)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_tiles_without_a_better_score_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_SCORES", 2 * 64)
    table = torch.arange(640, 0, -1.0)[:, None].expand(640, 2)  # only the first tile has any of the best
    sizes: list[int] = []
    sort_of = recommend.top_items
    monkeypatch.setattr(
        recommend, "top_items", lambda scores, **how: (sizes.append(len(scores)), sort_of(scores, **how))[1]
    )
    scores = TiledScores(lambda part, _: part.T.clone(), table, None, users=2)
    items, _ = best_in_tiles(scores, k=3, excluded=NOTHING)
    assert items.tolist() == [[1, 2, 3]] * 2
    assert sizes == [2]


def test_a_score_that_is_no_number_in_a_late_tile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_SCORES", 64)
    table = torch.arange(640, 0, -1.0)[:, None].clone()
    table[600] = torch.nan
    with pytest.raises(AthweError, match=r"^scores must not be NaN"):
        best_in_tiles(TiledScores(lambda part, _: part.T.clone(), table, None, users=1), k=1, excluded=NOTHING)


def test_a_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(AthweError, match=r"^scores must not be NaN"):
        top_items(torch.tensor([[0.0, float("nan"), 1.0]]), k=1, excluded=NOTHING)


class Dots(torch.nn.Module):
    """The latest item's row of a table is the user vector; the items in a block are counted."""

    max_length, device = 2, torch.device("cpu")

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table, self.sizes, self.longest = table, [], 0

    def item_table(self) -> torch.Tensor:
        return self.table

    def item_bias(self) -> torch.Tensor:
        return torch.arange(len(self.table)) / 8

    def user_vectors(self, batch: object, table: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch.offsets) - 1)
        self.longest = max(self.longest, batch.longest_row)
        return table[batch.item_ids[batch.target_index]]

    def seen_items(self, batch: object) -> None:
        """It has none."""

    def scores(self, user_vectors: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return Model.scores(cast(Model, self), user_vectors, table, bias)


def test_blocks_of_users_give_each_user_the_items_of_its_own_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers, so that scores are exact and tie; users of unlike lengths, which blocks sort."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(-2, 3, (9, 3), generator=generator).float()
    lengths = [3, 1, 5, 2, 1, 4, 2]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = torch.randint(1, 9, (int(offsets[-1]),), generator=generator).numpy().astype(np.int32)
    histories = Histories([str(user) for user in range(7)], offsets, ids, np.arange(len(ids)))
    monkeypatch.setattr(blocks, "BLOCK_SCORES", 2 * len(table))
    model = Dots(table)
    items, scores = recommend_items(model, histories, k=20)
    assert items.shape == (7, 8)
    assert model.sizes == [2, 2, 2, 1]
    assert model.longest == 2
    for user in range(7):
        seen = ids[offsets[user] : offsets[user + 1]].tolist()
        own = (table @ table[seen[-1]] + model.item_bias()).tolist()
        expected = sorted((item for item in range(1, 9) if item not in seen), key=lambda item: (-own[item], item))
        assert items[user].tolist() == expected + [0] * (8 - len(expected))
        assert scores[user, : len(expected)].tolist() == [own[item] for item in expected]


def small_histories() -> Histories:
    """Three users over items 1..8."""
    ids = np.array([3, 1, 5, 2, 2, 8, 4], np.int32)
    return Histories(["a", "b", "c"], np.array([0, 3, 4, 7]), ids, np.arange(7))


def whole_table(seed: int = 0) -> torch.Tensor:
    return torch.randint(-2, 3, (9, 3), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_only_allowed_items_are_found_with_the_scores_that_they_have_anyway(exclude_seen: bool) -> None:
    histories, table = small_histories(), whole_table()
    everything = recommend_items(Dots(table), histories, k=8, exclude_seen=exclude_seen)
    allowed = [7, 2, 5, 2]
    items, scores = Recommender(Dots(table), allowed=np.array(allowed)).top(histories, k=5, exclude_seen=exclude_seen)
    assert items.shape == (3, 3)
    for row in range(3):
        kept = [
            (item, score) for item, score in zip(*(part[row] for part in everything), strict=True) if item in allowed
        ]
        assert [pair for pair in zip(items[row], scores[row], strict=True) if pair[0]] == kept


def test_blocks_side_by_side_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    histories, table = small_histories(), whole_table()
    expected = recommend_items(Dots(table), histories, k=8)
    monkeypatch.setattr(blocks, "BLOCK_USERS", 1)
    torch.set_num_threads(2)
    try:
        found = recommend_items(Dots(table), histories, k=8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_seen_items_are_left_out_for_each_user_on_its_own() -> None:
    histories, table = small_histories(), whole_table()
    kept, left_out = (recommend_items(Dots(table), histories, k=8, exclude_seen=each)[0] for each in (False, True))
    mixed, _ = Recommender(Dots(table)).top(histories, k=8, exclude_seen=np.array([True, False, True]))
    assert mixed.tolist() == [left_out[0].tolist(), kept[1].tolist(), left_out[2].tolist()]


def test_similar_items_have_the_largest_cosines_and_are_never_the_item_itself() -> None:
    table = whole_table(seed=3)
    table[6] = 0  # no direction: its cosine with everything is 0
    given = np.array([4, 1, 6])
    items, cosines = Recommender(Dots(table)).similar(given, k=3)
    for row, item in enumerate(given.tolist()):
        twin = {}
        for other in set(range(1, 9)) - {item}:
            lengths = table[item].norm() * table[other].norm()
            twin[other] = float(table[item] @ table[other] / lengths) if lengths else 0.0
        assert cosines[row].tolist() == pytest.approx(sorted(twin.values(), reverse=True)[:3], abs=1e-6)
        assert [twin[int(found)] for found in items[row]] == pytest.approx(cosines[row].tolist(), abs=1e-6)
        assert item not in items[row]
    few, _ = Recommender(Dots(table), allowed=np.array([2, 4])).similar(np.array([4, 5]), k=3)
    assert few[0].tolist() == [2, 0]
    assert sorted(few[1].tolist()) == [2, 4]


def test_user_vectors_come_in_the_order_of_the_users() -> None:
    table = whole_table()
    recommender = Recommender(Dots(table))
    assert recommender.user_vectors(small_histories()).tolist() == table[[5, 2, 4]].tolist()
    assert recommender.item_vectors.tolist() == table.tolist()
    bias = recommender.item_bias
    assert bias is not None
    assert bias.tolist() == [item / 8 for item in range(9)]


class Squares(Dots):
    """Scores that are no products of vectors."""

    def scores(self, user_vectors: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return super().scores(user_vectors, table, bias).square()


def test_a_model_whose_scores_are_no_products_has_no_user_vectors_but_recommends() -> None:
    table = whole_table()
    with pytest.raises(
        ConfigError, match=r"^model must score by products of user and item vectors .*, got 'Squares'\."
    ):
        Recommender(Squares(table)).user_vectors(small_histories())
    items, scores = Recommender(Squares(table)).top(small_histories(), k=8, exclude_seen=False)
    own = (table @ table[5] + torch.arange(9) / 8).square().tolist()
    assert items[0].tolist() == sorted(range(1, 9), key=lambda item: (-own[item], item))
    assert scores[0].tolist() == sorted(own[1:], reverse=True)


def test_terms_of_seen_items_are_in_the_scores_of_kept_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term of -5 for items of the history: as without the term, with 5 less where an item was seen."""
    model = Dots(torch.randint(-3, 4, (9, 4), generator=torch.Generator().manual_seed(0)).float())
    histories = Histories(["a", "b"], np.array([0, 2, 5]), np.array([1, 2, 3, 8, 3]), np.arange(5))
    plain = recommend_items(cast(Model, model), histories, k=8, exclude_seen=False)
    repeat = Repetition()
    with torch.no_grad():
        repeat.by_count.fill_(-0.5)
    monkeypatch.setattr(Dots, "seen_items", lambda self, batch: repeat(batch))
    allowed = np.array([2, 3, 5, 8])
    for chosen in (None, allowed):
        items, scores = Recommender(cast(Model, model), allowed=chosen).top(histories, k=8, exclude_seen=False)
        for user, seen in enumerate([{1, 2}, {3, 8}]):
            before = dict(zip(plain[0][user].tolist(), plain[1][user].tolist(), strict=True))
            expected = {item: before[item] - 5 * (item in seen) for item in before if chosen is None or item in allowed}
            assert dict(zip(items[user].tolist(), scores[user].tolist(), strict=True)) == expected
