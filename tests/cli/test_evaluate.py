"""`athwe evaluate`: metrics, groups and baselines of a run, and runs whose files are damaged or of other data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_runner import call, one_error_line


@pytest.fixture(scope="module")
def evaluated(world: Path) -> dict[str, Any]:
    """What `evaluate --json` says of the run `first`."""
    result = call(world, "evaluate", "--run", "first", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_agrees_with_the_end_of_training(world: Path, evaluated: dict[str, Any]) -> None:
    assert evaluated["metrics"] == pytest.approx(json.loads((world / "first.json").read_text())["test"])


def test_json_has_groups_and_baselines(evaluated: dict[str, Any]) -> None:
    assert evaluated.keys() >= {"run", "split", "users", "metrics", "groups", "baselines"}
    assert set(evaluated["groups"]) == {"history_length", "target_popularity", "same_day"}
    for labels in evaluated["groups"].values():
        assert sum(group["users"] for group in labels.values()) == evaluated["users"]
    assert set(evaluated["baselines"]) == {"popularity", "last-item transition"}


@pytest.mark.parametrize("name", ["first", "demo/athwe/first", "path"])
def test_a_run_by_name_or_path(world: Path, name: str) -> None:
    run = str(world / "runs" / "demo" / "athwe" / "first") if name == "path" else name
    result = call(world, "evaluate", "--run", run, "--split", "validation", "--k", "3", "--json")
    assert json.loads(result.stdout)["metrics"].keys() == {"ndcg@3", "mrr@3", "hit@3"}


def test_exclude_seen_does_not_lower_the_ranks_and_has_its_own_file(world: Path, evaluated: dict[str, Any]) -> None:
    result = json.loads(call(world, "evaluate", "--run", "first", "--exclude-seen", "--json").stdout)
    assert result["exclude_seen"] is True
    assert result["metrics"]["ndcg@10"] >= evaluated["metrics"]["ndcg@10"]
    assert (world / "runs" / "demo" / "athwe" / "first" / "per_user.exclude_seen.parquet").exists()


def test_no_run_prints_the_line_to_type(tmp_path: Path) -> None:
    result = call(tmp_path, "evaluate", "--dataset", "demo")
    assert result.exit_code == 2
    assert "athwe train --dataset demo" in one_error_line(result)


@pytest.mark.parametrize(("option", "value"), [("--split", "dev"), ("--k", "0"), ("--run", "second")])
def test_mistakes_are_one_line(world: Path, option: str, value: str) -> None:
    result = call(world, "evaluate", "--run", "first", option, value)
    assert result.exit_code == 2
    assert value in one_error_line(result)


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of the finished run under another name."""

    def copy() -> Path:
        target = world / "runs" / "demo" / "athwe" / tmp_path.name
        shutil.copytree(world / "runs" / "demo" / "athwe" / "first", target)
        return target

    return copy


def evaluate_damaged(world: Path, run: Path) -> str:
    result = call(world, "evaluate", "--run", run.name)
    assert result.exit_code == 3, result.output
    return one_error_line(result)


def test_unreadable_weights(world: Path, copied: Callable[[], Path]) -> None:
    run = copied()
    (run / "checkpoints" / "best" / "weights.safetensors").write_bytes(b"no safetensors")
    assert "weights.safetensors is damaged" in evaluate_damaged(world, run)


def test_weights_of_another_network(world: Path, copied: Callable[[], Path]) -> None:
    run = copied()
    text = (run / "config.yaml").read_text().replace("hidden_size: 8", "hidden_size: 16")
    (run / "config.yaml").write_text(text)
    assert "of shape" in evaluate_damaged(world, run)


def test_data_changed_since_the_run(world: Path, copied: Callable[[], Path]) -> None:
    run = copied()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["content_hash"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    line = evaluate_damaged(world, run)
    assert "must be the one run" in line
    assert "000000000000" in line
