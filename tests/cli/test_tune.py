"""`athwe tune` on the small demo data set, one or two epochs a trial."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_runner import call, one_error_line
from typer.testing import Result

from athwe_cli.tune import _Display

# At a width of 8, dropout can zero a whole state, and the gradient of its layer norm overflows.
SMALL = [
    *("--set", "model.hidden_size=16", "--set", "model.inner_size=16", "--set", "model.num_layers=1"),
    *("--set", "model.max_length=8", "--set", "training.batch_targets=400", "--set", "training.device=cpu"),
    *("--set", "training.precision=fp32", "--preset", "hm4sr", "--epochs", "1"),
]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text("training.lr: {low: 1e-3, high: 1e-1, log: true}\nlosses.pcl.weight: {choices: [0.1, 1.0]}\n")
    return path


@pytest.fixture
def tune(world: Path, tmp_path: Path, space: Path) -> Any:
    """`athwe tune` on the demo data set of `world`, runs in a folder of the test's own."""

    def run(*arguments: str, **environment: str) -> Result:
        places = {"ATHWE_RUNS": str(tmp_path / "runs"), **environment}
        return call(world, "tune", "--dataset", "demo", "--space", str(space), *arguments, **places)

    return run


def test_json_tables_and_a_best_configuration_that_train_takes(tune: Any, world: Path, tmp_path: Path) -> None:
    result = tune("--trials", "4", "--json", *SMALL, COLUMNS="80")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["study"] == "demo-hm4sr"
    assert [trial["run"] for trial in found["trials"]] == [f"demo/hm4sr/tune-demo-hm4sr-{i}" for i in range(4)]
    assert (tmp_path / "runs" / "demo" / "experiments" / "tune-demo-hm4sr" / "result.json").exists()
    shown = result.stderr
    assert "demo, validation, 4 trials, 0 pruned" in shown
    assert "importance of the keys" in shown
    assert "demo, test, chosen on validation" in shown
    assert f"{found['best']['test']['ndcg@10']:.4f}" in shown
    assert not any("…" in line for line in shown.splitlines())
    best = found["best"]["config"]
    dry = call(world, "train", "--dataset", "demo", "--preset", "hm4sr", "--config", best, "--dry-run")
    assert yaml.safe_load(dry.stdout)["training"]["lr"] == found["best"]["values"]["training.lr"]


def test_test_scores_of_other_trials_are_shown_nowhere(tune: Any, tmp_path: Path) -> None:
    arguments = ("--trials", "3", "--name", "s", *SMALL)
    best = json.loads(tune(*arguments, "--json").stdout)["best"]
    runs = tmp_path / "runs" / "demo" / "hm4sr"
    for path in runs.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        value = 0.4321 if path.parent.name == f"tune-s-{best['number']}" else 0.9876
        manifest["results"]["test"] = dict.fromkeys(manifest["results"]["test"], value)
        path.write_text(json.dumps(manifest))
    result = tune(*arguments)
    assert "0.4321" in result.stdout
    assert "0.9876" not in result.output
    assert json.loads(tune(*arguments, "--json").stdout)["best"]["number"] == best["number"]


def test_ctrl_c_saves_and_the_same_command_goes_on(tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--trials", "2", "--name", "s", "--json", *SMALL)

    def interrupt(self: _Display, step: int, means: dict[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(_Display, "step_ends", interrupt)
        result = tune(*arguments)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert "stopped and saved. Continue with the same command: athwe" in result.stderr
    manifest = json.loads((tmp_path / "runs" / "demo" / "hm4sr" / "tune-s-0" / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    found = json.loads(tune(*arguments).stdout)
    assert [trial["state"] for trial in found["trials"]] == ["complete", "complete"]
    assert len(list((tmp_path / "runs" / "demo" / "hm4sr").iterdir())) == 2


def test_dry_run_prints_the_space_and_leaves_nothing(world: Path, tmp_path: Path) -> None:
    places = {"ATHWE_RUNS": str(tmp_path / "runs"), "COLUMNS": "80"}
    result = call(world, "tune", "--dataset", "demo", "--dry-run", **places)
    assert "27,000 combinations" in result.stdout
    assert "0.1 to 0.5 in steps of 0.1" in result.stdout
    found = json.loads(call(world, "tune", "--dataset", "demo", "--dry-run", "--json", **places).stdout)
    assert found["combinations"] == 27_000
    assert len(found["space"]) == 6
    assert not (tmp_path / "runs").exists()


def test_a_continuous_space_has_no_number(tune: Any) -> None:
    assert "search space, continuous" in tune("--dry-run").stdout


def test_without_optuna_one_line_says_how_to_get_it(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = tune("--trials", "1", *SMALL)
    assert result.exit_code == 2
    assert one_error_line(result).endswith("athwe tune needs optuna. Run: pip install 'athwe[tune]'")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--name", "../up"], "must be a plain name, got '../up'"),
        (["--seed", "-1"], "--seed must not be negative, got -1"),
        (["--space", "absent.yaml"], "--space must be a file, got 'absent.yaml'"),
        (["--set", "model.dropot=1"], "Did you mean model.dropout?"),
        (["--preset", "hmsr"], "Did you mean hm4sr"),
    ],
)
def test_mistakes_are_one_line(tune: Any, arguments: list[str], text: str) -> None:
    result = tune(*arguments)
    assert result.exit_code == 2, result.output
    assert text in one_error_line(result)


def test_a_mistake_in_the_space_names_the_key(tune: Any, space: Path) -> None:
    space.write_text("losses.plc.weight: {choices: [0.1]}\n")
    result = tune("--dry-run")
    assert result.exit_code == 2
    assert "losses.plc is no configuration key. Did you mean losses.pcl?" in one_error_line(result)


def test_a_study_begun_with_other_settings_is_refused(tune: Any) -> None:
    assert tune("--trials", "1", *SMALL).exit_code == 0
    result = tune("--trials", "1", "--seed", "3", *SMALL)
    assert result.exit_code == 2
    assert "--seed must be 0 as when study 'demo-hm4sr' began, got 3" in one_error_line(result)
