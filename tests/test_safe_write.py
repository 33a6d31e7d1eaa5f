"""Files and folders appear whole, and only what dead processes left unfinished is removed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors import SafetensorError

from athwe_core import safe_write
from athwe_core.safe_write import exchange, reason, remove_abandoned, replace_text, replacing, unfinished_folder

WRITE = """
import sys
from pathlib import Path
from athwe_core.safe_write import replacing, unfinished_folder
folder = Path(sys.argv[1])
with unfinished_folder(folder) as inside, replacing(folder / "file") as temporary:
    temporary.write_text("half")
    (inside / "half.npy").write_text("half")
    print(flush=True)
    input()
"""


@contextmanager
def other_writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun a folder and a file in `folder`, until its input ends."""
    command = [sys.executable, "-c", WRITE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_order_that_survives_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk before the name changes, and then the name is."""
    found: list[tuple[str, ...]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        found.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        found.append(("move", source.name, target.name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    replace_text(tmp_path / "manifest.json", "{}")
    temporary = found[0][1]
    assert temporary.startswith(f".manifest.json.unfinished-{os.getpid()}-")
    assert found == [("sync", temporary), ("move", temporary, "manifest.json"), ("sync", tmp_path.name)]


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_threads_that_replace_one_file_leave_one_whole_content(tmp_path: Path) -> None:
    texts = [character * 100_000 for character in "abcd"]
    threads = [threading.Thread(target=replace_text, args=(tmp_path / "file", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in texts
    assert names(tmp_path) == {"file"}


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("of the user")
    with other_writer(tmp_path) as other:
        begun = names(tmp_path)
        assert len(begun) == 5  # a folder and a file, the lock file of each, and the user's file
        remove_abandoned(tmp_path)
        assert names(tmp_path) == begun
        other.send_signal(signal.SIGKILL)
    remove_abandoned(tmp_path)
    assert names(tmp_path) == {".hidden"}


def test_what_an_older_version_left_without_a_lock_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-a1b2").mkdir()
    (tmp_path / ".unfinished-a1b2" / "half.npy").write_bytes(b"half")
    (tmp_path / ".manifest.json.unfinished-77").write_text("half")
    with unfinished_folder(tmp_path) as own:
        assert names(tmp_path) == {own.name, f"{own.name}.lock"}
    assert names(tmp_path) == set()


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".unfinished-1").symlink_to(tmp_path / "kept")
    remove_abandoned(tmp_path / "folder")
    assert names(tmp_path) == {"kept", "folder"}
    assert names(tmp_path / "folder") == set()


def test_a_parent_that_another_process_removes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed = []

    def remove(folder: Path) -> None:
        if not removed:
            removed.append(folder)
            shutil.rmtree(folder)

    monkeypatch.setattr(safe_write, "remove_abandoned", remove)
    with unfinished_folder(tmp_path / "parent") as path:
        assert path.is_dir()
    assert removed == [tmp_path / "parent"]


def test_a_missing_file_inside_is_an_error_of_the_caller(tmp_path: Path) -> None:
    def fail() -> None:
        with unfinished_folder(tmp_path / "parent"):
            shutil.rmtree(tmp_path / "parent")
            raise FileNotFoundError("mine")

    with pytest.raises(FileNotFoundError, match="mine"):
        fail()


class TestExchange:
    def test_two_folders_swap_names(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "content").write_text(name)
        assert exchange(tmp_path / "a", tmp_path / "b") == sys.platform.startswith("linux")
        if sys.platform.startswith("linux"):
            assert [(tmp_path / name / "content").read_text() for name in ("a", "b")] == ["b", "a"]

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such call")
    def test_a_name_that_does_not_exist_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(FileNotFoundError):
            exchange(tmp_path / "a", tmp_path / "b")
        assert names(tmp_path) == {"a"}

    def test_another_system_cannot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        assert not exchange(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (SafetensorError("Error while serializing: I/O error: No space left (os error 28)"), "No space left on device"),
        (OSError("6144 requested and 6112 written"), "only a part was written: 6144 requested and 6112 written"),
        (ValueError("first\nsecond"), "first"),
        (ValueError(), "ValueError"),
    ],
)
def test_why_a_file_could_not_be_written_in_a_few_words(error: Exception, text: str) -> None:
    assert reason(error) == text
