"""Commands that a model can break, with every model but the first: train, judge, take apart, look inside."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_runner import call

from athwe_core.models.registry import DEFAULT_MODEL, find_model, model_names, preset_names, preset_tree

PRESETS = {name: next(p for p in preset_names() if preset_tree(p)["model"]["name"] == name) for name in model_names()}
OTHERS = sorted(preset for name, preset in PRESETS.items() if name != DEFAULT_MODEL)
UNLIKE = [preset for preset in OTHERS if preset in ("m3srec-style", "missrec", "nova", "sasrec", "tisasrec")]
few = pytest.mark.parametrize("trained", UNLIKE, indirect=True, scope="module")
"""Models that differ most in batches, inputs and losses: what depends little on the model is tried with these."""
TINY = (
    *("--batch-targets", "256", "--precision", "fp32", "--device", "cpu"),
    *("--set", "model.hidden_size=8", "--set", "model.max_length=12"),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo data."""
    folder = tmp_path_factory.mktemp("demo")
    made = call(folder, "prepare", "--dataset", "demo", "--users", "150", "--items", "100")
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture(scope="module", params=OTHERS)
def trained(request: pytest.FixtureRequest, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with demo data and a run of one epoch named `first`, and its preset."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(demo, folder, dirs_exist_ok=True)
    preset = ("--preset", request.param)
    result = call(folder, "train", "--dataset", "demo", *preset, "--epochs", "1", "--name", "first", *TINY)
    assert result.exit_code == 0, result.output
    return folder, request.param


def answer(folder: Path, *arguments: str) -> Any:
    """What a command prints with --json."""
    result = call(folder, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_run_is_judged_and_compared(trained: tuple[Path, str]) -> None:
    folder, preset = trained
    found = answer(folder, "evaluate", "--run", "first", "--exclude-seen")
    assert 0 <= found["metrics"]["ndcg@10"] <= 1
    (row,) = answer(folder, "compare", f"demo/{preset}/first")["rows"]
    assert row["label"] == preset


@few
def test_a_run_is_reported(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, preset = trained
    page = tmp_path / "report.html"
    answer(folder, "report", "--dataset", "demo", "--to", str(page))
    assert preset in page.read_text(encoding="utf-8")


def test_a_case_study_needs_no_inside_view(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = trained
    case = answer(folder, "case-study", "--run", "first", "--user", "7", "--html", str(tmp_path / "case.html"))
    (why,) = case["why"].values()
    assert len(why["influence"]) == len(case["history"]) - why["first_position"]
    assert {gap["label"] for gap in why["gaps"]} == {"as it was", "one day", "one week", "one year"}
    assert (tmp_path / "case.html").stat().st_size > 10_000


@few
def test_a_run_goes_on_and_a_sampled_loss_trains(trained: tuple[Path, str]) -> None:
    folder, preset = trained
    sampled = ("--set", "losses.catalogue.kind=sampled", "--set", "losses.catalogue.num_negatives=20")
    options = ("--preset", preset, "--epochs", "1", "--name", "sampled", *TINY, *sampled)
    result = call(folder, "train", "--dataset", "demo", *options, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["epochs"] == 1


@few
def test_it_is_taken_apart(trained: tuple[Path, str]) -> None:
    folder, preset = trained
    removals = find_model(preset_tree(preset)["model"]["name"]).removals
    if not removals:
        refused = call(folder, "ablate", "--dataset", "demo", "--preset", preset)
        assert refused.exit_code == 2
        return
    common = ("--dataset", "demo", "--preset", preset, "--seeds", "1", "--epochs", "1")
    taken = answer(folder, "ablate", *common, "--remove", removals[0].name, *TINY[2:])
    assert [variant["label"] for variant in taken["variants"]] == ["full", f"-{removals[0].name}"]


@few
def test_its_step_is_timed(trained: tuple[Path, str]) -> None:
    folder, preset = trained
    sizes = ("--users", "100", "--items", "50", "--steps", "1")
    timed = answer(folder, "bench", "--preset", preset, *sizes, *TINY[2:])
    assert timed["step_seconds"]["median"] > 0
    assert timed["settings"]["preset"] == preset


@few
def test_the_plan_says_what_memory_it_takes(trained: tuple[Path, str]) -> None:
    folder, preset = trained
    plan = answer(folder, "train", "--dataset", "demo", "--preset", preset, "--dry-run", *TINY)
    assert plan["memory"]["peak"] > 0
    assert plan["config"]["model"]["name"] == preset_tree(preset)["model"]["name"]
