"""`athwe ablate`: the plan before, the result after, what is reused, interruptions and mistakes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_runner import call, one_error_line
from typer.testing import Result

from athwe_cli.experiments import ExperimentDisplay

SIZE = ("hidden_size=8", "inner_size=8", "num_layers=1", "max_length=8")
TINY = [*(part for size in SIZE for part in ("--set", f"model.{size}")), "--set", "training.batch_targets=256"]
TINY += ["--precision", "fp32", "--device", "cpu"]
"""The network of the world's run `first`, which had 2 epochs."""

Ablate = Callable[..., Result]


@pytest.fixture
def ablate(world: Path) -> Ablate:
    def run(*arguments: str, **environment: str) -> Result:
        return call(world, "ablate", "--dataset", "demo", *TINY, *arguments, **environment)

    return run


@pytest.fixture(scope="module")
def result(world: Path) -> dict[str, Any]:
    """An ablation of two removals with one seed and 2 epochs, named `two`."""
    arguments = ("--remove", "pcl", "--remove", "TMoE+cp", "--seeds", "1", "--epochs", "2", "--name", "two", "--json")
    found = call(world, "ablate", "--dataset", "demo", *TINY, *arguments)
    assert found.exit_code == 0, found.output
    (world / "two.err").write_text(found.stderr)
    return json.loads(found.stdout)


def folders(world: Path) -> list[str]:
    return sorted(path.name for path in (world / "runs" / "demo" / "experiments").glob("*"))


def test_json_is_one_object_with_every_variant(result: dict[str, Any]) -> None:
    assert result.keys() >= {
        "kind",
        "dataset",
        "preset",
        "data_version",
        "tie_order",
        "exclude_seen",
        "seeds",
        "varied",
    }
    assert (result["kind"], result["metric"], result["split"]) == ("ablation", "ndcg@10", "test")
    assert [variant["label"] for variant in result["variants"]] == ["full", "-PCL", "-TMoE+CP"]
    assert result["variants"][1]["changes"] == ["losses.pcl.weight=0.0"]
    assert result["notes"] == ["removing TMoE removes PCL too: its placeholders are made of time"]
    assert 0 <= result["variants"][1]["p_holm"] <= 1
    assert result["command"].split()[0] == "athwe"


def test_a_finished_run_of_train_is_the_full_model(world: Path, result: dict[str, Any]) -> None:
    full = result["variants"][0]
    assert full["runs"] == ["demo/athwe/first"]
    assert full["metrics"]["test"]["ndcg@10"]["values"] == [
        json.loads((world / "first.json").read_text())["test"]["ndcg@10"]
    ]


def test_the_folder_has_everything_and_every_output_says_that_it_was_a_quick_look(
    world: Path, result: dict[str, Any]
) -> None:
    folder = world / "runs" / "demo" / "experiments" / "ablation-two"
    assert result["folder"] == str(folder)
    assert {path.name for path in folder.iterdir()} == {"result.json", "result.csv", "figure.svg", "figure.png"}
    assert result["quick_epochs"] == 2
    stderr = (world / "two.err").read_text()
    assert stderr.count("quick look: at most 2 epochs") == 2, "before and in the table"
    assert stderr.index("3 runs: 2 new, 1 reused") < stderr.index("estimated ") < stderr.index("[-PCL, seed 0] begins")
    assert "-PCL (losses.pcl.weight=0.0): 1 new" in stderr
    assert "removing TMoE removes PCL too" in stderr


def test_again_it_trains_nothing_and_overwrites_nothing(world: Path, ablate: Ablate, result: dict[str, Any]) -> None:
    before = folders(world)
    again = ablate("--remove", "pcl", "--remove", "cp+tmoe", "--seeds", "1", "--epochs", "2")
    assert again.exit_code == 0, again.output
    assert "3 runs: 3 reused" in again.stderr
    assert "estimated 0 s (every run is finished)" in again.stderr
    assert "begins" not in again.stderr
    assert len(folders(world)) == len(before) + 1
    assert f"{result['variants'][1]['change_percent']:+.1f}" in again.stdout


def test_the_table_fits_80_columns(ablate: Ablate, result: dict[str, Any]) -> None:
    shown = ablate("--remove", "pcl", "--seeds", "1", "--epochs", "2", "--metric", "hit@20", COLUMNS="80").stdout
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    header = next(line for line in shown.splitlines() if "NDCG@5" in line)
    assert header.split() == ["NDCG@5", "NDCG@10", "Hit@20", "%", "p"]
    assert "ablation of athwe on demo, test, 1 seed" in shown
    assert "ties in file order" in shown


