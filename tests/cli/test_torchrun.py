"""Several processes under torchrun: one run, one voice, the same result; a killed one ends the job, and the run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runner import SMALL, call

TRAIN = (
    "train",
    "--dataset",
    "demo",
    "--epochs",
    "1",
    *SMALL,
    "--set",
    "model.dropout=0",
    "--set",
    "losses.pcl.weight=0",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a small demo data set is prepared."""
    prepared = call(tmp_path, "prepare", "--dataset", "demo", "--users", "300", "--items", "120")
    assert prepared.exit_code == 0, prepared.output
    return tmp_path


def start(folder: Path, *arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Two processes on the CPU."""
    places = {f"ATHWE_{name}": str(folder / name.lower()) for name in ("DATA", "PREPARED", "RUNS")}
    environment = os.environ | places | {"OMP_NUM_THREADS": "1"}
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [*launcher, "--max-restarts", str(restarts), "-m", "athwe_cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def result_of(text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith("{")]  # gloo of torch 2.8 writes there too
    assert len(lines) == 1, "only the first process speaks"
    return {key: value for key, value in json.loads(lines[0]).items() if key not in ("run", "seconds_per_epoch")}


def kill_second(launcher: subprocess.Popen[str], ready: Path) -> None:
    """Kill the process of rank 1 as soon as `ready` is there."""
    until = time.monotonic() + 120
    while not ready.exists():
        assert time.monotonic() < until, "nothing was saved"
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (second,) = (pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(int(second), signal.SIGKILL)


def test_two_processes_train_one_run_and_a_killed_one_ends_the_job_which_goes_on(folder: Path) -> None:
    """In the end the run is what one process comes to."""
    settings = (*TRAIN, "--set", "training.epochs=2", "--set", "training.batch_targets=64")
    alone = call(folder, *settings, "--name", "alone", "--json")
    assert alone.exit_code == 0, alone.output
    run = folder / "runs/demo/athwe/together"
    job = start(folder, *settings, "--checkpoint-minutes", "1e-9", "--name", "together")
    kill_second(job, run / "checkpoints" / "last")
    _, err = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "[process 0] error: another process of the job must not end before the work does" in err
    assert not (run / ".lock").exists()
    resumed = start(folder, "train", "--resume", "together", "--json")
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert err.count("epoch   2") == 1
    expected, found = result_of(alone.stdout), result_of(out)
    assert found["epochs"] == 2
    for split in ("validation", "test"):
        assert found[split] == pytest.approx(expected[split], abs=0.02)  # 300 users: a rank that moved is 0.003
    assert (run / "per_user.parquet").is_file()


@pytest.mark.slow
def test_torchrun_starts_a_failed_job_again_by_itself(folder: Path) -> None:
    run = folder / "runs/demo/athwe/again"
    saving = ("--checkpoint-minutes", "1e-9", "--set", "training.epochs=2")
    job = start(folder, *TRAIN, *saving, "--name", "again", "--set", "training.batch_targets=64", restarts=1)
    kill_second(job, run / "checkpoints" / "last")
    _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    assert "resuming run demo/athwe/again" in err
    assert json.loads((run / "manifest.json").read_text())["status"] == "finished"


def test_mistakes_under_torchrun(folder: Path) -> None:
    refused = call(folder, "report", "--dataset", "demo", WORLD_SIZE="2")
    assert refused.exit_code == 2
    assert "athwe report runs in one process: start it without torchrun" in refused.output
    unset = call(folder, *TRAIN, WORLD_SIZE="2")
    assert unset.exit_code == 2
    assert "[process ?] error: the environment of several processes must be set up by torchrun" in unset.output
    nameless = call(folder, *TRAIN, TORCHELASTIC_MAX_RESTARTS="3")
    assert nameless.exit_code == 2
    assert "--name must be given with torchrun --max-restarts" in nameless.output
