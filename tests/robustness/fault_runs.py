"""The command line in this process on small data, and a small disk of its own that can be filled, read-only or larger."""

import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from athwe_cli.app import app
from athwe_cli.training_display import TrainingDisplay

DEMO = ("--dataset", "demo", "--users", "100", "--items", "100")
SMALL = [
    *("--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--set", "model.num_layers=1"),
    *("--set", "model.max_length=6", "--batch-targets", "200", "--precision", "fp32", "--device", "cpu"),
    *("--preset", "hm4sr", "--epochs", "2"),
]
"""Options of `train` for a network that learns in no time."""
TIMELESS = ("best_epoch", "epochs", "validation", "test", "preset")


def call(folder: Path, *arguments: str, **places: Path) -> Result:
    """Run `athwe ARGUMENTS` with data, prepared versions and runs under `folder`, or where `places` says."""
    where = {name: str(places.get(name, folder / name)) for name in ("data", "prepared", "runs")}
    environment = {f"ATHWE_{name.upper()}": path for name, path in where.items()}
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "ATHWE_DATASET": "", **environment})
    return runner.invoke(app, arguments)


def done(result: Result) -> dict[str, Any]:
    """The JSON object of a command that ended well, without what is a matter of time."""
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    return {key: found[key] for key in TIMELESS}


def one_line(result: Result, code: int) -> str:
    """The only error line of a command that failed with that exit code."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]


def after_epoch(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something after the first epoch of a training that the command line shows."""
    waiting, real = [act], TrainingDisplay.epoch_ends

    def epoch_ends(self: TrainingDisplay, record: dict[str, Any], *, is_best: bool) -> None:
        real(self, record, is_best=is_best)
        if waiting:
            waiting.pop()()

    monkeypatch.setattr(TrainingDisplay, "epoch_ends", epoch_ends)


class Disk:
    """A tmpfs at `path`."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            path.rmdir()
            pytest.skip(f"mounting a tmpfs is not allowed here ({mounted.stderr.decode().strip()})")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def fill(self) -> None:
        """Take what room is left."""
        for size in (2**16, 2**12, 1):
            with suppress(OSError), (self.path / "ballast").open("ab", buffering=0) as file:  # until there is none
                while True:
                    file.write(b"\0" * size)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
