"""Runs as actors: the actor itself, and what the driver does when actors are lost, without Ray. With Ray: test_on_ray.py."""

import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from athwe_core.analysis.child_process import ChildError, Ending, Message
from athwe_core.analysis.experiments import ray_launcher
from athwe_core.analysis.experiments.execute import run_document
from athwe_core.analysis.experiments.launch import Messages
from athwe_core.analysis.experiments.ray_cluster import Share
from athwe_core.analysis.experiments.ray_launcher import STOPPED, RayLauncher, RayRun, RunActor
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import AthweError, ConfigError
from athwe_core.runs.find import create_run

EPOCH = Message("epoch_ends", {"record": {"epoch": 1}, "is_best": True})
FINISHED = Ending(0, Message("result", {"finished": True}))


class LostError(Exception):
    """Stands for ray's error about an actor that is gone."""


class UnavailableError(LostError):
    """Stands for ray's error about an actor that did not answer."""


UNTIL_STOPPED = "nothing until it is asked to stop"


class FakeActor:
    """Follows a script: each step is what `messages` gives (messages, ending), an error to raise, or UNTIL_STOPPED."""

    def __init__(self, script: list[Any], ray: "FakeRay") -> None:
        self.script, self.ray, self.is_killed = script, ray, False
        self.start, self.messages, self.stop = (
            SimpleNamespace(remote=call) for call in (self._start, self._messages, self._stop)
        )

    def _start(self, document: dict[str, Any], threads: int) -> Callable[[], Any]:
        self.ray.documents.append(document)
        return lambda: {"process": len(self.ray.documents), "host": f"host-{len(self.ray.documents)}"}

    def _messages(self, first: int) -> Callable[[], Any]:
        self.ray.fetched.append(first)

        def answer() -> Any:
            step = self.script.pop(0) if self.script else ([], STOPPED if self.ray.stops else None)
            if step is UNTIL_STOPPED:
                while not self.ray.stops:
                    time.sleep(0.001)
                step = ([], None)
            if isinstance(step, Exception):
                raise step
            return step

        return answer

    def _stop(self) -> None:
        self.ray.stops += 1


class FakeRay:
    """What `RayRun` uses of ray, with a script for each actor; a script of None is never placed."""

    exceptions = SimpleNamespace(RayActorError=LostError, ActorUnavailableError=UnavailableError)

    def __init__(self, *scripts: list[Any] | None) -> None:
        self.scripts = list(scripts)
        self.documents: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []
        self.fetched: list[int] = []
        self.actors: list[FakeActor] = []
        self.stops = 0

    def remote(self, **options: Any) -> Any:
        self.options.append(options)

        def make() -> FakeActor:
            self.actors.append(FakeActor(self.scripts.pop(0), self))  # type: ignore[arg-type]
            return self.actors[-1]

        return lambda kind: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def wait(self, refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        is_placed = self.actors[-1].script is not None
        time.sleep(0 if is_placed else 0.01)
        return (refs, []) if is_placed else ([], refs)

    def get(self, ref: Callable[[], Any]) -> Any:
        return ref()

    def kill(self, actor: FakeActor) -> None:
        actor.is_killed = True


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeRay], tuple[RayRun, Messages]]:
    def make(ray: FakeRay) -> tuple[RayRun, Messages]:
        monkeypatch.setattr(ray_launcher, "load_ray", lambda: ray)
        monkeypatch.setattr(ray_launcher, "POLL_SECONDS", 0.01)
        messages: Messages = SimpleQueue()
        launcher = RayLauncher(Share(jobs=2, cpus=3, gpus=1), num_nodes=2)
        return launcher.start({"run": "runs/demo/athwe/x"}, slot=0, messages=messages), messages

    return make


def received(messages: Messages) -> list[Message]:
    found = []
    while (message := messages.get(timeout=60)[1]) is not None:
        found.append(message)
    return found


Start = Callable[[FakeRay], tuple[RayRun, Messages]]


def test_messages_and_result_of_a_run_that_is_not_lost(start: Start) -> None:
    ray = FakeRay([([EPOCH], None), ([], None), ([EPOCH, EPOCH], FINISHED)])
    run, messages = start(ray)
    assert received(messages) == [EPOCH] * 3
    assert run.result("it", remedy="") == {"finished": True}
    assert ray.fetched == [0, 1, 1]
    assert ray.options == [{"num_cpus": 3, "num_gpus": 1, "max_concurrency": 3}]
    assert ray.documents == [{"run": "runs/demo/athwe/x", "lost": []}]
    assert ray.actors[0].is_killed


def test_an_answer_that_may_be_lost_is_fetched_again(start: Start) -> None:
    ray = FakeRay([([EPOCH], None), UnavailableError(), ([EPOCH], FINISHED)])
    run, messages = start(ray)
    assert received(messages) == [EPOCH] * 2
    assert run.result("it", remedy="") == {"finished": True}
    assert ray.fetched == [0, 1, 1]


