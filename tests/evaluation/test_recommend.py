"""The best items equal those of a slow twin that sorts everything."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.histories import Histories
from athwe_core.errors import AthweError
from athwe_core.evaluation import recommend
from athwe_core.evaluation.recommend import recommend_items, top_items

NOTHING = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
VALUES = st.sampled_from([-np.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, 3e38, np.inf])


@given(st.lists(VALUES, min_size=2, max_size=12), st.data())
def test_items_come_by_score_and_then_by_number(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values) - 1))
    seen = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=6))
    scores = torch.tensor([values, values[::-1]], dtype=torch.float32)
    rows = torch.zeros(len(seen), dtype=torch.int64)
    items, best = top_items(scores, k=k, excluded=(rows, torch.tensor(seen, dtype=torch.int64)))
    for row, left_out in ((0, set(seen)), (1, set())):
        numbers = scores[row].tolist()
        candidates = [item for item in range(1, len(values)) if item not in left_out]
        expected = sorted(candidates, key=lambda item: (-numbers[item], item))[:k]
        assert items[row].tolist() == expected + [0] * (k - len(expected))
        assert best[row].tolist() == [numbers[item] for item in expected] + [0.0] * (k - len(expected))


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


def test_blocks_of_users_give_each_user_the_items_of_its_own_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers, so that scores are exact and tie; users of unlike lengths, which blocks sort."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(-2, 3, (9, 3), generator=generator).float()
    lengths = [3, 1, 5, 2, 1, 4, 2]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = torch.randint(1, 9, (int(offsets[-1]),), generator=generator).numpy().astype(np.int32)
    histories = Histories([str(user) for user in range(7)], offsets, ids, np.arange(len(ids)))
    monkeypatch.setattr(recommend, "BLOCK_SCORES", 2 * recommend.SCORES_HELD * len(table))
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
