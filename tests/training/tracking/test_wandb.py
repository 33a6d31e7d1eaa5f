"""Weights & Biases offline: the file that `wandb sync` would send, read back."""

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from athwe_core.runs.run import RunFolder


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MODE": "offline", "ERROR_REPORTING": "false", "CONFIG_DIR": str(tmp_path / "config")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))


def records(folder: Path) -> Iterator[Any]:
    """The records of the run's file: a LevelDB log of blocks of 32 KiB after 7 bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # the rest of a block that has no room for a header
            at += 2**15 - at % 2**15
            continue
        _checksum, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(whole)
            whole = b""


def whole(folder: Path) -> list[Any]:
    """The records up to the last one, which wandb's own process writes soon after the run has ended."""
    for _ in range(100):
        found = list(records(folder))
        if any(each.WhichOneof("record_type") == "exit" for each in found):
            return found
        time.sleep(0.2)
    raise AssertionError(f"no end in {len(found)} records")


def test_epochs_results_and_configuration_are_in_the_file(run: RunFolder, train: Callable[..., list[str]]) -> None:
    (note,) = train("wandb", range(1, 3), finished=True)
    assert note.startswith("Weights & Biases: offline, to send it: wandb sync ")
    assert list(Path(note.rpartition(" ")[2]).glob("*.wandb"))
    rows, config, summary, exit_codes = [], {}, {}, []
    for each in whole(run.path):
        kind = each.WhichOneof("record_type")
        if kind == "history":
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in each.history.item})
        elif kind == "run":
            config |= {i.key: json.loads(i.value_json) for i in each.run.config.update}
            assert (each.run.project, each.run.display_name) == ("athwe", run.name)
        elif kind == "summary":
            summary |= {i.key: json.loads(i.value_json) for i in each.summary.update}
        elif kind == "exit":
            exit_codes.append(each.exit.exit_code)
    assert [(row["_step"], row["loss/total"], row["validation/ndcg_at_10"]) for row in rows] == [
        (1, 5.0, 0.125),
        (2, 2.5, 0.25),
    ]
    assert summary["best_test/ndcg_at_10"] == 0.25
    assert config["model.hidden_size"] == 8
    assert exit_codes == [0]
