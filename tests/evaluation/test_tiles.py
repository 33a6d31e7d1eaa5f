"""Tiles together are the whole table of scores, and equal items have equal scores in all of them."""

import pytest
import torch

from athwe_core.distributed import ProcessGroup
from athwe_core.evaluation import tiles
from athwe_core.evaluation.tiles import Cells, TiledScores, tile_items
from athwe_core.row_shard import RowShard


def dots(vectors: torch.Tensor) -> tiles.ScoreItems:
    return lambda table, bias: vectors @ table.T if bias is None else vectors @ table.T + bias


def whole(scores: TiledScores) -> torch.Tensor:
    return torch.cat([scores.tile(first) for first in scores.starts], dim=1)


@pytest.mark.parametrize("num_items", [1, 63, 64, 65, 200])
def test_tiles_are_the_scores_of_all_items_once(num_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_SCORES", 3 * 64)
    generator = torch.Generator().manual_seed(num_items)
    vectors, table = torch.randn(3, 8, generator=generator), torch.randn(num_items + 1, 8, generator=generator)
    bias = torch.randn(num_items + 1, generator=generator)
    cells = Cells(torch.tensor([2, 0]), torch.tensor([num_items, 1]), torch.tensor([10.0, -10.0]))
    expected = (vectors @ table.T + bias)[:, 1:]
    expected[2, -1] += 10
    expected[0, 0] -= 10
    scores = TiledScores(dots(vectors), table, bias, users=3, terms=cells)
    assert len(scores.starts) == -(-num_items // 64)
    torch.testing.assert_close(whole(scores), expected)
    items = torch.tensor([1, 1, num_items])
    torch.testing.assert_close(scores.of_each(items), expected[torch.arange(3), items - 1])


@pytest.mark.parametrize("width", [3, 64, 192])
@pytest.mark.parametrize("users", [1, 2, 5, 130])
def test_equal_items_have_equal_scores_wherever_they_are(
    users: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: a rank shares ties. Products of other shapes may round otherwise."""
    monkeypatch.setattr(tiles, "TILE_SCORES", users * 256)
    generator = torch.Generator().manual_seed(0)
    vectors, kinds = torch.randn(users, width, generator=generator), torch.randn(5, width, generator=generator)
    kind = torch.randint(5, (1001,), generator=generator)
    scores = TiledScores(dots(vectors), kinds[kind], None, users=users)
    found = whole(scores)
    for row in range(5):
        same = found[:, kind[1:] == row]
        assert (same == same[:, :1]).all()
    targets = torch.randint(1, 1001, (users,), generator=generator)
    assert scores.of_each(targets).equal(found[torch.arange(users), targets - 1])


@pytest.mark.parametrize(("processes", "num_rows"), [(2, 200), (3, 200), (3, 201), (3, 5), (3, 3)])
def test_the_tiles_of_several_processes_are_the_scores_of_all_items_once(
    processes: int, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly as each other where items are equal, though the processes hold different numbers of them."""
    monkeypatch.setattr(tiles, "TILE_SCORES", 3 * 64)
    generator = torch.Generator().manual_seed(num_rows)
    vectors, kinds = torch.randn(3, 24, generator=generator), torch.randn(4, 24, generator=generator)
    kind = torch.randint(4, (num_rows,), generator=generator)
    table = kinds[kind]
    table[0] = torch.nan
    terms = Cells(torch.tensor([2, 0]), torch.tensor([num_rows - 1, 1]), torch.tensor([10.0, -10.0]))
    found = torch.zeros(3, num_rows)
    for rank in range(processes):
        shard = RowShard(num_rows, ProcessGroup(rank, processes))
        scores = TiledScores(dots(vectors), table[shard.rows], None, users=3, terms=terms, shard=shard)
        own = [scores.tile(first) for first in scores.starts]
        assert max((tile.shape[1] for tile in own), default=0) <= 64
        items = [row for row in range(num_rows)[shard.rows] if row > 0]
        found[:, items] = torch.cat([torch.zeros(3, 0), *own], dim=1)
    expected = vectors @ table.T
    expected[terms.rows, terms.items] += terms.values
    torch.testing.assert_close(found[:, 1:], expected[:, 1:])
    is_plain = torch.ones_like(found, dtype=torch.bool)
    is_plain[terms.rows, terms.items] = is_plain[:, 0] = False
    for row in range(3):
        for one in range(4):
            same = found[row, is_plain[row] & (kind == one)]
            assert (same == same[:1]).all()


def test_cells_are_divided_among_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_SCORES", 64)
    scores = TiledScores(dots(torch.zeros(1, 1)), torch.zeros(131, 1), None, users=1)
    cells = Cells(torch.tensor([4, 5, 6, 7]), torch.tensor([130, 64, 65, 1]), torch.tensor([1, 2, 3, 4]))
    found = [
        sorted(zip(*(part.tolist() for part in cells_of_tile), strict=True)) for cells_of_tile in scores.by_tile(cells)
    ]
    assert list(scores.starts) == [1, 65, 129]
    assert found == [[(5, 63, 2), (7, 0, 4)], [(6, 0, 3)], [(4, 1, 1)]]
    assert [len(rows) for rows, _, _ in scores.by_tile(None)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("users", "device", "expected"), [(512, "cpu", 1024), (1, "cpu", 2**19), (500, "cpu", 1024), (512, "cuda", 2**17)]
)
def test_a_tile_has_a_bounded_number_of_scores(users: int, device: str, expected: int) -> None:
    assert tile_items(users, torch.device(device)) == expected
