"""A start that cannot work leaves nothing: neither a folder nor a name that is taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import AthweError, CheckpointError, ConfigError
from athwe_core.runs import start
from athwe_core.runs.find import create_run, list_runs


class Usage(NamedTuple):
    free: int


def test_a_device_that_is_not_there_leaves_nothing(
    tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    fails(tmp_path, prepared, make_config("sasrec", "training.device=cuda"), ConfigError, "training.device must exist")


def test_more_processes_than_devices_leave_nothing(
    tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(start, "local_size", lambda: 2)
    config = make_config("sasrec", "training.device=cuda")
    fails(tmp_path, prepared, config, ConfigError, "for each of the 2 processes of this machine, got 1")


@pytest.mark.parametrize("preset", ["athwe", "sasrec"])
def test_weights_beyond_the_memory_leave_nothing(
    preset: str,
    tmp_path: Path,
    prepared: PreparedDataset,
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start, "available_memory", lambda _: 1000)
    fails(tmp_path, prepared, make_config(preset), ConfigError, "must leave room in the memory of cpu")
    monkeypatch.setattr(start, "available_memory", lambda _: None)  # not known
    create_run(tmp_path, make_config(preset), prepared, preset=preset, name="paper", command="test")


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start.shutil, "disk_usage", lambda _: Usage(1000))
    fails(tmp_path, prepared, make_config("sasrec"), CheckpointError, "must have room for the checkpoints")


def test_each_process_needs_memory_for_its_rows_and_the_disk_takes_the_whole(
    tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: dict[str, list[int]] = {"memory": [], "disk": []}
    monkeypatch.setattr(start, "_require_memory", lambda count, _: needed["memory"].append(count))
    monkeypatch.setattr(start, "_require_disk", lambda count, _: needed["disk"].append(count))
    sampled = ("losses.catalogue.kind=sampled", "model.hidden_size=8")
    for size, divided in ((1, True), (2, False), (2, True)):
        monkeypatch.setattr(start, "world_size", lambda size=size: size)
        config = make_config("sasrec", *sampled, f"training.shard_tables={divided}")
        start.require_startable(config, prepared, tmp_path)
    V = prepared.num_item_rows
    assert needed["memory"][0] == needed["memory"][1] == needed["memory"][2] + start.STATE_BYTES * 8 * (V // 2)
    assert len(set(needed["disk"])) == 1


def fails(runs: Path, prepared: PreparedDataset, config: Config, kind: type[AthweError], text: str) -> None:
    arguments: dict[str, Any] = {"preset": "p", "name": "paper", "command": "test"}
    with pytest.raises(kind, match=text):
        create_run(runs / "new", config, prepared, **arguments)
    assert not (runs / "new").exists()
    assert list_runs(runs / "new") == []
