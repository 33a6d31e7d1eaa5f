"""A disk that is full, read-only, forbidden or gone: one line, the last good state intact, and later it goes on."""

import ctypes
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_runs import DEMO, SMALL, Disk, after_epoch, call, done, one_line

from athwe_core.data.store.dataset import list_versions, open_prepared
from athwe_core.runs.checkpoint import load_state
from athwe_core.runs.find import RunFolder

NAME = "demo/hm4sr/run"
TRAIN = ("train", "--dataset", "demo", "--name", "run", "--json", *SMALL)
RESUME = ("train", "--resume", NAME, "--json")
CAPABILITY_VERSION = 0x20080522
OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's right to write and read in spite of a file's mode."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of 100 users."""
    folder = tmp_path_factory.mktemp("world")
    assert call(folder, "prepare", *DEMO).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def expected(world: Path) -> tuple[dict[str, Any], bytes]:
    """Results and last weights of a run that nothing happened to."""
    found = done(call(world, *TRAIN))
    return found, weights(world / "runs")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 8 MiB."""
    disk = Disk(tmp_path / "disk", "8m")
    try:
        yield disk
    finally:
        disk.unmount()


def weights(runs: Path) -> bytes:
    return (RunFolder(runs / NAME).last / "weights.safetensors").read_bytes()


def epochs_saved(runs: Path) -> int:
    return int(load_state(RunFolder(runs / NAME).last)["progress"]["epoch"])


def unfinished(folder: Path) -> list[str]:
    """What nobody will finish."""
    return [str(path) for path in folder.rglob("*") if "unfinished" in path.name or path.suffix in (".new", ".old")]


def test_training_into_a_full_disk_keeps_the_last_epoch_and_goes_on_once_there_is_room(
    world: Path, expected: tuple[dict[str, Any], bytes], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        after_epoch(patched, disk.fill)
        full = call(world, *TRAIN, runs=disk.path)
    text = one_line(full, 3)
    assert "could not be written (" in text
    assert "No space left on device" in text
    assert "). The state before it is kept" in text
    assert full.stdout == ""
    assert epochs_saved(disk.path) == 1
    assert unfinished(disk.path) == []
    again = call(world, *RESUME, runs=disk.path)
    assert "No space left on device" in one_line(again, 3)
    assert epochs_saved(disk.path) == 1
    disk.remount("size=16m")
    assert done(call(world, *RESUME, runs=disk.path)) == expected[0]
    assert weights(disk.path) == expected[1]


@pytest.mark.slow
def test_a_disk_that_fills_at_any_byte_of_a_run(
    world: Path, expected: tuple[dict[str, Any], bytes], disk: Disk
) -> None:
    """From no room at all to almost enough: each time one line, and with room the same end."""
    refused = 0
    for kibibytes in range(4, 604, 20):
        disk.remount(f"size={kibibytes}k")
        one = call(world, *TRAIN, runs=disk.path)
        refused += one.exit_code != 0
        if one.exit_code != 0:
            assert "No space left on device" in one_line(one, 3), kibibytes
        disk.remount("size=16m")
        if one.exit_code != 0:
            has_run = (disk.path / NAME / "manifest.json").is_file()
            assert done(call(world, *(RESUME if has_run else TRAIN), runs=disk.path)) == expected[0], kibibytes
        assert weights(disk.path) == expected[1]
        assert unfinished(disk.path) == []
        shutil.rmtree(disk.path / "demo")
    assert refused >= 10


def test_preparing_into_a_full_disk_leaves_nothing_and_works_once_there_is_room(tmp_path: Path, disk: Disk) -> None:
    disk.remount("size=64k")
    full = call(tmp_path, "prepare", *DEMO, prepared=disk.path)
    reasons = "No space left on device|only a part was written: .*"  # the second ones are numpy's
    assert re.search(rf"could not be written \(({reasons})\)\. What was there is kept", one_line(full, 3))
    assert list(disk.path.iterdir()) == []
    disk.remount("size=16m")
    assert call(tmp_path, "prepare", *DEMO, prepared=disk.path).exit_code == 0
    assert open_prepared("demo", prepared_dir=disk.path).num_users == 100


def test_preparing_again_into_a_full_disk_leaves_the_version_before(tmp_path: Path, disk: Disk) -> None:
    assert call(tmp_path, "prepare", *DEMO, prepared=disk.path).exit_code == 0
    before = open_prepared("demo", prepared_dir=disk.path).version
    disk.fill()
    full = call(tmp_path, "prepare", *DEMO[:2], "--users", "120", "--items", "100", prepared=disk.path)
    assert re.search(r"could not be written \((No space left|only a part was written)", one_line(full, 3))
    assert list_versions("demo", prepared_dir=disk.path) == [before]
    assert open_prepared("demo", prepared_dir=disk.path).version == before
    assert unfinished(disk.path) == []
    assert call(tmp_path, "audit", "--dataset", "demo", prepared=disk.path).exit_code == 0


def test_a_read_only_disk_is_said_in_one_line_and_nothing_changes(
    world: Path, expected: tuple[dict[str, Any], bytes], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        after_epoch(patched, disk.fill)
        one_line(call(world, *TRAIN, runs=disk.path), 3)
    disk.remount("ro,size=16m")
    for arguments in (RESUME, (*TRAIN[:4], "other", *TRAIN[5:])):
        assert "Read-only file system" in one_line(call(world, *arguments, runs=disk.path), 3)
    prepare = call(world, "prepare", *DEMO, prepared=disk.path)
    assert "could not be written (Read-only file system)" in one_line(prepare, 3)
    disk.remount("rw,size=16m")
    assert done(call(world, *RESUME, runs=disk.path)) == expected[0]
    assert weights(disk.path) == expected[1]


@contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Nobody may write there: root, who always may, does without that right meanwhile."""
    folder.chmod(0o555)
    libc, header, rights = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if is_root := os.geteuid() == 0:
        assert libc.capget(header, rights) == 0
        effective = rights[0]
        rights[0] &= ~OVERRIDE
        assert libc.capset(header, rights) == 0
    try:
        yield
    finally:
        if is_root:
            rights[0] = effective
            assert libc.capset(header, rights) == 0
        folder.chmod(0o755)


