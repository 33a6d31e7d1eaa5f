import hashlib
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from athwe_core.errors import CheckpointError
from athwe_core.runs.checkpoint import load_optimizer, load_state, load_weights, save_checkpoint


def stepped(seed: int) -> tuple[nn.Linear, torch.optim.Adam]:
    torch.manual_seed(seed)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    return layer, optimizer


def test_weights_and_optimiser_come_back(tmp_path: Path) -> None:
    layer, optimizer = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {"progress": {"epoch": 3}}, optimizer)
    other, other_optimizer = stepped(1)
    load_weights(tmp_path / "last", other)
    load_optimizer(tmp_path / "last", other, other_optimizer)
    for each, each_optimizer in ((layer, optimizer), (other, other_optimizer)):
        each(torch.ones(3)).square().sum().backward()
        each_optimizer.step()
    assert torch.equal(layer.weight, other.weight)
    assert load_state(tmp_path / "last")["progress"] == {"epoch": 3}


def test_saving_again_replaces_the_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    layer, optimizer = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {"n": 1}, optimizer)
    save_checkpoint(tmp_path / "last", layer, {"n": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert {path.name for path in (tmp_path / "last").iterdir()} == {"weights.safetensors", "state.json"}
    assert load_state(tmp_path / "last")["n"] == 2


def test_the_old_one_counts_while_the_new_one_is_put_in_its_place(tmp_path: Path) -> None:
    layer, _ = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {"n": 1})
    (tmp_path / "last").rename(tmp_path / "last.old")
    assert load_state(tmp_path / "last")["n"] == 1
    load_weights(tmp_path / "last", layer)


@pytest.mark.parametrize(
    ("text", "rule"),
    [("{", "must be readable JSON"), ("[]", "must be a JSON object, got 'list'"), ('{"format": 9}', "got 9")],
)
def test_a_foreign_state_is_refused(text: str, rule: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", stepped(0)[0], {})
    (tmp_path / "last" / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=rule):
        load_state(tmp_path / "last")


def test_weights_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", stepped(0)[0], {})
    with pytest.raises(CheckpointError, match=r"must hold weight of shape \(2, 4\), got \(2, 3\)"):
        load_weights(tmp_path / "last", nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match=r"it lacks 0\.bias"):
        load_weights(tmp_path / "last", nn.Sequential(nn.Linear(3, 2)))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    layer, optimizer = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {}, optimizer)
    (tmp_path / "last" / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors must be a file"):
        load_optimizer(tmp_path / "last", layer, optimizer)
    weights = tmp_path / "last" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="is damaged: its content is not the one that was written"):
        load_weights(tmp_path / "last", layer)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    layer, _ = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {})
    weights = tmp_path / "last" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(tmp_path / "last", layer)


def test_a_foreign_file_under_a_checksum_of_its_own_is_refused(tmp_path: Path) -> None:
    layer, _ = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {})
    (tmp_path / "last" / "weights.safetensors").write_bytes(b"no safetensors")
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    state["files"] = {"weights.safetensors": hashlib.sha256(b"no safetensors").hexdigest()}
    (tmp_path / "last" / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="must be a readable safetensors file"):
        load_weights(tmp_path / "last", layer)


def test_the_one_before_is_kept_where_asked(tmp_path: Path) -> None:
    layer, optimizer = stepped(0)
    for n in (1, 2, 3):
        save_checkpoint(tmp_path / "last", layer, {"n": n}, optimizer, keep=tmp_path / "previous")
    assert [load_state(tmp_path / name)["n"] for name in ("last", "previous")] == [3, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"last", "previous"}


def test_a_disk_that_refuses_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    """The limit on file sizes stands for a full disk: the system refuses in the middle of a write."""
    layer, optimizer = stepped(0)
    save_checkpoint(tmp_path / "last", layer, {"n": 1}, optimizer, keep=tmp_path / "previous")
    large = nn.Linear(200, 200)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"last could not be written \(.*The state before it is kept"):
            save_checkpoint(tmp_path / "last", large, {"n": 2}, keep=tmp_path / "previous")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_state(tmp_path / "last")["n"] == 1
    load_weights(tmp_path / "last", layer)
    assert {path.name for path in tmp_path.iterdir()} == {"last"}


def test_state_is_plain_json(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last", stepped(0)[0], {"progress": {"sums": {"ce": 0.1}}})
    assert json.loads((tmp_path / "last" / "state.json").read_text())["progress"]["sums"]["ce"] == 0.1


class TestOrder:
    """What the system is asked to do, one after the other: what a power cut leaves depends on it."""

    @pytest.fixture
    def orders(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

        def fsync(descriptor: int) -> None:
            found.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
            real["fsync"](descriptor)

        def move(name: str) -> Callable[[Path, Path], None]:
            def moved(source: Path, target: Path) -> None:
                found.append(("move", Path(source).name, Path(target).name))
                real[name](source, target)

            return moved

        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, move(name))
        return found

    def test_of_a_checkpoint(self, tmp_path: Path, orders: list[tuple[str, ...]]) -> None:
        """Every file and their folder are on the disk before the name changes, and then the name is."""
        layer, optimizer = stepped(0)
        for n in (1, 2):
            orders.clear()
            save_checkpoint(tmp_path / "last", layer, {"n": n}, optimizer, keep=tmp_path / "previous")
        files = {"weights.safetensors", "optimizer.safetensors", "state.json"}
        assert set(orders[:3]) == {("sync", name) for name in files}
        assert orders[3:] == [
            ("sync", "last.new"),
            ("move", "last", "previous"),
            ("move", "last.new", "last"),
            ("sync", tmp_path.name),
        ]
