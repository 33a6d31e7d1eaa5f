"""A worker's end of the pipe, and errors that go through it."""

import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch

from athwe_core.analysis.experiments import worker_process
from athwe_core.analysis.experiments.worker_process import Worker, rebuild_exception
from athwe_core.errors import AthweError, ConfigError, DataError, NonFiniteLossError
from athwe_core.runs.find import RunFolder


def sent(error: Exception) -> Exception:
    """The error of run a/b/c as it comes out of a pipe."""
    return rebuild_exception(*pickle.loads(pickle.dumps(worker_process._described(error, RunFolder(Path("a/b/c"))))))


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("model.dropout", "must be in [0, 1)", 1.5, "Use 0.2"),
        DataError("row 3", "must be a number"),
        NonFiniteLossError("loss term ce", "must be finite", float("inf")),
        AthweError("run a/b/c", "must end"),
    ],
)
def test_an_error_that_a_user_can_mend_stays_what_it_is(error: AthweError) -> None:
    found = sent(error)
    assert type(found) is type(error)
    assert isinstance(found, AthweError)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
    assert found.exit_code == error.exit_code


def test_an_error_of_the_system_keeps_its_number_and_file() -> None:
    found = sent(FileNotFoundError(2, "No such file", "weights"))
    assert isinstance(found, FileNotFoundError)
    assert (found.errno, found.strerror, found.filename) == (2, "No such file", "weights")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (torch.OutOfMemoryError("no room\nfor this"), "torch.OutOfMemoryError: no room"),
        (ValueError(), "ValueError"),
    ],
)
def test_any_other_error_is_one_line_with_its_type_and_has_its_traceback_as_a_note(error: Exception, line: str) -> None:
    try:
        raise error
    except type(error) as raised:
        found = sent(raised)
    assert isinstance(found, AthweError)
    assert str(found) == f"run a/b/c was ended by {line}. athwe --debug shows where it arose"
    assert found.exit_code == 1
    assert "test_worker_process.py" in found.__notes__[0]


def test_a_process_that_is_killed_shows_at_once_and_takes_no_more_orders(tmp_path: Path) -> None:
    here = Worker(tmp_path, threads=1, visible_device=None)
    here._process.kill()
    assert here.receive() is None
    assert here.exit_code() == -9
    here.train(RunFolder(tmp_path))
    here.stop()
    here.join()
    assert here.connection.closed


def test_signals_of_the_terminal_are_the_parents_and_a_stuck_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "LAST_SECONDS", 0.05)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    here = Worker(tmp_path, threads=1, visible_device=None)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    pid = here._process.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    time.sleep(0.2)
    assert here._process.is_alive()
    here.join()
    assert here._process.exitcode == -signal.SIGKILL
