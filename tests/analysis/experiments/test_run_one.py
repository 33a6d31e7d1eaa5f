"""The work of a child that trains one run, done here with a parent that writes down the messages."""

import errno
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tracking_harness import FakeTracker, use_fake_trackers

from athwe_core.analysis.experiments import run_one
from athwe_core.analysis.experiments.run_one import train_run
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError
from athwe_core.runs.find import FINISHED, INTERRUPTED, RunFolder, create_run

MakeConfig = Callable[..., Config]


class Recorder:
    """The parent's end, without a process. It wants the child to stop after `most` messages."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.messages: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, **fields: Any) -> None:
        self.messages.append((event, fields))

    def wants_stop(self) -> bool:
        return len(self.messages) >= self.most


def train(run: RunFolder, prepared: PreparedDataset, parent: Recorder) -> dict[str, bool]:
    document = {"run": str(run.path), "prepared_dir": str(prepared.path.parent.parent), "track": ["mlflow"]}
    return train_run(document, parent)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    return use_fake_trackers(monkeypatch)


@pytest.fixture
def run(tmp_path: Path, small: PreparedDataset, tiny_config: MakeConfig) -> RunFolder:
    return create_run(tmp_path, tiny_config("training.epochs=2"), small, preset="athwe", name="one", command="")


def test_every_epoch_is_reported_and_steps_only_now_and_then(
    run: RunFolder, small: PreparedDataset, trackers: list[FakeTracker]
) -> None:
    parent = Recorder()
    assert train(run, small, parent) == {"finished": True}
    epochs = [event for event, _ in parent.messages if event.startswith("epoch")]
    assert epochs == ["epoch_begins", "epoch_ends"] * 2
    (steps,) = {fields["steps"] for event, fields in parent.messages if event == "epoch_begins"}
    assert sum(event == "step_ends" for event, _ in parent.messages) < 2 * steps
    assert [fields["record"] for event, fields in parent.messages if event == "epoch_ends"] == run.metrics()
    assert run.manifest()["status"] == FINISHED
    assert [call[0] for call in trackers[0].calls] == [1, 2, "finished"]


def test_it_stops_when_the_parent_wants_it(
    run: RunFolder, small: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_one, "SECONDS_BETWEEN_STEPS", 0.0)
    assert train(run, small, Recorder(most=2)) == {"finished": False}
    assert run.manifest()["status"] == INTERRUPTED
    assert run.last.exists()


LOST = [{"process": 7, "host": "elsewhere"}]


def test_a_run_of_a_lost_process_waits_until_that_one_lets_go(
    run: RunFolder, small: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, waited = run.locked(), []
    held.__enter__()

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            held.__exit__(None, None, None)

    monkeypatch.setattr(run_one.time, "sleep", wait)
    parent = Recorder()
    run_one.take_over(run, LOST, parent)  # type: ignore[arg-type]
    assert len(waited) == 3
    assert parent.messages == []


def test_it_gives_up_when_it_is_stopped_and_after_a_while(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_one.time, "sleep", lambda _: None)
    with run.locked():
        run_one.take_over(run, LOST, Recorder(most=0))  # type: ignore[arg-type]
        monkeypatch.setattr(run_one, "TAKEOVER_SECONDS", 0.0)
        with pytest.raises(CheckpointError, match="run demo/athwe/one is being trained by process"):
            run_one.take_over(run, LOST, Recorder())  # type: ignore[arg-type]


def test_on_a_file_system_without_locks_the_lost_process_holds_it_only_for_a_while(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name in (".lock", ".change.lock"):
        (run.path / name).write_text("7\nelsewhere\n")
        owner = {"process": 7, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}
        (run.path / f"{name}.owner").write_text(json.dumps(owner))
    waited: list[float] = []
    monkeypatch.setattr(run_one.time, "sleep", waited.append)
    monkeypatch.setattr(run_one.time, "monotonic", lambda: 100.0 * len(waited))
    run_one.take_over(run, LOST, Recorder())  # type: ignore[arg-type]
    assert len(waited) == 3, "300 s"
    assert not list(run.path.glob(".*lock*"))
