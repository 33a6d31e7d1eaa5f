"""Whole files of divided tables. tests/gloo_harness.py writes and reads checkpoints in three processes."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from athwe_core import row_shard
from athwe_core.distributed import ProcessGroup
from athwe_core.errors import CheckpointError
from athwe_core.nn.item_embeddings import ItemEmbeddings
from athwe_core.row_shard import RowShard
from athwe_core.runs.divided_tables import group_of, is_finite, read_own, shards_in_files, write_whole

NUM_ROWS = 70


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shard, "_ROWS_AT_ONCE", 16)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {"b/table": torch.randn(NUM_ROWS, 3), "a": torch.arange(5), "c": torch.tensor(2.5), "d": torch.rand(2, 3).T}


def test_a_file_that_is_written_in_pieces_is_what_the_library_reads(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    write_whole(tmp_path / "file", tensors, {"b/table": RowShard(NUM_ROWS), "another": RowShard(NUM_ROWS)})
    found = load_file(tmp_path / "file")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_process_reads_its_rows_of_a_file_of_the_library(
    tensors: dict[str, torch.Tensor], size: int, tmp_path: Path
) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "file")
    for rank in range(size):
        rows = RowShard(NUM_ROWS, ProcessGroup(rank, size))
        place = torch.empty(len(rows), 3)
        found = read_own(tmp_path / "file", {"b/table": rows, "another": rows}, {"b/table": place} if rank else {})
        assert (found["b/table"] is place) == (rank > 0)
        assert torch.equal(found.pop("b/table"), tensors["b/table"][rank::size])
        assert all(torch.equal(value, tensors[name]) for name, value in found.items())
        assert found.keys() == tensors.keys() - {"b/table"}


def test_a_file_of_other_rows_or_with_a_nan_in_rows_of_another_process_is_refused(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    group = ProcessGroup(0, 2)
    table = tensors["b/table"]
    save_file({"b/table": table}, path)
    with pytest.raises(
        CheckpointError, match=re.escape("must hold 71 rows of b/table, got 70. Has the data set changed?")
    ):
        read_own(path, {"b/table": RowShard(71, group)}, {})
    with pytest.raises(
        CheckpointError, match=re.escape("must hold b/table of width [2], got [3]. Is it another run's?")
    ):
        read_own(path, {"b/table": RowShard(NUM_ROWS, group)}, {"b/table": torch.empty(35, 2)})
    table[61, 1] = torch.inf
    save_file({"b/table": table}, path)
    with pytest.raises(CheckpointError, match="must hold finite values, and b/table is not finite"):
        read_own(path, {"b/table": RowShard(NUM_ROWS, group)}, {})
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(SafetensorError):
        read_own(path, {"b/table": RowShard(NUM_ROWS, group)}, {})


def test_a_table_and_its_moments_are_divided_alike_and_nothing_else() -> None:
    group = ProcessGroup(1, 2)
    module = torch.nn.Module()
    module.tables = ItemEmbeddings({}, hidden_size=2, num_item_rows=7, sparse=True, world=group)
    shards = shards_in_files(module, ["exp_avg"])
    assert shards == dict.fromkeys(["tables.id.weight", "tables.id.weight/exp_avg"], RowShard(7, group))
    assert group_of(shards) == group
    assert group_of({}).size == 1
    assert shards_in_files(torch.nn.Linear(2, 2), ["exp_avg"]) == {}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_single_value_that_is_not_finite_is_found(bad: float, place: int) -> None:
    values = torch.tensor([1.0, -3e38, 3e38, 0.0, 5.0, 2.0])
    assert is_finite(values)
    values[place] = bad
    assert not is_finite(values)
    assert is_finite(torch.empty(0))
    assert is_finite(torch.tensor([1, 2]))
