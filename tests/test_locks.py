"""Lock files: one holder at a time, who it is and since when, and what a dead one leaves."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from athwe_core.locks import NO_LOCKS, HeldError, Owner, held, read_owner, remove_lost

HOLD = """
import sys
from pathlib import Path
from athwe_core.locks import held
with held(Path(sys.argv[1])):
    print(flush=True)
    input()
"""
COUNT = """
import os, sys
from pathlib import Path
from athwe_core.locks import HeldError, held
folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
while wanted:
    try:
        with held(folder / "lock"):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            number = int((folder / "number").read_text())
            (folder / "number").write_text(str(number + 1))
            os.unlink(folder / "inside")
            wanted -= 1
    except HeldError:
        pass
"""


@contextmanager
def other_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def refused(path: Path) -> HeldError:
    with pytest.raises(HeldError) as caught, held(path):
        pytest.fail("two holders")
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture(params=sorted(NO_LOCKS))
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that answers flock with an error."""

    def refuse(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def dead_process() -> int:
    """Number of a process that ran."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def owner_file(path: Path) -> Path:
    return path.with_name("lock.owner")


def leave(path: Path, process: int, host: str = os.uname().nodename) -> None:
    """What a holder leaves behind on a file system without locks."""
    path.write_text(f"{process}\n{host}\n")
    since = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    owner_file(path).write_text(json.dumps({"process": process, "host": host, "since": since}))


def test_the_second_of_two_processes_is_refused_with_owner_and_age(path: Path) -> None:
    with other_holder(path) as other:
        error = refused(path)
        assert error.owner is not None
        assert error.owner.process == other.pid
        text = rf"process {other.pid}, for \d+ s \(since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC\)"
        assert re.fullmatch(text, str(error))
        assert error.remedy == "Wait for it, or end it first"
        assert read_owner(path) == error.owner
        other.communicate("\n")
        assert other.returncode == 0
    assert not path.exists()
    with held(path):
        pass


def test_what_a_killed_holder_left_is_taken_over(path: Path) -> None:
    with other_holder(path) as other:
        other.send_signal(signal.SIGKILL)
    assert path.exists()
    assert owner_file(path).exists()
    with held(path):
        owner = read_owner(path)
        assert owner is not None
        assert owner.process == os.getpid()
    assert not path.exists()


def test_a_second_hold_in_the_same_process_is_refused_too(path: Path) -> None:
    with held(path):
        assert refused(path).owner == read_owner(path)
        assert path.exists()


def test_an_error_inside_lets_go(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(path):
        raise ZeroDivisionError
    with held(path):
        pass


def test_of_many_processes_one_is_inside_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path), "40"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert (tmp_path / "number").read_text() == "120"
    assert {entry.name for entry in tmp_path.iterdir()} == {"number"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h 0 min"), (90_061, "25 h 1 min")],
)
def test_ages_in_words(seconds: int, text: str) -> None:
    owner = Owner(1, os.uname().nodename, datetime.now(UTC) - timedelta(seconds=seconds))
    assert str(owner).startswith(f"process 1, for {text} (since ")


def test_another_host_is_named(path: Path) -> None:
    owner = Owner(7, "elsewhere", datetime.now(UTC))
    assert str(owner).startswith("process 7 on elsewhere, for 0 s")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"process": 1}',
        '{"process": -1, "host": "a", "since": "2026-01-01T00:00:00+00:00"}',
        '{"process": 99999999999, "host": "a", "since": "2026-01-01T00:00:00+00:00"}',
        '{"process": 1, "host": "a\\u001b[31m", "since": "2026-01-01T00:00:00+00:00"}',
        '{"process": 1, "host": "a", "since": "2026-01-01T00:00:00"}',
        '{"process": 1, "host": "a", "since": "yesterday"}',
    ],
)
def test_a_signature_that_is_none_names_nobody(content: str, path: Path) -> None:
    owner_file(path).write_text(content)
    assert read_owner(path) is None
    with held(path):  # nobody holds it: it is taken over
        assert read_owner(path) is not None
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_goes_while_the_lock_is_held_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with held(folder / "lock"):
        shutil.rmtree(folder)
    assert not folder.exists()


def test_a_lock_of_another_that_took_the_place_stays(path: Path) -> None:
    with held(path):
        path.unlink()
        path.write_text("of another")
    assert path.read_text() == "of another"


def test_a_full_disk_leaves_no_unsigned_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"), held(path):
        pytest.fail("held")
    assert list(path.parent.iterdir()) == []


@pytest.mark.usefixtures("without_locks")
class TestWithoutLocks:
    """Where the file system knows no locks the file itself is the lock."""

    def test_a_living_holder_is_respected(self, path: Path) -> None:
        with held(path):
            error = refused(path)
            assert error.owner is not None
            assert error.owner.process == os.getpid()
            assert error.remedy == f"Wait for it, or delete {path} if that process is gone"
        assert not path.exists()

    def test_a_dead_holder_is_not(self, path: Path) -> None:
        leave(path, dead_process())
        with held(path):
            owner = read_owner(path)
            assert owner is not None
            assert owner.process == os.getpid()
        assert list(path.parent.iterdir()) == []

    def test_nothing_is_known_of_a_holder_on_another_host(self, path: Path) -> None:
        leave(path, dead_process(), host="elsewhere")
        error = refused(path)
        assert re.match(r"process \d+ on elsewhere, for 3 h 0 min \(since ", str(error))
        assert f"delete {path}" in error.remedy
        assert path.exists()

    def test_the_remedy_works(self, path: Path) -> None:
        leave(path, dead_process(), host="elsewhere")
        refused(path)
        path.unlink()
        with held(path):
            pass

    def test_who_knows_that_a_holder_is_gone_removes_its_lock_and_no_other(self, path: Path) -> None:
        leave(path, 7, host="elsewhere")
        for process, host in ((8, "elsewhere"), (7, "somewhere")):
            remove_lost(path, process=process, host=host)
            assert path.exists()
        remove_lost(path, process=7, host="elsewhere")
        assert list(path.parent.iterdir()) == []
        remove_lost(path, process=7, host="elsewhere")

    def test_an_unsigned_file_is_of_another_process(self, path: Path) -> None:
        path.write_text("")
        error = refused(path)
        assert str(error) == "another process"
        assert f"delete {path}" in error.remedy


def test_where_the_file_system_has_locks_it_releases_them_itself(path: Path) -> None:
    with held(path):
        remove_lost(path, process=os.getpid(), host=os.uname().nodename)
        assert path.exists()
        refused(path)


def test_waiting_for_another_holder(path: Path) -> None:
    with other_holder(path) as other:
        assert other.stdin is not None
        threading.Timer(0.3, other.stdin.close).start()
        with held(path, wait_seconds=60):
            owner = read_owner(path)
            assert owner is not None
            assert owner.process == os.getpid()
    with held(path):
        began = time.monotonic()
        with pytest.raises(HeldError), held(path, wait_seconds=0.2):
            pytest.fail("two holders")
        assert time.monotonic() - began >= 0.2


def test_another_error_of_the_system_comes_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"), held(path):
        pytest.fail("held")
