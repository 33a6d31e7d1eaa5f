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
from safetensors.torch import load_file

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


def start(folder: Path, *arguments: str, restarts: int = 0, processes: int = 2) -> subprocess.Popen[str]:
    """Processes on the CPU."""
    places = {f"ATHWE_{name}": str(folder / name.lower()) for name in ("DATA", "PREPARED", "RUNS")}
    environment = os.environ | places | {"OMP_NUM_THREADS": "1"}
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
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


@pytest.mark.long
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


@pytest.mark.long
def test_torchrun_starts_a_failed_job_again_by_itself(folder: Path) -> None:
    run = folder / "runs/demo/athwe/again"
    saving = ("--checkpoint-minutes", "1e-9", "--set", "training.epochs=2")
    job = start(folder, *TRAIN, *saving, "--name", "again", "--set", "training.batch_targets=64", restarts=1)
    kill_second(job, run / "checkpoints" / "last")
    _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    assert "resuming run demo/athwe/again" in err
    assert json.loads((run / "manifest.json").read_text())["status"] == "finished"


@pytest.mark.long
@pytest.mark.parametrize("preset", ["athwe", "sasrec"])
def test_divided_tables_are_saved_whole_and_go_on_with_another_number_of_processes(folder: Path, preset: str) -> None:
    """Two processes, of which one is killed within an epoch, then three, then one: the run is what one process comes to."""
    sizes = SMALL if preset == "athwe" else ("--set", "model.hidden_size=16", "--set", "model.num_layers=1")
    sampled = ("losses.catalogue.kind=sampled", "losses.catalogue.num_negatives=30", "training.shard_tables=true")
    fixed = ("model.dropout=0", "training.schedule.kind=constant")  # another rate could not be trained for longer
    further = (*fixed, "training.batch_targets=64", *(("losses.pcl.weight=0",) if preset == "athwe" else ()))
    settings = ("train", "--dataset", "demo", "--preset", preset, "--epochs", "2", *sizes)
    settings += tuple(word for text in (*sampled, *further) for word in ("--set", text))
    alone = call(folder, *settings, "--name", "alone", "--json")
    assert alone.exit_code == 0, alone.output
    run = folder / f"runs/demo/{preset}/divided"
    job = start(folder, *settings, "--checkpoint-minutes", "1e-9", "--name", "divided")
    kill_second(job, run / "checkpoints" / "last")
    job.communicate(timeout=120)
    resumed = start(folder, "train", "--resume", "divided", "--json", processes=3)
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    expected, found = result_of(alone.stdout), result_of(out)
    for split in ("validation", "test"):
        assert found[split] == pytest.approx(expected[split], abs=0.02)
    weights = [load_file(run.parent / name / "checkpoints/best/weights.safetensors") for name in ("alone", "divided")]
    assert {name: value.shape for name, value in weights[0].items()} == {
        name: value.shape for name, value in weights[1].items()
    }
    judged = call(folder, "evaluate", "--run", "divided", "--json")
    assert judged.exit_code == 0, judged.output
    metrics = json.loads(judged.stdout.splitlines()[-1])["metrics"]
    assert metrics == pytest.approx(found["test"], abs=1e-3)
    longer = call(folder, "train", "--resume", "divided", "--epochs", "3", "--json")
    assert longer.exit_code == 0, longer.output
    assert result_of(longer.stdout)["epochs"] == 3


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
