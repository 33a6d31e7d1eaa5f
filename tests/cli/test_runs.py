"""`athwe runs`: list, show, remove."""

import json
import shutil
from pathlib import Path

import pytest
from cli_runner import call, one_error_line
from typer.testing import CliRunner

from athwe_cli.app import app


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    """A world of this test's own, with a broken run beside the finished one."""
    shutil.copytree(world / "runs", tmp_path / "runs")
    broken = tmp_path / "runs" / "demo" / "athwe" / "broken-one"
    broken.mkdir()
    (broken / "manifest.json").write_text("[]")
    return tmp_path


def test_runs_are_listed_with_results_and_sizes_and_broken_ones_too(world: Path, copied: Path) -> None:
    result = call(copied, "runs", "--json")
    found = json.loads(result.stdout)
    first, broken = found["runs"]
    assert (first["run"], first["status"], broken["run"], broken["status"]) == (
        *("demo/athwe/first", "finished"),
        *("demo/athwe/broken-one", "broken"),
    )
    trained = json.loads((world / "first.json").read_text())
    assert first["results"]["test"] == trained["test"]
    assert found["bytes"] == first["bytes"] + broken["bytes"]
    assert "manifest.json" in broken["damage"]
    table = call(copied, "runs").stdout
    assert f"{trained['test']['ndcg@10']:.4f}" in table
    assert json.loads(call(copied, "runs", "--dataset", "Toys", "--json").stdout) == {"runs": [], "bytes": 0}


def test_one_run_is_shown(world: Path) -> None:
    result = call(world, "runs", "show", "first")
    assert "demo/athwe/first" in result.stdout
    assert "validation ndcg@20" in result.stdout
    assert json.loads(call(world, "runs", "show", "first", "--json").stdout)["status"] == "finished"


def test_a_run_is_removed_after_a_yes(copied: Path) -> None:
    environment = {"ATHWE_RUNS": str(copied / "runs"), "COLUMNS": "100"}
    for answer, is_there in [("n\n", True), ("y\n", False)]:
        result = CliRunner(env=environment).invoke(app, ["runs", "remove", "first"], input=answer)
        assert result.exit_code == 0, result.output
        assert "Remove run demo/athwe/first (finished," in result.stderr
        assert (copied / "runs" / "demo" / "athwe" / "first").exists() is is_there
    assert call(copied, "runs", "remove", "broken-one", "--yes", "--json").exit_code == 0
    assert list((copied / "runs").iterdir()) == []


def test_mistakes_are_one_line(copied: Path) -> None:
    for arguments, code, message in [
        (("drop", "first"), 2, "ACTION must be list, show or remove, got 'drop'"),
        (("show",), 2, "RUN must be given with show and remove only"),
        (("list", "first"), 2, "RUN must be given with show and remove only"),
        (("remove", "first"), 2, "--yes must be given where standard input has no answer"),
        (("show", "fist"), 2, "Did you mean"),
        (("show", "broken-one"), 3, "manifest.json"),
    ]:
        result = call(copied, "runs", *arguments)
        assert result.exit_code == code, result.output
        assert message in one_error_line(result)
    assert (copied / "runs" / "demo" / "athwe" / "first").exists()
