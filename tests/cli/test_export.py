"""`athwe export`: a run for other programs, and back."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from cli_runner import call, one_error_line


def test_vectors_of_all_items_and_users(world: Path, tmp_path: Path) -> None:
    to = tmp_path / "vectors"
    result = call(world, "export", "--run", "first", "--to", str(to), "--format", "vectors", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts == {"run": "demo/athwe/first", "format": "vectors", "to": str(to), "files": facts["files"]}
    assert set(facts["files"]) == {"items.npy", "items.parquet", "users.npy", "users.parquet"}
    assert len(np.load(to / "items.npy")) == pl.read_parquet(to / "items.parquet").height
    assert "MB)" in result.stderr


def test_an_exported_model_is_a_run_for_recommend(world: Path, tmp_path: Path) -> None:
    to = tmp_path / "model"
    result = call(world, "export", "--run", "first", "--to", str(to), "--format", "hub", "--with", "title")
    assert result.exit_code == 0, result.output
    item = json.loads((to / "items.json").read_text())["item_id"][5]
    (tmp_path / "visits.csv").write_text(f"user,item,time\nnew,{item},2021-01-01\n")
    arguments = ("--histories", str(tmp_path / "visits.csv"), "--k", "4", "--with", "title", "--json")
    mine, theirs = (
        json.loads(call(world, "recommend", "--run", run, *arguments).stdout)["recommendations"]
        for run in ("first", str(to))
    )
    assert mine == theirs
    assert len(mine) == 4
    result = call(world, "recommend", "--run", str(to))
    assert "--run is a model without its data set, so it has no users" in one_error_line(result)


def test_mistakes_are_one_line(world: Path, tmp_path: Path) -> None:
    for arguments, message in [
        (("--format", "csv"), "--format must be vectors, onnx or hub"),
        (("--format", "onnx", "--k", "0"), "--k must be at least 1"),
        (("--format", "hub", "--with", "titel"), "--with must name columns"),
    ]:
        result = call(world, "export", "--run", "first", "--to", str(tmp_path / "out"), *arguments)
        assert result.exit_code == 2, result.output
        assert message in one_error_line(result)
    assert list(tmp_path.iterdir()) == []