def test_a_lost_run_goes_on_elsewhere_and_names_the_processes_that_had_it(start: Start) -> None:
    ray = FakeRay([([EPOCH], None), LostError()], [LostError()], [([], FINISHED)])
    run, messages = start(ray)
    texts = [message.fields.get("text") for message in received(messages)]
    assert texts == [
        None,
        "lost the process on host-1: goes on elsewhere from the last checkpoint",
        "lost the process on host-2: goes on elsewhere from the last checkpoint",
    ]
    assert run.result("it", remedy="") == {"finished": True}
    lost = [{"process": 1, "host": "host-1"}, {"process": 2, "host": "host-2"}]
    assert [document["lost"] for document in ray.documents] == [[], lost[:1], lost]


def test_a_run_that_is_lost_again_and_again_without_an_epoch_fails(start: Start) -> None:
    lost = LostError("The actor died.\n\tpid: 7\nIts node ran out of memory.")
    run, messages = start(FakeRay([([EPOCH], None), lost], [([EPOCH], None), lost], [lost], [lost]))
    received(messages)
    with pytest.raises(AthweError) as caught:
        run.result("it", remedy="")
    assert str(caught.value) == (
        "run demo/athwe/x was lost by 3 processes one after the other (Its node ran out of memory). "
        "Run the same command again; finished epochs are kept"
    )


def test_a_stop_reaches_the_actor_once(start: Start) -> None:
    ray = FakeRay([([EPOCH], None)])
    run, messages = start(ray)
    assert messages.get(timeout=60)[1] == EPOCH
    run.stop()
    run.stop()
    assert received(messages) == []
    assert run.result("it", remedy="") == {"finished": False}
    assert ray.stops == 1


def test_a_run_that_is_lost_while_it_stops_is_stopped(start: Start) -> None:
    ray = FakeRay([([EPOCH], None), UNTIL_STOPPED, LostError()])
    run, messages = start(ray)
    assert messages.get(timeout=60)[1] == EPOCH
    run.stop()
    received(messages)
    assert run.result("it", remedy="") == {"finished": False}
    assert len(ray.actors) == 1


def test_a_run_that_waits_for_a_place_says_so_and_can_be_stopped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "PATIENCE_SECONDS", 0.0)
    ray = FakeRay(None)
    run, messages = start(ray)
    note = messages.get(timeout=60)[1]
    assert note == Message("note", {"text": "waits for a node with 3 free CPUs and a GPU"})
    run.stop()
    assert received(messages) == []
    assert run.result("it", remedy="") == {"finished": False}
    assert ray.actors[0].is_killed


def test_any_other_error_of_ray_is_the_run_s(start: Start) -> None:
    run, messages = start(FakeRay([OSError("no route")]))
    received(messages)
    with pytest.raises(ChildError, match=r"^run x was ended by OSError: no route"):
        run.result("run x", remedy="")


def test_the_launcher_tells_what_each_run_has() -> None:
    assert str(RayLauncher(Share(2, 4, 1), num_nodes=3)) == "Ray with 3 nodes: 2 runs at once, 4 CPUs and a GPU each"
    assert str(RayLauncher(Share(1, 1, 0), num_nodes=1)) == "Ray with 1 node: 1 run at once, 1 CPU each"


def test_no_run_at_once_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="--jobs must be at least 1, got 0"),
        ray_launcher.ray_launcher([], jobs=0, folders={}, address=None),
    ):
        pass


def followed(actor: RunActor, first: int = 0) -> tuple[list[Message], Ending]:
    """Messages from `first` on, to the end."""
    found: list[Message] = []
    while True:
        new, ending = actor.messages(first + len(found))
        found += new
        if ending is not None:
            return found, ending


def test_an_actor_trains_a_run_in_a_child_which_can_be_stopped(
    tmp_path: Path, small: PreparedDataset, tiny_config: Callable[..., Config]
) -> None:
    config = tiny_config("training.epochs=100000", "training.patience=100000")
    run = create_run(tmp_path, config, small, preset="athwe", name="one", command="")
    document = run_document(run, small, ())
    actor = RunActor()
    process = actor.start(document, 1)["process"]
    new: list[Message] = []
    while not new:
        new, ending = actor.messages(0)
        assert ending is None
    assert new[0].event == "epoch_begins"
    assert actor.messages(0)[0][: len(new)] == new, "an answer that got lost is fetched again"
    while not run.last.exists():
        time.sleep(0.05)
    assert run.manifest()["process"] == process
    actor.stop()
    rest, ending = followed(actor, len(new))
    assert ending == Ending(0, Message("result", {"finished": False}))
    assert {"epoch_ends"} <= {message.event for message in rest}
