"""`athwe sweep`: a grid over two keys, judged on validation, and mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import call, one_error_line

TINY = ["--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--set", "training.batch_targets=256"]
TINY += ["--precision", "fp32", "--device", "cpu", "--seeds", "1", "--epochs", "1"]


@pytest.fixture(scope="module")
def result(world: Path) -> dict[str, Any]:
    """Two weights by two learning rates."""
    axes = ("--vary", "losses.pcl.weight=0.5,1", "--vary", "training.lr=1.5e-3,1e-2")
    found = call(world, "sweep", "--dataset", "demo", *TINY, *axes, "--name", "grid", "--json")
    assert found.exit_code == 0, found.output
    (world / "grid.err").write_text(found.stderr)
    return json.loads(found.stdout)


def test_json_has_every_point_of_the_grid(world: Path, result: dict[str, Any]) -> None:
    assert (result["kind"], result["split"], result["varied"]) == (
        "sweep",
        "validation",
        ["losses.pcl.weight", "training.lr"],
    )
    labels = [variant["label"] for variant in result["variants"]]
    assert labels == ["0.5, 1.5e-3", "0.5, 1e-2", "1, 1.5e-3", "1, 1e-2"]
    assert result["variants"][1]["values"] == {"losses.pcl.weight": 0.5, "training.lr": 0.01}
    assert result["variants"][2]["change_percent"] is None, "the preset's own values"
    assert all(result["variants"][i]["change_percent"] is not None for i in (0, 1, 3))
    folder = world / "runs" / "demo" / "experiments" / "sweep-grid"
    assert {path.name for path in folder.iterdir()} == {"result.json", "result.csv", "figure.svg", "figure.png"}
    assert "4 runs: 4 new" in (world / "grid.err").read_text()
    assert "quick look: at most 1 epoch\n" in (world / "grid.err").read_text()


def test_finished_points_are_reused_and_the_table_fits_80_columns(world: Path, result: dict[str, Any]) -> None:
    axes = ("--vary", "training.lr=1.5e-3,1e-2")
    found = call(world, "sweep", "--dataset", "demo", *TINY, *axes, COLUMNS="80")
    assert found.exit_code == 0, found.output
    assert "2 runs: 2 reused" in found.stderr
    assert "sweep of training.lr" in found.stdout
    assert "change of NDCG@10 against 1.5e-3" in found.stdout
    assert all(len(line) <= 80 for line in found.stdout.splitlines()), found.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "--vary must be given at least once"),
        (("--vary", "losses.pcl.wight=1"), "Did you mean losses.pcl.weight?"),
        (("--vary", "training.lr=1e-3,0.001"), "must give each value once"),
        (("--vary", "training.lr="), "must have the form a.b=value,value"),
        (("--vary", "training.epochs=1,2"), "--epochs must be left out"),
        (("--vary", "training.lr=1", "--set", "training.seed=1"), "Use --seeds instead"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], text: str, world: Path) -> None:
    refused = call(world, "sweep", "--dataset", "demo", *TINY, *arguments)
    assert refused.exit_code == 2, refused.output
    assert text in one_error_line(refused)
