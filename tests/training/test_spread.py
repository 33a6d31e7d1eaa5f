"""A batch spread over two and three gloo processes gives the step that one process gives, to rounding."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("spread_harness.py")
SAMPLED = "losses.catalogue.kind=sampled,losses.catalogue.num_negatives=9"
KINDS = (
    "none",
    "losses.cluster.weight=1,losses.diversity.weight=1,model.temporal_moe.kind=sparse",
    "training.batching=prefix",
    SAMPLED,
    f"{SAMPLED},training.shard_tables=true",
    f"sasrec:{SAMPLED},training.shard_tables=true,model.repeat=true",
)
ROUNDING = 2e-5
"""Of float32 sums in another order, relative to the largest gradient of a weight; seen up to 6e-6."""


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_the_step_is_the_one_of_a_single_process(tmp_path: Path, size: int) -> None:
    command = [sys.executable, "-W", "ignore", str(HARNESS), str(tmp_path), str(size), *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # gloo of torch 2.8 writes there too
    found = [json.loads(line) for line in lines]
    assert len(found) == 2 * len(KINDS)  # the whole batch, and one row, which leaves processes without any
    assert max(max(one.values()) for one in found) < ROUNDING, found
