from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from athwe_core.errors import AthweError
from athwe_core.evaluation import ranking
from athwe_core.evaluation.ranking import target_ranks

NAN, INF = float("nan"), float("inf")
Pairs = list[tuple[int, int]]


def as_pairs(pairs: Pairs) -> tuple[Tensor, Tensor]:
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return index[:, 0], index[:, 1]


def naive_ranks(scores: Tensor, targets: Tensor, excluded: Pairs) -> list[Fraction]:
    """One comparison at a time."""
    ranks = []
    for row, (row_scores, target) in enumerate(zip(scores.double().tolist(), targets.tolist(), strict=True)):
        rank = Fraction(1)
        for item in range(1, len(row_scores)):
            if item == target or (row, item) in excluded:
                continue
            rank += row_scores[item] > row_scores[target]
            rank += Fraction(row_scores[item] == row_scores[target]) / 2
        ranks.append(rank)
    return ranks


@pytest.mark.parametrize(
    ("scores", "rank"),
    [
        ([9.0, 4.0, 3.0, 2.0, 1.0], 1),  # first, whatever the padding scores
        ([9.0, 1.0, 2.0, 3.0, 4.0], 4),
        ([9.0, 5.0, 7.0, 5.0, 1.0], 2 + 1 / 2),  # one above, one equal
        ([9.0, 0.0, 0.0, 0.0, 0.0], 1 + 3 / 2),  # a constant scorer ranks in the middle, not first
        ([9.0, -INF, -INF, 0.0, 0.0], 3 + 1 / 2),
        ([9.0, INF, INF, INF, 0.0], 1 + 2 / 2),
    ],
)
def test_rank_of_item_one_by_hand(scores: list[float], rank: float) -> None:
    assert target_ranks(torch.tensor([scores]), torch.tensor([1])).tolist() == [rank]


@pytest.mark.parametrize("padding", [-INF, 0.0, INF, NAN])
def test_the_padding_column_is_ignored(padding: float) -> None:
    scores = torch.tensor([[padding, 2.0, 0.0, 1.0]])
    assert target_ranks(scores, torch.tensor([3])).tolist() == [2]


def test_excluded_items_leave_the_ranking_once_however_often_they_are_named() -> None:
    scores = torch.tensor([[0.0, 5.0, 4.0, 4.0, 3.0], [0.0, 5.0, 4.0, 4.0, 3.0]])
    targets = torch.tensor([3, 4])
    assert target_ranks(scores, targets).tolist() == [2 + 1 / 2, 4]
    excluded = as_pairs([(0, 1), (1, 2), (0, 1), (0, 2), (0, 4)])
    assert target_ranks(scores, targets, excluded=excluded).tolist() == [1, 3]


def test_the_target_and_the_padding_are_never_excluded() -> None:
    scores = torch.tensor([[9.0, 5.0, 4.0, 4.0]])
    assert target_ranks(scores, torch.tensor([2]), excluded=as_pairs([(0, 2), (0, 0)])).tolist() == [2 + 1 / 2]


@pytest.mark.parametrize("infinite", [INF, -INF])
def test_infinite_scores_tie_whether_they_are_excluded_or_not(infinite: float) -> None:
    scores = torch.tensor([[0.0, infinite, infinite, infinite, 0.0]])
    above = float(infinite < 0)
    assert target_ranks(scores, torch.tensor([1])).tolist() == [1 + above + 2 / 2]
    assert target_ranks(scores, torch.tensor([1]), excluded=as_pairs([(0, 2)])).tolist() == [1 + above + 1 / 2]
    assert target_ranks(scores, torch.tensor([1]), excluded=as_pairs([(0, 2), (0, 4)])).tolist() == [1 + 1 / 2]


@pytest.mark.parametrize("rows_at_once", [1, 3, 7, 20])
def test_ranks_and_nan_rows_do_not_depend_on_how_many_rows_are_compared_at_once(
    rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(20) % 8 + 1
    monkeypatch.setattr(ranking, "BLOCK_DIFFERENCES", 8 * rows_at_once)
    assert target_ranks(scores, targets).tolist() == naive_ranks(scores, targets, [])
    scores[13, 4] = NAN
    with pytest.raises(AthweError, match="scores of row 13 must not be NaN"):
        target_ranks(scores, targets)


def test_neighbouring_small_numbers_differ() -> None:
    tiny = torch.finfo(torch.float32).tiny
    scores = torch.tensor([[0.0, tiny, tiny * (1 + 2**-20), tiny]])
    assert target_ranks(scores, torch.tensor([1])).tolist() == [2 + 1 / 2]


def test_no_excluded_pairs_change_nothing() -> None:
    assert target_ranks(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([1]), excluded=as_pairs([])).tolist() == [2]


@pytest.mark.parametrize("column", [1, 2])  # the target's own score, another item's
def test_a_nan_score_is_an_error_that_names_the_row(column: int) -> None:
    scores = torch.zeros(5, 3)
    scores[[1, 3], column] = NAN
    with pytest.raises(AthweError, match=r"scores of row 1, 3 must not be NaN\. The network has diverged"):
        target_ranks(scores, torch.ones(5, dtype=torch.int64))


def test_many_nan_rows_are_counted_not_listed() -> None:
    with pytest.raises(AthweError, match=r"row 0, 1, 2, 3, 4, 5, 6, 7 and 12 more must not be NaN"):
        target_ranks(torch.full((20, 3), NAN), torch.ones(20, dtype=torch.int64))


def test_half_precision_and_padding_targets_are_programming_errors() -> None:
    with pytest.raises(AssertionError, match=r"float32 or float64, got torch.bfloat16"):
        target_ranks(torch.zeros(1, 3, dtype=torch.bfloat16), torch.tensor([1]))
    with pytest.raises(AssertionError, match="targets must be items"):
        target_ranks(torch.zeros(1, 3), torch.tensor([0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(deadline=None)
@given(data=st.data())
def test_ranks_equal_the_naive_count(dtype: torch.dtype, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 7))
    values = st.sampled_from([-INF, -1.0, 0.0, 1 / 3, 1.0])
    cells = data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    scores = torch.tensor(cells, dtype=dtype).reshape(rows, columns)
    targets = torch.tensor(data.draw(st.lists(st.integers(1, columns - 1), min_size=rows, max_size=rows)))
    excluded = data.draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)), max_size=12))
    before = scores.clone()
    assert target_ranks(scores, targets).tolist() == naive_ranks(scores, targets, [])
    assert target_ranks(scores, targets, excluded=as_pairs(excluded)).tolist() == naive_ranks(scores, targets, excluded)
    assert torch.equal(scores, before)
