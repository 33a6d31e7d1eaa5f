"""Runs trained here and in processes of their own: the same runs, stopped and gone on with, and failures as what they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import polars as pl
import pytest
import torch
from experiment_cases import Memory, experiment_of
from tracking_harness import use_fake_trackers

from athwe_core.analysis.child_process import ChildProcess, Message
from athwe_core.analysis.experiments import launch
from athwe_core.analysis.experiments.execute import default_jobs, run_all
from athwe_core.analysis.experiments.plan import Plan, PlannedRun, plan_experiment
from athwe_core.analysis.experiments.run_one import train_run
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import AthweError, CheckpointError, ConfigError, NonFiniteLossError
from athwe_core.runs.find import RunFolder, create_run

MakeConfig = Callable[..., Config]
Messages = SimpleQueue[tuple[ChildProcess, Message | None]]


class Runs:
    """A folder of runs, and an experiment of two variants to run in it."""

    def __init__(self, folder: Path, prepared: PreparedDataset, configs: list[Config], seeds: tuple[int, ...]) -> None:
        self.folder, self.prepared, self.memory = folder, prepared, Memory()
        self.experiment = experiment_of(*configs, seeds=seeds)

    def plan(self) -> Plan:
        return plan_experiment(self.experiment, self.prepared, runs_dir=self.folder)

    def run(
        self, *, jobs: int = 1, should_stop: Callable[[], bool] = lambda: False, track: Sequence[str] = ()
    ) -> dict[str, RunFolder] | None:
        return run_all(
            self.plan(), jobs=jobs, command="again", listener=self.memory, should_stop=should_stop, track=track
        )

    def folder_of(self, planned: PlannedRun) -> RunFolder:
        return RunFolder(self.folder / "demo" / "athwe" / planned.name)

    def ranks_of(self, label: str) -> list[float]:
        """Of every user in both splits."""
        run = next(planned.existing for planned in self.plan().runs if planned.label == label)
        assert run is not None
        return pl.read_parquet(run.per_user)["rank"].to_list()


@pytest.fixture
def world(tmp_path: Path, small: PreparedDataset, tiny_config: MakeConfig) -> Callable[..., Runs]:
    def make(name: str = "runs", *changes: str, seeds: tuple[int, ...] = (0,), both: tuple[str, ...] = ()) -> Runs:
        changes = changes or ("losses.pcl.weight=0",)
        configs = [tiny_config(*both), *(tiny_config(*both, change) for change in changes)]
        return Runs(tmp_path / name, small, configs, seeds)

    return make


def test_the_second_time_nothing_is_trained(world: Callable[..., Runs]) -> None:
    here = world(both=("training.epochs=1",), seeds=(0, 1))
    first = here.run()
    assert first is not None
    assert [what for what, _ in here.memory.on_progress] == ["begins", "finished"] * 4
    assert here.memory.epochs == [("v0 s0", 1), ("v1 s0", 1), ("v0 s1", 1), ("v1 s1", 1)]
    here.memory = Memory()
    again = here.run()
    assert again == first
    assert [what for what, _ in here.memory.on_progress] == ["reused"] * 4
    assert here.memory.epochs == []


def test_the_manifest_has_the_command_the_folder_the_planned_name_and_the_tracker_every_run(
    world: Callable[..., Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers = use_fake_trackers(monkeypatch)
    here = world(both=("training.epochs=1",))
    planned = here.plan().runs
    found = here.run(track=["mlflow"])
    assert found is not None
    assert [[call[0] for call in tracker.calls] for tracker in trackers] == [[1, "finished"]] * 2
    for run in planned:
        assert found[run.identity].name == f"demo/athwe/{run.name}"
        assert found[run.identity].manifest()["command"] == "again"


def test_stopped_and_gone_on_with_it_ends_as_if_it_had_not_been(world: Callable[..., Runs]) -> None:
    straight, broken = world("straight"), world("broken")
    straight.run()
    steps = straight.memory.steps
    assert broken.run(should_stop=lambda: broken.memory.steps >= 1) is None
    assert broken.memory.on_progress == [("begins", "v0 s0"), ("stopped", "v0 s0")]
    assert [run.action for run in broken.plan().runs] == ["resumed", "new"]
    assert broken.run(should_stop=lambda: broken.memory.steps >= steps * 3 // 4) is None
    assert broken.memory.on_progress[-1] == ("stopped", "v1 s0")
    assert broken.run() is not None
    assert broken.memory.steps == steps
    for label in ("v0", "v1"):
        assert broken.ranks_of(label) == straight.ranks_of(label)


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(world: Callable[..., Runs]) -> None:
    here = world(both=("training.epochs=1",))
    for steps in (1, 2):
        assert here.run(should_stop=lambda: here.memory.steps >= steps) is None  # noqa: B023 - called at once
    begun = here.plan().runs[0].existing
    assert begun is not None
    (begun.last / "weights.safetensors").write_bytes(b"broken")
    assert here.run() is not None
    (note,) = here.memory.notes
    assert note.startswith("v0 s0: the last checkpoint cannot be used")


@pytest.mark.long
def test_in_processes_runs_come_to_the_same_and_a_failure_is_what_it_is_after_the_others_are_saved(
    world: Callable[..., Runs],
) -> None:
    alone = world("alone")
    here = world("runs", "training.epochs=100000", "training.lr=1e30", both=("training.patience=100000",))
    alone.run()
    with pytest.raises(NonFiniteLossError, match=r"loss term \w+ at epoch 1, step \d+ must be finite") as caught:
        here.run(jobs=2)
    assert caught.value.exit_code == 1
    assert caught.value.rule == "must be finite"
    assert "Lower training.lr" in caught.value.remedy
    assert sorted(here.memory.on_progress[:2]) == [("begins", "v0 s0"), ("begins", "v1 s0")]
    assert here.memory.on_progress[2:] == [("finished", "v0 s0"), ("begins", "v2 s0"), ("failed", "v2 s0")]
    assert [epoch for epoch in here.memory.epochs if epoch[0] == "v0 s0"] == [("v0 s0", 1), ("v0 s0", 2)]
    assert here.ranks_of("v0") == alone.ranks_of("v0")
    done, saved, _failed = (planned.existing for planned in here.plan().runs)
    assert done is not None
    assert saved is not None
    assert saved.manifest()["status"] == "interrupted"
    processes = {run.manifest()["process"] for run in (done, saved)}
    assert len(processes) == 2
    assert os.getpid() not in processes


class ScriptedChild:
    """A child without a process. Told to stop it has stopped; where `dies` it has ended as soon as it begins."""

    dies = False
    children: ClassVar[list["ScriptedChild"]] = []

    def __init__(
        self, module: str, document: dict[str, str], *, threads: int, messages: Messages, environment: dict[str, str]
    ) -> None:
        assert Path(document["run"]).is_dir()
        assert Path(document["prepared_dir"]).is_dir()
        assert document["track"] == []
        assert (module, threads, environment) == (launch.RUN_MODULE, 1, {})
        self.messages, self.is_stopped, self.is_joined = messages, False, False
        self.children.append(self)
        message = None if self.dies else Message("epoch_ends", {"record": {"epoch": 7}, "is_best": True})
        messages.put((self, message))  # type: ignore[arg-type]

    def stop(self) -> None:
        if not self.is_stopped and not self.dies:
            self.messages.put((self, None))  # type: ignore[arg-type]
        self.is_stopped = True

    def result(self, subject: str, *, remedy: str) -> dict[str, bool]:
        if self.dies:
            raise AthweError(subject, "must finish", remedy=remedy)
        return {"finished": False}

    def join(self) -> None:
        assert self.is_stopped
        self.is_joined = True


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedChild]:
    monkeypatch.setattr(launch, "ChildProcess", ScriptedChild)
    monkeypatch.setattr(ScriptedChild, "children", [])
    return ScriptedChild


def test_should_stop_stops_every_process_and_begins_no_more(
    world: Callable[..., Runs], scripted: type[ScriptedChild]
) -> None:
    here = world("runs", "losses.pcl.weight=0", "losses.cp.weight=0")
    assert here.run(jobs=2, should_stop=lambda: len(here.memory.epochs) == 2) is None
    assert sorted(here.memory.on_progress) == [
        ("begins", "v0 s0"),
        ("begins", "v1 s0"),
        ("stopped", "v0 s0"),
        ("stopped", "v1 s0"),
    ]
    assert sorted(here.memory.epochs) == [("v0 s0", 7), ("v1 s0", 7)]
    assert [child.is_stopped for child in scripted.children] == [True, True]


def test_a_child_that_dies_is_an_error_and_the_others_are_stopped(
    world: Callable[..., Runs], scripted: type[ScriptedChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted, "dies", True)
    here = world()
    with pytest.raises(AthweError, match=r"run demo/athwe/variant-0-s0-\w+ must finish. .*fewer --jobs"):
        here.run(jobs=2)
    assert here.memory.on_progress == [("begins", "v0 s0"), ("begins", "v1 s0"), ("failed", "v0 s0")]
    assert [child.is_joined for child in scripted.children] == [False, True]


@pytest.mark.long
def test_a_child_that_is_killed_is_reported_and_the_same_call_continues(
    world: Callable[..., Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(both=("training.epochs=500",))

    def kill_once(planned: PlannedRun, record: dict[str, Any], *, is_best: bool) -> None:
        os.kill(int(here.folder_of(planned).manifest()["process"]), signal.SIGKILL)

    monkeypatch.setattr(here.memory, "epoch_ends", kill_once)
    with pytest.raises(AthweError, match=r"run demo/athwe/\S+ must finish: its process ended with exit code -9"):
        here.run(jobs=2)
    assert here.memory.on_progress[-1][0] == "failed"
    assert [run.action for run in here.plan().runs] == ["resumed", "resumed"]


def test_a_run_that_another_process_holds_is_an_error_before_anything_is_trained(
    world: Callable[..., Runs], tiny_config: MakeConfig, small: PreparedDataset
) -> None:
    here = world()
    held = create_run(
        here.folder, here.experiment.variants[1].config, small, preset="athwe", name="held", command="test"
    )
    with (
        held.locked(),
        pytest.raises(CheckpointError, match=f"run demo/athwe/held is being trained by process {os.getpid()}"),
    ):
        here.run()
    assert here.memory.on_progress == []


def test_an_error_in_this_process_passes_through(world: Callable[..., Runs]) -> None:
    here = world("runs", "training.lr=1e30")
    with pytest.raises(NonFiniteLossError):
        here.run()
    assert here.memory.on_progress[-1] == ("failed", "v1 s0")


def test_no_process_at_all_is_refused(world: Callable[..., Runs]) -> None:
    with pytest.raises(ConfigError, match="--jobs must be at least 1, got 0"):
        world().run(jobs=0)


@pytest.mark.parametrize(
    ("count", "device", "jobs"), [(0, "auto", 1), (1, "auto", 1), (2, "cpu", 1), (2, "cuda:1", 1), (3, "auto", 3)]
)
def test_one_run_for_each_device_where_none_is_asked_for(
    count: int, device: str, jobs: int, world: Callable[..., Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert default_jobs(world(both=(f"training.device={device}",)).plan()) == jobs


class Elsewhere:
    """A launcher of one slot whose runs are trained when somebody waits for them. It remembers what it was given."""

    jobs = 1

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []

    def start(self, document: dict[str, Any], *, slot: int, messages: Messages) -> LocalRun:
        assert slot == 0
        self.documents.append(document)
        return LocalRun(document, messages)


class LocalRun:
    """A run that is trained here, at once; its parent wants nothing."""

    def __init__(self, document: dict[str, Any], messages: Messages) -> None:
        self.messages = messages
        self.answer = train_run(document, self)  # type: ignore[arg-type]
        messages.put((self, None))  # type: ignore[arg-type]

    def send(self, event: str, **fields: Any) -> None:
        self.messages.put((self, Message(event, fields)))  # type: ignore[arg-type]

    def wants_stop(self) -> bool:
        return False

    def stop(self) -> None: ...

    def join(self) -> None: ...

    def result(self, subject: str, *, remedy: str) -> dict[str, bool]:
        return self.answer


def test_a_launcher_is_given_whole_paths_and_trains_one_run_after_the_other_in_its_slot(
    world: Callable[..., Runs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = world(both=("training.epochs=1",))
    here.folder = Path("runs")
    launcher = Elsewhere()
    found = run_all(here.plan(), jobs=2, command="", listener=here.memory, launcher=launcher)
    assert found is not None
    assert [run.manifest()["status"] for run in found.values()] == ["finished"] * 2
    runs = [tmp_path / "runs" / "demo" / "athwe" / planned.name for planned in here.plan().runs]
    prepared_dir = here.prepared.path.parent.parent
    assert [document["run"] for document in launcher.documents] == [str(path) for path in runs]
    assert {document["prepared_dir"] for document in launcher.documents} == {str(prepared_dir)}
    assert here.memory.on_progress == [
        ("begins", "v0 s0"),
        ("finished", "v0 s0"),
        ("begins", "v1 s0"),
        ("finished", "v1 s0"),
    ]
    assert here.memory.epochs == [("v0 s0", 1), ("v1 s0", 1)]
