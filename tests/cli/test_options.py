"""The data set that a command works on when none is named."""

from pathlib import Path

from cli_runner import call


def test_newest_finished_run(world: Path) -> None:
    assert "data set demo (the newest finished run)" in call(world, "train", "--dry-run").stderr


def test_environment(world: Path) -> None:
    result = call(world, "train", "--dry-run", ATHWE_DATASET="Beauty")
    assert "data set Beauty (ATHWE_DATASET)" in result.stderr
    assert result.exit_code == 3


def test_demo_when_there_is_nothing(tmp_path: Path) -> None:
    assert "data set demo (no finished run)" in call(tmp_path, "train", "--dry-run").stderr
