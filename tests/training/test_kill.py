"""Killed at random moments, a run ends bit for bit as one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")
EVERY_KIND = [("packed", "fp32"), ("packed", "bf16"), ("prefix", "fp32"), ("prefix", "bf16")]


def trials(folder: Path, *, count: int, batching: str, precision: str, seed: int) -> dict[str, int]:
    command = [sys.executable, str(HARNESS), str(folder), str(count), batching, precision, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=7200)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.long
@pytest.mark.parametrize(("batching", "precision", "count"), [("prefix", "bf16", 3)])
def test_a_run_killed_at_random_moments_ends_the_same(
    tmp_path: Path, batching: str, precision: str, count: int
) -> None:
    found = trials(tmp_path, count=count, batching=batching, precision=precision, seed=1)
    assert found["different"] == found["failed"] == found["left"] == 0
    assert found["killed"] >= count
    assert found["lost"] <= found["killed"], "one step at most is done again for a kill"


@pytest.mark.slow
@pytest.mark.parametrize(("batching", "precision"), EVERY_KIND)
def test_200_kills(tmp_path: Path, batching: str, precision: str) -> None:
    found = trials(tmp_path, count=200, batching=batching, precision=precision, seed=2)
    print(json.dumps({"batching": batching, "precision": precision} | found))
    assert found["different"] == found["failed"] == found["left"] == 0
    assert found["lost"] <= found["killed"]
    assert min(found[phase] for phase in ("training", "evaluating", "saving")) > 0
