"""Rows divided over processes; what the processes exchange is tested by `gloo_harness.py`, through test_distributed.py."""

import pytest
import torch

from athwe_core import row_shard
from athwe_core.distributed import ProcessGroup
from athwe_core.row_shard import RowShard

SIZES = [(1, 5), (2, 10), (3, 100), (3, 97), (3, 103), (4, 3)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shard, "_ROWS_AT_ONCE", 16)


def shards_of(size: int, num_rows: int) -> list[RowShard]:
    return [RowShard(num_rows, ProcessGroup(rank, size)) for rank in range(size)]


@pytest.mark.parametrize(("size", "num_rows"), SIZES)
def test_every_row_has_one_owner_and_a_place_there(size: int, num_rows: int) -> None:
    items = torch.arange(num_rows)
    shards = shards_of(size, num_rows)
    assert sum(len(shard) for shard in shards) == num_rows
    assert torch.stack([shard.is_own(items) for shard in shards]).sum(0).tolist() == [1] * num_rows
    for shard in shards:
        own = items[shard.rows]
        assert len(own) == len(shard)
        assert own.tolist() == items[shard.is_own(items)].tolist()
        assert shard.own_index(own).tolist() == list(range(len(own)))


@pytest.mark.parametrize(("size", "num_rows"), SIZES)
def test_pieces_are_the_table_in_order_and_no_piece_but_the_only_one_is_below_16_rows(size: int, num_rows: int) -> None:
    items = torch.arange(num_rows)
    for shard in shards_of(size, num_rows):
        own, covered = items[shard.rows], []
        for whole, place in shard.pieces():
            assert len(whole) >= 16 or num_rows < 16
            assert own[place].tolist() == list(whole)[shard.rows]
            covered += list(whole)
        assert covered == items.tolist()
    assert len({len(list(shard.pieces())) for shard in shards_of(size, num_rows)}) == 1


@pytest.mark.parametrize(("size", "num_rows"), SIZES)
@pytest.mark.parametrize("width", [1, 3, 16])
def test_the_rows_of_all_processes_are_drawn_as_those_of_one(size: int, num_rows: int, width: int) -> None:
    generator = torch.Generator().manual_seed(4)
    whole = torch.empty(num_rows, width).normal_(0, 0.02, generator=generator)
    after = torch.rand(1, generator=generator)
    for shard in shards_of(size, num_rows):
        generator.manual_seed(4)
        own = torch.empty(len(shard), width)
        shard.draw_normal(own, 0.02, generator)
        assert torch.equal(own, whole[shard.rows])
        assert torch.equal(torch.rand(1, generator=generator), after)


def test_a_single_process_looks_up_without_exchange() -> None:
    table = torch.randn(5, 2)
    items = torch.tensor([4, 0, 4])
    assert torch.equal(RowShard(5).look_up(items, lambda index: table[index]), table[items])
    assert torch.cat(list(RowShard(5).gathered(table))).equal(table)
