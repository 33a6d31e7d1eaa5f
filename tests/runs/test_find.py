import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.runs.find import RunFolder, broken_runs, create_run, find_run, list_runs

Make = Callable[[str | None], RunFolder]


@pytest.fixture
def make(tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]) -> Make:
    return lambda name: create_run(
        tmp_path, make_config("hm4sr"), prepared, preset="hm4sr", name=name, command="athwe train"
    )


def test_configuration_comes_back(make: Make, make_config: Callable[..., Config]) -> None:
    assert make("a").config() == make_config("hm4sr")


def test_two_runs_at_one_moment_get_two_folders(make: Make) -> None:
    assert make(None).path != make(None).path


def test_a_taken_or_unfit_name_is_refused(make: Make) -> None:
    make("a")
    with pytest.raises(ConfigError, match=r"must be new under .*, got 'a'"):
        make("a")
    for name in ("last", "..", "x/y", "", ".hidden"):
        with pytest.raises(ConfigError, match="must be a plain name"):
            make(name)


def test_a_run_is_found_by_path_full_name_unique_name_and_last(make: Make, tmp_path: Path) -> None:
    run, newest = make("a"), make("b")
    for text in (str(run.path), "demo/hm4sr/a", "a"):
        assert find_run(tmp_path, text).path == run.path
    assert find_run(tmp_path, "last").path == newest.path
    run.update_manifest(status="finished", results={"best_epoch": 1, "epochs": 1, "seconds_per_epoch": 1.0})
    assert find_run(tmp_path, "last").path == run.path
    assert find_run(tmp_path, "last", unfinished=True).path == newest.path
    assert [found.path.name for found in list_runs(tmp_path, dataset="demo")] == ["a", "b"]


def test_a_run_is_found_by_preset_and_name_as_outputs_print_it(make: Make, tmp_path: Path) -> None:
    run = make("a")
    assert find_run(tmp_path, "hm4sr/a").path == run.path
    with pytest.raises(ConfigError, match=r"Did you mean .*hm4sr/a"):
        find_run(tmp_path, "hm4s/a")
    for other in ("athwe/a", "m4sr/a", "demo/a", "/a"):
        with pytest.raises(ConfigError, match="must be a run in"):
            find_run(tmp_path, other)


def test_a_name_of_several_runs_lists_them(make: Make, tmp_path: Path) -> None:
    run = make("a")
    for name in ("demo/sasrec/a", "toys/hm4sr/a"):
        shutil.copytree(run.path, tmp_path / name)
    for text, candidates in (
        ("a", "demo/hm4sr/a, demo/sasrec/a, toys/hm4sr/a"),
        ("hm4sr/a", "demo/hm4sr/a, toys/hm4sr/a"),
    ):
        with pytest.raises(ConfigError, match=rf"must name one run, and \d have it: {candidates}, got '{text}'"):
            find_run(tmp_path, text)
    assert find_run(tmp_path, "sasrec/a").path == tmp_path / "demo/sasrec/a"


def test_an_unknown_run_is_refused_with_near_names(make: Make, tmp_path: Path) -> None:
    make("baseline")
    with pytest.raises(ConfigError, match=r"got 'basline'. Did you mean .*baseline"):
        find_run(tmp_path, "basline")
    with pytest.raises(ConfigError, match="Type: athwe train --dataset Beauty"):
        find_run(tmp_path, "last", dataset="Beauty")


def test_an_unreadable_manifest_or_configuration_is_named(make: Make) -> None:
    run = make("a")
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json must be readable JSON"):
        run.manifest()
    (run.path / "config.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match=r"config\.yaml line 1 must be readable YAML"):
        run.config()


def test_an_unknown_key_in_the_configuration_of_a_run_is_named(make: Make) -> None:
    run = make("a")
    path = run.path / "config.yaml"
    path.write_text(path.read_text().replace("dropout:", "dropot:"))
    with pytest.raises(ConfigError, match=r"model.dropot is no configuration key. Did you mean model.dropout\?"):
        run.config()


def test_a_run_held_by_another_process_is_refused_until_that_process_ends(make: Make) -> None:
    run = make("a")
    code = (
        "import sys; from pathlib import Path; from athwe_core.locks import held\n"
        "with held(Path(sys.argv[1])): print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(CheckpointError, match=rf"is being trained by process {other.pid}, for \d+ s"), run.locked():
            pytest.fail("two holders")
        other.kill()
    with run.locked():
        pass


class TestBroken:
    """A run whose manifest cannot be read does not hide the others."""

    @pytest.fixture
    def broken(self, make: Make) -> RunFolder:
        make("good")
        run = make("bad")
        (run.path / "manifest.json").write_text('{"status": ')
        return run

    def test_the_others_are_found(self, broken: RunFolder, tmp_path: Path) -> None:
        heard: list[str] = []
        assert [run.path.name for run in list_runs(tmp_path)] == ["good"]
        assert find_run(tmp_path, "last", notify=heard.append).path.name == "good"
        assert find_run(tmp_path, "good").path.name == "good"
        (note,) = heard
        assert note.startswith("run demo/hm4sr/bad is broken and is left out: ")
        assert "manifest.json must be readable JSON" in note

    def test_it_is_listed_as_broken(self, broken: RunFolder, tmp_path: Path) -> None:
        assert list(broken_runs(tmp_path)) == ["demo/hm4sr/bad"]
        assert broken_runs(tmp_path, dataset="other") == {}
        with pytest.raises(ConfigError, match=r"demo/hm4sr/bad \(broken\)"):
            find_run(tmp_path, "nothing-like-it")

    @pytest.mark.parametrize("text", ["bad", "demo/hm4sr/bad", "path"])
    def test_asking_for_it_tells_what_is_broken(self, broken: RunFolder, tmp_path: Path, text: str) -> None:
        with pytest.raises(CheckpointError, match=r"bad/manifest\.json must be readable JSON"):
            find_run(tmp_path, str(broken.path) if text == "path" else text)

    def test_its_name_stays_taken(self, broken: RunFolder, make: Make) -> None:
        with pytest.raises(ConfigError, match="must be new under"):
            make("bad")


@pytest.mark.parametrize("place", [".unfinished-1/hm4sr/a", "demo/.unfinished-1/a", "demo/hm4sr/.unfinished-1"])
def test_unfinished_folders_are_no_runs(make: Make, tmp_path: Path, place: str) -> None:
    run = make("good")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "manifest.json").write_text((run.path / "manifest.json").read_text())
    (tmp_path / "demo" / "hm4sr" / "half").mkdir()
    assert [found.path.name for found in list_runs(tmp_path)] == ["good"]
    assert broken_runs(tmp_path) == {}
