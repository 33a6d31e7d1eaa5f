import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from athwe_core.distributed import (
    ALONE,
    BatchShards,
    ProcessGroup,
    all_here,
    are_several,
    init_distributed,
    local_rank,
    world_size,
)
from athwe_core.errors import ConfigError

HARNESS = Path(__file__).with_name("gloo_harness.py")


def test_three_processes_exchange_what_one_has_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(HARNESS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def divided(counts: list[int], size: int) -> list[list[int]]:
    parts = [ProcessGroup(rank, size).divide(np.array(counts)) for rank in range(size)]
    assert all(shards.counts == parts[0][1].counts for _, shards in parts)
    assert [shards.counts[shards.rank] for _, shards in parts] == [int(np.array(counts)[own].sum()) for own, _ in parts]
    return [np.array(counts)[own].tolist() for own, _ in parts]


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([5, 5, 5, 5], 2, [[5, 5], [5, 5]]),
        ([9, 1, 1, 1], 2, [[9], [1, 1, 1]]),
        ([1, 2, 3, 4, 5, 6], 3, [[1, 2, 3], [4, 5], [6]]),
        ([7], 3, [[], [7], []]),
        ([3, 4], 1, [[3, 4]]),
    ],
)
def test_rows_are_cut_where_targets_are_nearest_to_equal(
    counts: list[int], size: int, expected: list[list[int]]
) -> None:
    assert divided(counts, size) == expected


def test_shards_know_where_a_process_begins_among_the_rows_of_all() -> None:
    assert BatchShards((3, 0, 4), rank=2).num_targets == 7
    assert [BatchShards((3, 0, 4), rank=rank).start for rank in range(3)] == [0, 3, 3]
    assert [BatchShards((3, 0, 5), rank=rank, multiple=4).start for rank in range(3)] == [0, 4, 4]


def test_a_single_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    value = torch.randn(3, 2)
    assert all_here(3).gather(value) is value
    assert all_here(3).total(value) is value
    assert ALONE.total(value) is value
    assert ALONE.text_of_first("a run") == "a run"
    assert ALONE.any(True)
    assert not ALONE.any(False)
    with init_distributed() as group:
        assert group == ALONE


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert not are_several()
    assert local_rank() == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert are_several()
    assert local_rank() == 1
    assert world_size() == 2


def test_an_environment_that_torchrun_did_not_complete_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(ConfigError, match=r"must be set up by torchrun \('RANK'\)\. Start with: torchrun"),
        init_distributed(),
    ):
        pass
