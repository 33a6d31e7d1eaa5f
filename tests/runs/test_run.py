"""What a run's folder holds, read and changed by one process or by several at once."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError
from athwe_core.locks import held
from athwe_core.runs import run as run_module
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.runs.rank_table import COLUMNS


def ranks(split: str, rank: float = 1.0) -> pl.DataFrame:
    values = {"user_id": ["a", "b"], "split": [split] * 2, "target_item_id": ["x", "y"], "rank": [rank, rank + 1]}
    return pl.DataFrame(values | {name: [1, 2] for name in sorted(COLUMNS - values.keys())})


@pytest.fixture
def run(tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]) -> RunFolder:
    return create_run(tmp_path, make_config("hm4sr"), prepared, preset="hm4sr", name="a", command="athwe train")


def test_ranks_of_one_split_leave_those_of_the_other(run: RunFolder) -> None:
    run.write_ranks(pl.concat([ranks("validation"), ranks("test")]))
    run.write_ranks(ranks("test", 5.0))
    assert run.ranks("validation").equals(ranks("validation"))
    assert run.ranks("test").equals(ranks("test", 5.0))
    with pytest.raises(CheckpointError, match=r"must hold ranks of the dev split\. .* --split dev"):
        run.ranks("dev")


def test_ranks_of_both_splits_written_at_once_are_all_kept(run: RunFolder) -> None:
    """Each writer reads, changes and writes: without a lock one would undo the other."""
    for number in range(5):
        splits = ("validation", "test", "third")
        writers = [threading.Thread(target=run.write_ranks, args=(ranks(split, number + 1.0),)) for split in splits]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert all(run.ranks(split).equals(ranks(split, number + 1.0)) for split in splits)


def test_facts_added_to_the_manifest_at_once_are_all_kept(run: RunFolder) -> None:
    writers = [threading.Thread(target=run.update_manifest, kwargs={f"fact_{n}": n}) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {f"fact_{n}": n for n in range(8)}.items() <= run.manifest().items()


def test_a_process_that_changes_the_run_for_too_long_is_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "CHANGE_WAIT_SECONDS", 0.1)
    with (
        held(run.path / ".change.lock"),
        pytest.raises(CheckpointError, match=r"run demo/hm4sr/a is being changed by process \d+, for \d s"),
    ):
        run.update_manifest(status="finished")


def test_a_kill_between_the_checksum_and_the_file_leaves_the_old_ranks(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_ranks(ranks("test"))
    monkeypatch.setattr("athwe_core.safe_write.os.replace", _Killed(run.per_user))
    with pytest.raises(KeyboardInterrupt):
        run.write_ranks(ranks("test", 9.0))
    assert run.ranks("test").equals(ranks("test"))
    monkeypatch.undo()
    run.write_ranks(ranks("test", 9.0))
    assert run.ranks("test").equals(ranks("test", 9.0))


class _Killed:
    """`os.replace` that stops the process where `target` would be replaced."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __call__(self, source: Path, target: Path) -> None:
        if target == self.target:
            raise KeyboardInterrupt
        source.rename(target)


def test_damaged_ranks_are_refused_and_written_again(run: RunFolder) -> None:
    run.write_ranks(pl.concat([ranks("validation"), ranks("test")]))
    content = bytearray(run.per_user.read_bytes())
    content[200] ^= 1
    run.per_user.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: .* athwe evaluate --run demo/hm4sr/a --split test"):
        run.ranks("test")
    run.write_ranks(ranks("test"))
    assert run.ranks("test").equals(ranks("test"))
    with pytest.raises(CheckpointError, match="must hold ranks of the validation split"):
        run.ranks("validation")


@pytest.mark.parametrize("odd", [[], {"per_user.parquet": "x"}, {"per_user.parquet": [1]}])
def test_checksums_that_are_none_are_refused(run: RunFolder, odd: object) -> None:
    run.write_ranks(ranks("test"))
    path = run.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ranks": odd}))
    with pytest.raises(CheckpointError, match=r"manifest\.json: ranks must be checksums by file|is damaged"):
        run.ranks("test")


def test_a_broken_run_says_what_is_broken(run: RunFolder) -> None:
    assert run.damage is None
    (run.path / "manifest.json").write_text("{")
    assert "must be readable JSON" in str(run.damage)