def test_missing_permission_is_said_in_one_line(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "prepared", tmp_path / "prepared")
    places = {name: tmp_path / name for name in ("prepared", "runs")}
    places["runs"].mkdir()
    prepare = ("prepare", *DEMO, "--seed", "1")
    for command, closed in ((TRAIN, places["runs"]), (prepare, places["prepared"] / "demo")):
        with without_permission(closed):
            found = call(tmp_path, *command, **places)
        assert "Permission denied" in one_line(found, 3)
    assert list(places["runs"].iterdir()) == []
    assert len(list_versions("demo", prepared_dir=places["prepared"])) == 1


def test_prepared_data_that_vanish_while_a_run_trains(
    world: Path, expected: tuple[dict[str, Any], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"prepared": tmp_path / "prepared", "runs": tmp_path / "runs"}
    shutil.copytree(world / "prepared", places["prepared"])
    with monkeypatch.context() as patched:
        after_epoch(patched, lambda: places["prepared"].rename(tmp_path / "elsewhere"))
        gone = call(world, *TRAIN, **places)
    name = rf"prepared data set {places['prepared']}/demo/\w+"
    assert re.search(
        rf"{name} must be there to the end, and is gone\. Put it back, then: athwe train", one_line(gone, 3)
    )
    assert "is not prepared" in one_line(call(world, *RESUME, **places), 3)
    (tmp_path / "elsewhere").rename(places["prepared"])
    assert done(call(world, *RESUME, **places)) == expected[0]
    assert weights(places["runs"]) == expected[1]


def test_a_run_folder_that_vanishes_while_it_trains(
    world: Path, expected: tuple[dict[str, Any], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    with monkeypatch.context() as patched:
        after_epoch(patched, lambda: (runs / NAME).rename(tmp_path / "elsewhere"))
        gone = call(world, *TRAIN, runs=runs)
    assert f"run {NAME} is gone: there is no folder {runs / NAME}. Put it back" in one_line(gone, 3)
    assert not (runs / NAME).exists()
    (tmp_path / "elsewhere").rename(runs / NAME)
    assert done(call(world, *RESUME, runs=runs)) == expected[0]
    assert weights(runs) == expected[1]
