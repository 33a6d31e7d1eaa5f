"""The five operators as the published code records them, and by hand where that differs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from athwe_core.models.golden import Golden
from athwe_core.nn.interval_views import (
    by_gap,
    counts_of,
    crop,
    insert,
    mask,
    reorder,
    share_of_least_variance,
    substitute,
    window_start,
)

GOLDEN = Golden.read(Path(__file__).parents[1] / "golden" / "ticoserec.npz")
N = GOLDEN["in.lengths"]
L = 12
_PLACE = torch.arange(L)
# The recorded rows begin with the items that training reads; their times go on to the target.
ITEMS = torch.where(N[:, None] > _PLACE, GOLDEN["in.full_items"][:, :L], 0)
GAPS = torch.where(N[:, None] > _PLACE, GOLDEN["in.full_times"].diff(dim=1)[:, :L], 0)
MODES = pytest.mark.parametrize("mode", ["minimum", "maximum"])


def rate(name: str) -> float:
    return round(float(GOLDEN.setting(f"{name}_rate")), 6)


def recorded(name: str) -> list[list[int]]:
    return [[item for item in row if item >= 0] for row in GOLDEN[f"out.op_{name}"].tolist()]


def rows_of(items: Tensor, lengths: Tensor = N) -> list[list[int]]:
    return [row[:n] for row, n in zip(items.tolist(), lengths.tolist(), strict=True)]


@MODES
@pytest.mark.parametrize("form", ["", "_full_window"])
@pytest.mark.parametrize(("name", "least"), [("crop", 3), ("reorder", 2)])
def test_windows_are_those_of_the_published_code(name: str, least: int, form: str, mode: str) -> None:
    count = counts_of(N, rate(name))
    found = window_start(GAPS, N, count.clamp(min=1), mode, num_gaps=count - (1 if form else 2))
    expected = GOLDEN[f"out.window_start_{name}_{mode}{form}"]
    has_window = count >= least
    assert torch.equal(torch.where(has_window, found, -1), expected)


@MODES
def test_crop(mode: str) -> None:
    count = counts_of(N, rate("crop"))
    start = window_start(GAPS, N, count.clamp(min=1), mode, num_gaps=count - 2)
    is_short = count <= 2
    start = torch.where(is_short, GOLDEN[f"in.op_crop_{mode}_random_start"], start)
    found, lengths = crop(ITEMS, start, torch.where(is_short, 1, count))
    assert rows_of(found, lengths) == recorded(f"crop_{mode}")


@MODES
def test_reorder(mode: str) -> None:
    count = counts_of(N, rate("reorder"))
    start = window_start(GAPS, N, count.clamp(min=1), mode, num_gaps=count - 2)
    order = GOLDEN[f"in.op_reorder_{mode}_perm"].clamp(min=0)
    found = reorder(ITEMS, start, torch.where(count < 2, 0, count), order)
    assert rows_of(found) == recorded(f"reorder_{mode}")


@MODES
def test_mask_by_gap(mode: str) -> None:
    count = torch.where(N > 1, counts_of(N, rate("mask")), 0)
    assert rows_of(mask(ITEMS, by_gap(GAPS, N, count, mode))) == recorded(f"mask_{mode}")


def test_mask_at_drawn_places() -> None:
    places = GOLDEN["in.op_mask_random_pos"]
    chosen = ((places[:, :, None] == _PLACE) & (places >= 0)[:, :, None]).any(1)
    assert rows_of(mask(ITEMS, chosen)) == recorded("mask_random")


def _known_neighbours(found: list[list[int]], expected: list[list[int]], neighbours: Tensor) -> None:
    """Rows are equal where no item without a neighbour was replaced, which draws one in the published code."""
    compared = 0
    for row, result, items in zip(found, expected, rows_of(ITEMS), strict=True):
        if all(neighbours[item] >= 0 for item in items):
            assert row == result
            compared += 1
    assert compared >= 4


@MODES
def test_substitute(mode: str) -> None:
    neighbours = GOLDEN["out.offline_top1"]
    count = torch.where(N > 1, counts_of(N, rate("substitute")).clamp(min=1), 0)
    found = substitute(ITEMS, by_gap(GAPS, N, count, mode), neighbours)
    _known_neighbours(rows_of(found), recorded(f"substitute_{mode}"), neighbours)


@MODES
def test_insert(mode: str) -> None:
    neighbours = GOLDEN["out.offline_top1"]
    chosen = by_gap(GAPS, N, counts_of(N, rate("insert")).clamp(min=1), mode)
    found, lengths = insert(ITEMS, N, chosen, neighbours, max_length=2 * L)
    _known_neighbours(rows_of(found, lengths), recorded(f"insert_{mode}"), neighbours)
    cut, lengths = insert(ITEMS, N, chosen, neighbours, max_length=L)
    assert rows_of(cut, lengths) == [row[-L:] for row in rows_of(found, (N + chosen.sum(1)))]


def test_gaps_that_are_not_known_are_not_chosen() -> None:
    gaps, known, count = torch.tensor([[5, 3, 5, 0]]), torch.tensor([3]), torch.tensor([2])
    assert by_gap(gaps, known, count, "minimum").tolist() == [[True, True, False, False]]
    assert by_gap(gaps, known, count, "maximum").tolist() == [[True, False, True, False]]
    assert by_gap(gaps, known, count + 5, "maximum").tolist() == [[True, True, True, False]]


def test_counts_are_not_lost_to_rounding() -> None:
    assert counts_of(torch.tensor([1, 10, 30]), 0.7).tolist() == [0, 7, 21]


def test_rows_with_even_gaps_are_found() -> None:
    gaps = torch.tensor([[1, 9, 0], [4, 4, 0], [1, 5, 9], [7, 0, 0], [0, 0, 0]])
    known, row_mask = torch.tensor([2, 2, 3, 1, 0]), torch.tensor([True] * 4 + [False])
    assert share_of_least_variance(gaps, known, row_mask, 0.5).tolist() == [False, True, False, True, False]
    assert not share_of_least_variance(gaps, known, row_mask, 0.2).any()
