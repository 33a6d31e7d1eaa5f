"""`--launcher`: what is refused before anything is prepared or trained, and that a launcher gets the runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import call, one_error_line

from athwe_cli import launchers
from athwe_core.analysis.experiments import ray_launcher
from athwe_core.errors import AthweError

RAY = ["--launcher", "ray"]
SWEEP = ["sweep", "--dataset", "demo", "--vary", "training.lr=1e-3,2e-3", "--seeds", "1", "--device", "cpu"]
SWEEP += ["--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--set", "training.batch_targets=256"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ray were there."""
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize("command", ["sweep", "ablate", "table1", "tune"])
def test_a_missing_library_is_one_line_before_the_data(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: None)
    refused = call(tmp_path, command, "--dataset", "nothing", *RAY)
    assert refused.exit_code == 2
    assert one_error_line(refused).endswith(
        "--launcher ray needs the library ray, which is not installed. Run: pip install 'athwe[ray]'"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--launcher", "slurm"], "--launcher must be local or ray, got 'slurm'"),
        (["--ray-address", "auto"], "--ray-address is an option of --launcher ray, got 'auto'. Add --launcher ray"),
    ],
)
def test_mistakes_are_one_line(options: list[str], text: str, tmp_path: Path) -> None:
    refused = call(tmp_path, "sweep", "--dataset", "nothing", "--vary", "training.lr=1,2", *options)
    assert refused.exit_code == 2
    assert text in one_error_line(refused)


def test_the_launcher_is_told_what_is_to_be_trained_and_which_folders_nodes_share(
    world: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    told: dict[str, Any] = {}

    def refusing(configs: Any, **settings: Any) -> None:
        told.update(settings, rates=[config.training.lr for config in configs])
        raise AthweError("the cluster", "must be pretended")

    monkeypatch.setattr(ray_launcher, "ray_launcher", refusing)
    refused = call(world, *SWEEP, *RAY, "--ray-address", "head:6379", "--jobs", "7")
    assert one_error_line(refused) == "error: the cluster must be pretended"
    assert told == {
        "rates": [0.001, 0.002],
        "jobs": 7,
        "folders": {"--runs": world / "runs", "--prepared": world / "prepared"},
        "address": "head:6379",
    }


@pytest.mark.engines
def test_a_ray_of_its_own_is_quiet_and_ctrl_c_saves(world: Path) -> None:
    """Ctrl-C goes to the whole group of processes, those of Ray too."""
    command = [
        sys.executable,
        "-m",
        "athwe_cli",
        *SWEEP,
        "--set",
        "training.epochs=100000",
        "--jobs",
        "2",
        *RAY,
        "--set",
        "training.patience=100000",
    ]
    with subprocess.Popen(command, cwd=world, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " epoch   2 " in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        lines += process.stderr.readlines()
    assert process.returncode == 128 + signal.SIGINT, "".join(lines)
    assert "Ray with 1 node: 2 runs at once, 1 CPU each\n" in lines
    assert sum(line.endswith("stopped\n") for line in lines) == 2, "".join(lines)
    assert lines[-1].startswith("stopped and saved. Continue with the same command: athwe sweep")
    noise = [line for line in lines if "ray" in line.lower() and not line.startswith(("Ray with", "stopped and saved"))]
    assert not noise
    saved = list(world.glob("runs/demo/*/*/checkpoints/last"))
    assert len(saved) >= 2
