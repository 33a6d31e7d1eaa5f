"""Runs on a real Ray cluster of two nodes on this machine, one of which is killed: `pytest -m engines`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from experiment_cases import Memory, experiment_of

from athwe_core.analysis.experiments.execute import run_all
from athwe_core.analysis.experiments.plan import Plan, PlannedRun, plan_experiment
from athwe_core.analysis.experiments.ray_cluster import load_ray
from athwe_core.analysis.experiments.ray_launcher import RayLauncher, ray_launcher
from athwe_core.analysis.tuning.search_space import parse_space
from athwe_core.analysis.tuning.tune import Tuning, tune
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError, NonFiniteLossError
from athwe_core.runs.find import FINISHED, INTERRUPTED, RunFolder
from athwe_core.warning_filters import warnings_as

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
MakeConfig = Callable[..., Config]
EVENTS = ("trial_begins", "trial_ends", "epoch_begins", "step_ends", "epoch_ends", "note")
ENDLESS = ("training.epochs=100000", "training.patience=100000")


class Cluster:
    """A head without CPUs, to which this process is connected, and two nodes with one CPU each."""

    def __init__(self) -> None:
        load_ray()
        from ray.cluster_utils import Cluster as RayCluster

        self.ray = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.ray.add_node(num_cpus=1) for _ in range(2)]

    def node_of(self, process: int) -> Any:
        """The node that trains a run in this process."""
        above = {parent.pid for parent in psutil.Process(process).parents()}
        return next(node for node in self.nodes if self.raylet(node) in above)

    @staticmethod
    def raylet(node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)

    def kill(self, node: Any) -> None:
        """The node's processes are gone at once; another node comes later."""
        self.nodes.remove(node)
        self.ray.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self.ray.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    environment = dict(os.environ)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}
    with warnings_as("ignore"):
        found = Cluster()
        yield found
        found.close()
    os.environ.clear()
    os.environ |= environment


class Here:
    """An experiment in a folder of its own."""

    def __init__(self, folder: Path, prepared: PreparedDataset, configs: list[Config]) -> None:
        self.folder, self.prepared, self.memory = folder, prepared, Memory()
        self.experiment = experiment_of(*configs)

    def plan(self) -> Plan:
        return plan_experiment(self.experiment, self.prepared, runs_dir=self.folder)

    def run(self, launcher: RayLauncher | None, should_stop: Callable[[], bool] = lambda: False) -> Any:
        return run_all(
            self.plan(), jobs=2, command="", listener=self.memory, should_stop=should_stop, launcher=launcher
        )

    def folder_of(self, planned: PlannedRun) -> RunFolder:
        return RunFolder(self.folder / "demo" / "athwe" / planned.name)

    def statuses(self) -> list[str]:
        return [self.folder_of(planned).manifest()["status"] for planned in self.plan().runs]

    def results(self) -> list[dict[str, Any]]:
        found = [self.folder_of(planned).manifest()["results"] for planned in self.plan().runs]
        return [{split: each[split] for split in ("validation", "test")} for each in found]


@pytest.fixture
def make(tmp_path: Path, small: PreparedDataset, tiny_config: MakeConfig) -> Callable[..., Here]:
    def world(name: str, *both: str, other: tuple[str, ...] = ("losses.pcl.weight=0",)) -> Here:
        return Here(tmp_path / name, small, [tiny_config(*both), tiny_config(*both, *other)])

    return world


@pytest.fixture
def launcher(cluster: Cluster, small: PreparedDataset, tmp_path: Path) -> Callable[[Here], Any]:
    def connect(here: Here) -> Any:
        configs = [run.config for run in here.plan().runs]
        folders = {"--runs": here.folder, "--prepared": small.path.parent.parent}
        return ray_launcher(configs, jobs=None, folders=folders, address=cluster.ray.address)

    return connect


def test_metrics_are_those_of_runs_here(make: Callable[..., Here], launcher: Callable[[Here], Any]) -> None:
    alone, here = make("alone"), make("here")
    alone.run(None)
    with launcher(here) as launched:
        assert str(launched) == "Ray with 3 nodes: 2 runs at once, 1 CPU each"
        assert here.run(launched) is not None
    assert here.results() == alone.results()
    assert sorted(here.memory.epochs) == sorted(alone.memory.epochs)
    assert sorted(here.memory.on_progress[:2]) == [("begins", "v0 s0"), ("begins", "v1 s0")]
    assert not list(here.folder.glob(".athwe*")), "the file that nodes looked for is gone"


