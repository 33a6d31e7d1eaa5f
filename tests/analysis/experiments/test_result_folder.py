"""Result folders: written whole, never over others, and listed without what a killed process left."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from athwe_core.analysis.experiments import result_folder
from athwe_core.analysis.experiments.result import ExperimentResult, Spread, VariantResult
from athwe_core.analysis.experiments.result_folder import RESULT, list_results, require_free_name, write_result
from athwe_core.errors import ConfigError


def variant(label: str, *, mean: float, p: float | None) -> VariantResult:
    numbers: Spread = {"mean": mean, "sd": 0.1, "values": [mean - 0.1, mean + 0.1]}
    metrics = {split: dict.fromkeys(("ndcg@5", "ndcg@10"), numbers) for split in ("validation", "test")}
    return {
        "label": label,
        "values": {},
        "changes": [],
        "runs": [f"demo/athwe/{label}-{seed}" for seed in (0, 1)],
        "metrics": metrics,
        "change_percent": None if p is None else -40.0,
        "p_value": p,
        "p_holm": p,
        "p_over": None if p is None else "users and seeds",
        "epochs": [3, 4],
        "seconds_per_epoch": 2.5,
        "parameters": 100,
    }


@pytest.fixture
def result() -> ExperimentResult:
    return {
        "kind": "ablation",
        "dataset": "demo",
        "preset": "athwe",
        "data_version": "v",
        "tie_order": "file",
        "split_rule": "leave-one-out",
        "exclude_seen": False,
        "seeds": [0, 1],
        "quick_epochs": 2,
        "metric": "ndcg@10",
        "split": "test",
        "varied": [],
        "variants": [variant("full", mean=0.5, p=None), variant("-PCL", mean=0.3, p=0.04)],
        "test": "p is of a test",
        "notes": [],
        "command": "athwe ablate",
        "athwe": {"version": "1", "git_commit": None},
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figure, which has tests of its own."""
    monkeypatch.setattr(result_folder, "_draw", lambda result, stem: stem.with_suffix(".svg").write_text("<svg/>"))


def test_a_folder_with_every_file(result: ExperimentResult, tmp_path: Path) -> None:
    found = write_result(result, runs_dir=tmp_path, name="mine")
    folder = tmp_path / "demo" / "experiments" / "ablation-mine"
    assert found == {**result, "folder": str(folder)}
    assert {path.name for path in folder.iterdir()} == {"result.json", "result.csv", "figure.svg", "figure.png"}
    assert json.loads((folder / RESULT).read_text()) == found
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in folder.parent.iterdir()] == ["ablation-mine"]


@pytest.mark.usefixtures("drawn")
def test_table_has_a_line_per_variant_split_and_metric(result: ExperimentResult, tmp_path: Path) -> None:
    folder = Path(write_result(result, runs_dir=tmp_path, name=None)["folder"])
    with (folder / "result.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 2
    assert {line["quick_epochs"] for line in lines} == {"2"}
    about = [line for line in lines if line["change_percent"]]
    assert [(line["variant"], line["split"], line["metric"]) for line in about] == [("-PCL", "test", "ndcg@10")]
    assert (about[0]["mean"], about[0]["p_holm"], about[0]["p_over"]) == ("0.3", "0.04", "users and seeds")
    assert (about[0]["seed_0"], about[0]["seed_1"]) == ("0.19999999999999998", "0.4")


@pytest.mark.usefixtures("drawn")
def test_nothing_is_overwritten(result: ExperimentResult, tmp_path: Path) -> None:
    folders = {write_result(result, runs_dir=tmp_path, name=None)["folder"] for _ in range(3)}
    assert len(folders) == 3
    write_result(result, runs_dir=tmp_path, name="a")
    with pytest.raises(ConfigError, match=r"--name must be new: .*ablation-a exists, got 'a'"):
        write_result(result, runs_dir=tmp_path, name="a")
    require_free_name(tmp_path, "demo", "sweep", "a")


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--name must be a plain name"):
        require_free_name(tmp_path, "demo", "sweep", name)


def test_a_failure_half_way_leaves_nothing(
    result: ExperimentResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result_folder, "_draw", fail)
    with pytest.raises(OSError, match="No space"):
        write_result(result, runs_dir=tmp_path, name="a")
    assert list((tmp_path / "demo" / "experiments").iterdir()) == []


@pytest.mark.usefixtures("drawn")
def test_a_kill_while_it_draws_leaves_no_result_and_the_next_one_cleans_up(
    result: ExperimentResult, tmp_path: Path
) -> None:
    code = f"""
import json, os, signal
from pathlib import Path
from athwe_core.analysis.experiments import result_folder

def kill(result, stem):
    os.kill(os.getpid(), signal.SIGKILL)

result_folder._draw = kill
result_folder.write_result(json.loads({json.dumps(result)!r}), runs_dir=Path({str(tmp_path)!r}), name="a")
"""
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "demo" / "experiments"
    left = [path for path in folder.iterdir() if path.is_dir()]
    assert len(left) == 1
    assert list_results(tmp_path, "demo") == []
    (left[0] / RESULT).write_text("{}")  # as older versions left it
    assert list_results(tmp_path, "demo") == []
    write_result(result, runs_dir=tmp_path, name="a")
    assert [path.name for path in folder.iterdir()] == ["ablation-a"]


@pytest.mark.usefixtures("drawn")
def test_results_are_listed_oldest_first(result: ExperimentResult, tmp_path: Path) -> None:
    assert list_results(tmp_path, "demo") == []
    paths = [Path(write_result(result, runs_dir=tmp_path, name=name)["folder"]) / RESULT for name in ("b", "a")]
    for seconds, path in enumerate(paths):
        os.utime(path, (seconds, seconds))
    (tmp_path / "demo" / "experiments" / "tune-x").mkdir()
    assert list_results(tmp_path, "demo") == paths
