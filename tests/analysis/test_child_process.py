"""Child processes: messages and results, errors, kills, signals, and the places where multiprocessing cannot be used."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from athwe_core.analysis.child_process import (
    ChildError,
    ChildProcess,
    Message,
    describe_exception,
    rebuild_exception,
    run_together,
)
from athwe_core.errors import AthweError, CheckpointError, ConfigError, DataError, NonFiniteLossError

Messages = SimpleQueue[tuple[ChildProcess, Message | None]]
ROOT = Path(__file__).parents[2]
WORK = """
import os, signal, sys, time
from athwe_core.analysis.child_process import serve
from athwe_core.errors import ConfigError
print("printed while it is imported")


def work(document, parent):
    print("printed by a library")
    what = document.get("what") or os.environ["MODE"]
    if what == "count":
        for number in range(3):
            parent.send("number", number=number)
        threads, device = int(os.environ["OMP_NUM_THREADS"]), os.environ.get("CUDA_VISIBLE_DEVICES")
        return {"threads": threads, "device": device, "x": float("inf")}
    if what == "refuse":
        raise ConfigError("model.dropout", "must be in [0, 1)", 1.5, "Use 0.2")
    if what == "break":
        raise ZeroDivisionError("by zero")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    parent.send("ready")
    while what == "never" or not parent.wants_stop():
        time.sleep(0.01)
    return {"stopped": True}


if __name__ == "__main__":
    serve(work)
"""
Start = Callable[..., ChildProcess]


@pytest.fixture
def messages() -> Messages:
    return SimpleQueue()


@pytest.fixture
def start(tmp_path: Path, messages: Messages, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a child that does the named piece of `WORK`."""
    (tmp_path / "some_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(what: str, **environment: str) -> ChildProcess:
        return ChildProcess("some_work", {"what": what}, threads=3, messages=messages, environment=environment)

    return make


def received(messages: Messages) -> list[Message]:
    """All messages of one child until it has ended."""
    found = []
    while (message := messages.get(timeout=60)[1]) is not None:
        found.append(message)
    return found


def test_messages_and_result_and_nothing_that_is_printed(start: Start, messages: Messages, capfd: Any) -> None:
    child = start("count", CUDA_VISIBLE_DEVICES="7")
    assert received(messages) == [Message("number", {"number": number}) for number in range(3)]
    assert child.result("it", remedy="") == {"threads": 3, "device": "7", "x": float("inf")}
    assert "printed by a library" in capfd.readouterr().err


def test_an_error_of_athwe_stays_what_it_is(start: Start, messages: Messages) -> None:
    child = start("refuse")
    assert received(messages) == []
    with pytest.raises(ConfigError, match=r"^model.dropout must be in \[0, 1\), got 1.5. Use 0.2$") as caught:
        child.result("it", remedy="")
    assert caught.value.exit_code == 2


def test_any_other_error_is_one_line_and_has_its_traceback_as_a_note(start: Start, messages: Messages) -> None:
    child = start("break")
    received(messages)
    with pytest.raises(ChildError, match=r"^run a was ended by ZeroDivisionError: by zero. athwe --debug") as caught:
        child.result("run a", remedy="")
    assert "some_work.py" in caught.value.__notes__[0]


def test_a_child_that_is_killed_says_so(start: Start, messages: Messages) -> None:
    child = start("die")
    assert received(messages) == []
    with pytest.raises(AthweError, match=r"^it must finish: its process ended with exit code -9. Try again$"):
        child.result("it", remedy="Try again")


def test_stop_ends_the_work_and_signals_do_not(start: Start, messages: Messages) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    child = start("wait")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    for number in (signal.SIGINT, signal.SIGTERM):  # before it is ready, and after
        os.kill(child.pid, number)
    assert messages.get(timeout=60)[1] == Message("ready", {})
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid, number)
    time.sleep(0.1)
    child.stop()
    child.stop()
    assert received(messages) == []
    assert child.result("it", remedy="") == {"stopped": True}


def test_a_child_that_does_not_stop_is_killed(start: Start) -> None:
    child = start("never")
    child.stop()
    assert child.join(0.1) == -signal.SIGKILL


def test_a_child_stops_when_its_parent_is_gone(start: Start, tmp_path: Path) -> None:
    code = f"""
import queue, sys, time
sys.path.insert(0, {str(tmp_path)!r})
from athwe_core.analysis.child_process import ChildProcess
messages = queue.SimpleQueue()
print(ChildProcess("some_work", {{"what": "wait"}}, threads=1, messages=messages).pid, flush=True)
messages.get()
print("ready", flush=True)
time.sleep(60)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and not is_zombie(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    """Whether it has ended and only waits for its parent, which in a container nobody may be."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_several_at_once_give_their_results_in_order(start: Start) -> None:
    environments = [{"CUDA_VISIBLE_DEVICES": device} for device in ("4", "2")]
    found = run_together("some_work", {"what": "count"}, environments, threads=3, subject="it", remedy="")
    assert [result["device"] for result in found] == ["4", "2"]


def test_when_one_of_several_fails_the_others_are_killed(start: Start) -> None:
    environments = [{"MODE": "never"}, {"MODE": "break"}]
    with pytest.raises(ChildError, match="it was ended by ZeroDivisionError"):
        run_together("some_work", {}, environments, threads=1, subject="it", remedy="")


def count_in_child(queue: Any) -> None:
    messages: Messages = SimpleQueue()
    child = ChildProcess("some_work", {"what": "count"}, threads=1, messages=messages)
    received(messages)
    queue.put(child.result("it", remedy="")["threads"])


def test_it_works_in_a_daemonic_process(start: Start) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=count_in_child, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == 1
    process.join()


def test_it_works_in_a_script_from_standard_input(start: Start, tmp_path: Path) -> None:
    script = """
from athwe_core.analysis.child_process import run_together
print(run_together("some_work", {"what": "count"}, [{}], threads=2, subject="it", remedy="")[0]["threads"])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-"], input=script, capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "2\n", done.stderr


def test_a_module_in_the_working_folder_does_not_take_the_place_of_a_library(
    start: Start, messages: Messages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(folder)
    child = start("count")
    received(messages)
    assert child.result("it", remedy="")["threads"] == 3


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("model.dropout", "must be in [0, 1)", (1.5, 2), "Use 0.2"),
        DataError("row 3", "must be a number"),
        CheckpointError("run a", "must be readable", Path("x")),
        NonFiniteLossError("loss term ce", "must be finite", float("nan")),
        AthweError("run a/b/c", "must end"),
    ],
)
def test_errors_of_athwe_go_through_json(error: AthweError) -> None:
    found = rebuild_exception(json.loads(json.dumps(describe_exception(error))), "it")
    assert type(found) is type(error)
    assert str(found) == str(error)
    parts = ("name", "rule", "remedy", "exit_code")
    assert [getattr(found, part) for part in parts] == [getattr(error, part) for part in parts]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file", "weights"), "FileNotFoundError: [Errno 2] No such file: 'weights'"),
        (torch.OutOfMemoryError("no room\nfor this"), "torch.OutOfMemoryError: no room"),
        (ValueError(), "ValueError"),
    ],
)
def test_other_errors_are_one_line_with_their_type(error: Exception, line: str) -> None:
    found = rebuild_exception(describe_exception(error), "run a")
    assert str(found) == f"run a was ended by {line}. athwe --debug shows where it arose"
    assert found.exit_code == 1
