"""`athwe datasets`: list, show, remove."""

import json
import shutil
from pathlib import Path

import pytest
from cli_runner import call, one_error_line


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    """A world of this test's own."""
    for name in ("prepared", "runs"):
        shutil.copytree(world / name, tmp_path / name)
    return tmp_path


def test_prepared_versions_are_listed_with_sizes_and_broken_ones_too(copied: Path) -> None:
    (found,) = json.loads(call(copied, "datasets", "--json").stdout)["datasets"]
    assert (found["name"], found["is_current"], found["damage"]) == ("demo", True, None)
    assert found["statistics"]["items"] <= 150
    assert found["version"] in call(copied, "datasets").stdout
    (copied / "prepared" / "demo" / found["version"] / "manifest.json").write_text("{}")
    result = call(copied, "datasets")
    assert "broken" in result.stdout
    assert "is damaged" in result.stderr
    assert call(copied, "datasets", "show", "demo").exit_code == 3
    assert json.loads(call(copied / "runs", "datasets", "--json").stdout) == {"datasets": [], "bytes": 0}


def test_one_is_shown(world: Path) -> None:
    result = call(world, "datasets", "show", "demo")
    assert "leave-one-out" in result.stdout
    assert " MB in " in result.stderr


def test_removing_tells_which_runs_need_it(copied: Path) -> None:
    result = call(copied, "datasets", "remove", "demo")
    assert "; 1 runs in " in result.stderr
    assert "--yes must be given" in one_error_line(result)
    result = call(copied, "datasets", "remove", "demo", "--yes", "--json")
    assert len(json.loads(result.stdout)["removed"]) == 1
    assert not (copied / "prepared" / "demo").exists()


def test_mistakes_are_one_line(world: Path) -> None:
    for arguments, message in [
        (("drop", "demo"), "ACTION must be list, show or remove"),
        (("show",), "NAME must be given with show and remove only"),
        (("--version", "x"), "--version is for show and remove"),
        (("show", "dem"), "did you mean 'demo'?"),
        (("show", "demo", "--version", "x"), "--version must be one of"),
    ]:
        result = call(world, "datasets", *arguments)
        assert result.exit_code == 2, result.output
        assert message in one_error_line(result)