def test_dry_run_trains_nothing(world: Path, ablate: Ablate, result: dict[str, Any]) -> None:
    before = sorted((world / "runs").rglob("*"))
    plain = ablate("--all", "--epochs", "2", "--dry-run")
    assert "30 runs: 28 new, 2 reused" in plain.stdout
    assert "estimated " in plain.stdout
    found = json.loads(ablate("--all", "--epochs", "2", "--dry-run", "--json", "--jobs", "2").stdout)
    assert [variant["label"] for variant in found["variants"]][1:4] == ["-IMoE", "-TMoE", "-DWT"]
    assert found["variants"][0]["runs"][0] == {"seed": 0, "action": "reused", "run": "demo/athwe/first"}
    assert found["estimate"]["jobs"] == 2
    assert found["estimate"]["seconds"] > 0
    assert sorted((world / "runs").rglob("*")) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_saves_and_the_same_command_goes_on(
    number: int, code: int, world: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--remove", "IDCL", "--seeds", "1", "--epochs", "2", "--set", f"training.lr=0.00{code}", "--json")
    before = folders(world)
    with monkeypatch.context() as patched:
        patched.setattr(ExperimentDisplay, "step_ends", lambda *_: os.kill(os.getpid(), number))
        stopped = ablate(*arguments)
    assert stopped.exit_code == code, stopped.output
    assert stopped.stdout == ""
    assert "[full, seed 0] stopped" in stopped.stderr
    assert "stopped and saved. Continue with the same command: athwe" in stopped.stderr
    assert folders(world) == before
    again = ablate(*arguments)
    assert again.exit_code == 0, again.output
    assert "2 runs: 1 new, 1 resumed" in again.stderr
    assert "[full, seed 0] continues as demo/athwe/full-s0-" in again.stderr


def test_the_projects_configuration_applies(world: Path, ablate: Ablate, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "demo.yaml").write_text("model: {wavelet: {enabled: false}}\n")
    refused = ablate("--remove", "DWT", "--dry-run")
    assert "using config/demo.yaml" in refused.stderr
    assert "must be a part that athwe has" in one_error_line(refused)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "athwe on demo has IMoE, TMoE, DWT, CP, IDCL, PCL, Text, Image"),
        (("--remove", "Cluster"), 2, "got 'Cluster'"),
        (("--all", "--metric", "ndcg@7"), 2, "must be one of ndcg@5"),
        (("--all", "--split", "train"), 2, "must be validation or test, got 'train'"),
        (("--all", "--seeds", "0"), 2, "--seeds must be at least 1"),
        (("--all", "--jobs", "0"), 2, "--jobs must be at least 1, got 0"),
        (("--all", "--epochs", "0"), 2, "training.epochs must be positive"),
        (("--all", "--set", "training.seed=3"), 2, "Use --seeds instead"),
        (("--all", "--name", "a/b"), 2, "--name must be a plain name, got 'a/b'"),
        (("--all", "--preset", "hmsr"), 2, "Did you mean hm4sr"),
        (("--all", "--version", "0123456789ab"), 3, "0123456789ab"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], code: int, text: str, ablate: Ablate) -> None:
    refused = ablate(*arguments)
    assert refused.exit_code == code, refused.output
    assert text in one_error_line(refused)


def test_a_name_that_is_taken_is_refused_before_anything_is_trained(ablate: Ablate, result: dict[str, Any]) -> None:
    refused = ablate("--all", "--name", "two", "--dry-run")
    assert refused.exit_code == 2
    assert "--name must be new" in one_error_line(refused)


def test_a_diverging_variant_is_one_line_too(ablate: Ablate) -> None:
    refused = ablate("--remove", "CP", "--seeds", "1", "--epochs", "1", "--set", "training.lr=1e30")
    assert refused.exit_code == 1
    assert "must be finite" in one_error_line(refused)
    assert "[full, seed 0] failed" in refused.stderr


@pytest.mark.long
def test_ctrl_c_in_a_terminal_saves_every_process_and_the_same_command_continues(world: Path) -> None:
    """A terminal sends the signal to all processes of the command; only the first acts on it, and the others save."""
    places = {f"ATHWE_{name}": str(world / name.lower()) for name in ("DATA", "PREPARED", "RUNS")}
    arguments = ["ablate", "--dataset", "demo", *TINY, "--remove", "CP", "--seeds", "1", "--jobs", "2"]
    arguments += ["--set", "training.epochs=100000", "--set", "training.patience=100000"]
    command = [sys.executable, "-m", "athwe_cli", *arguments]
    environment = os.environ | places | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=world, start_new_session=True
    ) as process:
        assert process.stderr is not None
        begun: set[str] = set()
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " epoch " in line:
                begun.add(line.split("]")[0])
            if len(begun) == 2:
                os.killpg(process.pid, signal.SIGINT)
                break
        lines += process.stderr.readlines()
        assert process.wait(60) == 130, "".join(lines)
    text = "".join(lines)
    assert "[full, seed 0] stopped" in text
    assert "[-CP, seed 0] stopped" in text
    assert "Continue with the same command: athwe ablate" in text
    assert "Traceback" not in text
    plan = call(world, *arguments, "--dry-run")
    assert "2 runs: 2 resumed" in plan.stdout