def test_a_stop_saves_all_and_they_go_on(make: Callable[..., Here], launcher: Callable[[Here], Any]) -> None:
    alone, here = make("alone", "training.epochs=10"), make("here", "training.epochs=10")
    alone.run(None)
    with launcher(here) as launched:
        assert here.run(launched, should_stop=lambda: len(here.memory.epochs) >= 2) is None
    assert here.statuses() == [INTERRUPTED] * 2
    assert sorted(here.memory.on_progress[2:]) == [("stopped", "v0 s0"), ("stopped", "v1 s0")]
    with launcher(here) as launched:
        assert here.run(launched) is not None
    assert here.results() == alone.results()


def test_a_failure_is_what_it_is_after_the_others_are_saved(
    make: Callable[..., Here], launcher: Callable[[Here], Any]
) -> None:
    here = make("here", *ENDLESS, other=("training.lr=1e30",))
    refused = pytest.raises(NonFiniteLossError, match=r"loss term \w+ at epoch 1, step \d+ must be finite")
    with launcher(here) as launched, refused:
        here.run(launched)
    assert here.statuses()[0] == INTERRUPTED
    assert here.memory.on_progress[-1] == ("failed", "v1 s0")


def test_a_folder_that_nodes_do_not_see_is_refused(
    make: Callable[..., Here], launcher: Callable[[Here], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make("here")
    monkeypatch.chdir(tmp_path)
    here.folder = Path("/proc/self/cwd/runs")  # another folder in every process
    with (
        pytest.raises(ConfigError, match=r"--runs must be on a file system that all nodes share: node 127\S+ does not"),
        launcher(here),
    ):
        pass


def test_trials_of_a_study_are_those_of_one_after_the_other(
    small: PreparedDataset, tiny_config: MakeConfig, cluster: Cluster, tmp_path: Path
) -> None:
    base = tiny_config("training.epochs=1")
    space = parse_space({"training.lr": {"low": 0.001, "high": 0.1, "log": True}}, base)
    folders = {"--runs": tmp_path, "--prepared": small.path.parent.parent}

    def trials(name: str, launcher: RayLauncher | None) -> list[Any]:
        tuning = Tuning(space=space, base=base, prepared=small, runs_dir=tmp_path, preset="athwe", name=name, seed=0)
        ears = SimpleNamespace(**{event: lambda *_, **__: None for event in EVENTS})
        found = tune(tuning, trials=3, command="", listener=ears, launcher=launcher)  # type: ignore[arg-type]
        assert found is not None
        return [(trial["state"], trial["value"], trial["values"]) for trial in found["trials"]]

    with ray_launcher([base] * 3, jobs=None, folders=folders, address=cluster.ray.address) as launched:
        assert launched.jobs == 2
        there = trials("there", launched)
    assert there == trials("here", None)


def test_a_run_whose_node_is_killed_goes_on_elsewhere_from_its_checkpoint(
    make: Callable[..., Here], launcher: Callable[[Here], Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's process hangs and holds the run's lock while its node is already gone, and dies only then."""
    alone, here = make("alone", "training.epochs=12"), make("here", "training.epochs=12")
    alone.run(None)
    killed: list[str] = []
    remembers = here.memory.epoch_ends

    def kill_once(planned: PlannedRun, record: dict[str, Any], *, is_best: bool) -> None:
        remembers(planned, record, is_best=is_best)
        if not killed and record["epoch"] == 3:
            killed.append(planned.label)
            process = int(here.folder_of(planned).manifest()["process"])
            os.kill(process, signal.SIGSTOP)
            cluster.kill(cluster.node_of(process))
            Timer(3.0, os.kill, (process, signal.SIGKILL)).start()

    monkeypatch.setattr(here.memory, "epoch_ends", kill_once)
    with launcher(here) as launched:
        assert here.run(launched) is not None
    assert here.statuses() == [FINISHED] * 2
    assert here.results() == alone.results()
    (note,) = (text for text in here.memory.notes if "lost" in text)
    assert note.startswith(f"{killed[0]} s0: lost the process on ")
    epochs = [epoch for label, epoch in here.memory.epochs if label == f"{killed[0]} s0"]
    assert epochs == sorted(set(epochs)), "none was trained again"
    assert [what for what, _ in here.memory.on_progress] in (["begins", "begins", "finished", "finished"],)
