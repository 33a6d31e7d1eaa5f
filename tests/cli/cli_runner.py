"""The command line through Typer's runner, in folders of the test's own."""

from pathlib import Path

from typer.testing import CliRunner, Result

from athwe_cli.app import app

SMALL = [
    *("--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--set", "model.num_layers=1"),
    *("--set", "model.max_length=8", "--batch-targets", "256", "--precision", "fp32", "--device", "cpu"),
]
"""Options of `train` for a network that learns in no time."""


def call(folder: Path, *arguments: str, **environment: str) -> Result:
    """Run `athwe ARGUMENTS` with data, prepared versions and runs under `folder`."""
    places = {f"ATHWE_{name}": str(folder / name.lower()) for name in ("DATA", "PREPARED", "RUNS")}
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "ATHWE_DATASET": "", **places, **environment})
    return runner.invoke(app, arguments)


def one_error_line(result: Result) -> str:
    """The only error line; fails where there is none, more than one, or a traceback."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]
