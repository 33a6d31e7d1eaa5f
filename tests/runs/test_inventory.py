"""Runs on disk: listed with sizes, broken ones too, and removed."""

from pathlib import Path

import pytest
from library_harness import train_tiny

from athwe_core.errors import CheckpointError
from athwe_core.locks import held
from athwe_core.runs.find import RunFolder, find_run
from athwe_core.runs.inventory import all_run_facts, remove_run, run_facts
from athwe_core.runs.run import LOCK


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run `good` and one with a damaged manifest, `bad`."""
    train_tiny(tmp_path, name="good")
    bad = tmp_path / "runs" / "demo" / "sasrec" / "bad"
    bad.mkdir()
    (bad / "manifest.json").write_text("{")
    return tmp_path / "runs"


def test_every_run_is_listed_with_its_size_and_broken_ones_last(runs: Path) -> None:
    good, bad = all_run_facts(runs)
    assert (good.name, good.status, bad.name, bad.status) == (
        "demo/sasrec/good",
        "finished",
        "demo/sasrec/bad",
        "broken",
    )
    files = [path for path in (runs / "demo" / "sasrec" / "good").rglob("*") if path.is_file()]
    assert good.bytes == sum(path.stat().st_size for path in files)
    manifest = RunFolder(runs / "demo" / "sasrec" / "good").manifest()
    assert good.result("test", "ndcg@10") == manifest["results"]["test"]["ndcg@10"]
    assert bad.bytes == 1
    assert isinstance(bad.damage, CheckpointError)
    assert bad.result("test", "ndcg@10") is None


def test_a_broken_run_is_found_by_name_only_where_that_is_allowed(runs: Path) -> None:
    with pytest.raises(CheckpointError):
        find_run(runs, "bad")
    assert find_run(runs, "bad", allow_broken=True).name == "demo/sasrec/bad"


def test_a_removed_run_leaves_the_others_and_then_no_empty_folder(runs: Path) -> None:
    remove_run(find_run(runs, "bad", allow_broken=True))
    assert [found.name for found in all_run_facts(runs)] == ["demo/sasrec/good"]
    assert [path.name for path in (runs / "demo" / "sasrec").iterdir()] == ["good"]
    remove_run(find_run(runs, "good"))
    assert list(runs.iterdir()) == []


def test_a_run_that_is_being_trained_is_not_removed(runs: Path) -> None:
    run = RunFolder(runs / "demo" / "sasrec" / "good")
    with held(run.path / LOCK), pytest.raises(CheckpointError, match="is being trained by process"):
        remove_run(run)
    assert run_facts(run).status == "finished"
