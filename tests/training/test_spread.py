"""A batch spread over two and three gloo processes gives the step that one process gives, to rounding."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from athwe_core.distributed import ALONE, BatchShards, ProcessGroup, all_here, init_distributed

HARNESS = Path(__file__).with_name("spread_harness.py")
KINDS = (
    "none",
    "losses.cluster.weight=1,losses.diversity.weight=1,model.temporal_moe.kind=sparse",
    "training.batching=prefix",
    "losses.catalogue.kind=sampled,losses.catalogue.num_negatives=9",
)
ROUNDING = 2e-5
"""Of float32 sums in another order, relative to the largest gradient of a weight; seen up to 6e-6."""


@pytest.mark.parametrize("size", [2, 3])
def test_the_step_is_the_one_of_a_single_process(tmp_path: Path, size: int) -> None:
    command = [sys.executable, "-W", "ignore", str(HARNESS), str(tmp_path), str(size), *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # gloo of torch 2.8 writes there too
    found = [json.loads(line) for line in lines]
    assert len(found) == 2 * len(KINDS)  # the whole batch, and one row, which leaves processes without any
    assert max(max(one.values()) for one in found) < ROUNDING, found


def divided(counts: list[int], size: int) -> list[list[int]]:
    parts = [ProcessGroup(rank, size).divide(np.array(counts)) for rank in range(size)]
    assert all(shares.counts == parts[0][1].counts for _, shares in parts)
    assert [shares.counts[shares.rank] for _, shares in parts] == [int(np.array(counts)[own].sum()) for own, _ in parts]
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


def test_a_process_knows_its_place_among_the_rows_of_all() -> None:
    shares = BatchShards((3, 0, 4), rank=2)
    assert shares.num_targets == 7
    assert [BatchShards((3, 0, 4), rank=rank).start for rank in range(3)] == [0, 3, 3]
    assert [BatchShards((3, 0, 5), rank=rank, multiple=4).start for rank in range(3)] == [0, 4, 4]


def test_alone_everything_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    value = torch.randn(3, 2)
    assert all_here(3).gather(value) is value
    assert all_here(3).total(value) is value
    assert ALONE.total(value) is value
    assert ALONE.text_of_first("a run") == "a run"
    assert ALONE.any(True)
    assert not ALONE.any(False)
    with init_distributed() as world:
        assert world == ALONE
