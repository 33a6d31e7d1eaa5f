import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.prepare import PreparedDataset
from athwe_core.data.store.dataset import list_versions, new_version, open_prepared
from athwe_core.errors import ConfigError, DataError


@pytest.fixture
def prepared(
    write_inter: Callable[..., Path], toy_rows: list, prepare_toy: Callable[..., PreparedDataset]
) -> PreparedDataset:
    write_inter(toy_rows)
    return prepare_toy()


def place(prepared: PreparedDataset) -> Path:
    return prepared.path.parent.parent


def test_opening_maps_files_and_is_quick(prepared: PreparedDataset) -> None:
    start = time.perf_counter()
    opened = open_prepared("toy", prepared_dir=place(prepared))
    assert time.perf_counter() - start < 0.2
    assert isinstance(opened.item_ids, np.memmap)
    assert opened.statistics == prepared.statistics


def test_opening_loads_neither_polars_nor_torch(prepared: PreparedDataset) -> None:
    code = (
        "import sys; from pathlib import Path; from athwe_core.data.store.dataset import open_prepared\n"
        f"open_prepared('toy', prepared_dir=Path({str(place(prepared))!r}))\n"
        "assert not {'polars', 'torch', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_version_lists_those_there(prepared: PreparedDataset) -> None:
    with pytest.raises(DataError, match=rf"'toy' must be one of {prepared.version}, got 'abc'\. Or run: athwe prepare"):
        open_prepared("toy", prepared_dir=place(prepared), version="abc")


def test_unprepared_name_gets_a_near_miss(prepared: PreparedDataset) -> None:
    with pytest.raises(
        DataError, match=r"'toi' is not prepared in .* \(there: toy, did you mean 'toy'\?\)\. Run: athwe"
    ):
        open_prepared("toi", prepared_dir=place(prepared))


@pytest.mark.parametrize("damage", ["missing", "truncated", "manifest", "dtype", "length"])
def test_damaged_files_say_so(prepared: PreparedDataset, damage: str) -> None:
    path = prepared.path / "item_ids.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "manifest":
        (prepared.path / "manifest.json").write_text("{")
    elif damage == "dtype":
        np.save(path, np.load(path).astype(np.int64))
    else:
        np.save(path, np.load(path)[:-1])
    with pytest.raises(DataError, match=rf"{prepared.version} is damaged \(.*\)\. Delete that folder and run: athwe"):
        open_prepared("toy", prepared_dir=place(prepared))


def test_without_a_mark_the_newest_version_opens(prepared: PreparedDataset) -> None:
    (prepared.path.parent / "current").unlink()
    assert open_prepared("toy", prepared_dir=place(prepared)).version == prepared.version


def test_new_version_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "toy"

    def interrupted() -> None:
        with new_version(folder, "0" * 12) as temporary:
            (temporary / "manifest.json").write_text("{}")
            assert list_versions("toy", prepared_dir=tmp_path) == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):  # a second process that was slower leaves the first one's version
        with new_version(folder, "0" * 12) as temporary:
            (temporary / "manifest.json").write_text(json.dumps(content))
    assert (folder / "000000000000" / "manifest.json").read_text() == '"first"'
    assert [path.name for path in folder.iterdir()] == ["0" * 12]


def test_a_second_process_is_refused_while_one_prepares(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    with new_version(folder, "1" * 12) as temporary:
        rule = f"data set 'toy' is being prepared by process {os.getpid()}, for [01] s"
        with pytest.raises(DataError, match=rule), new_version(folder, "2" * 12):
            pytest.fail("two at once")
        (temporary / "manifest.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["1" * 12]


def test_a_failure_beside_finished_versions_leaves_them(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    with new_version(folder, "1" * 12) as temporary:
        (temporary / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"could not be written \(disk full\)"), new_version(folder, "2" * 12):
        raise OSError("disk full")
    assert [path.name for path in folder.iterdir()] == ["1" * 12]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u202etoy", "x" * 201, "é" * 101])
def test_names_that_no_terminal_or_disk_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="data set name must be printable and have at most 200 bytes, got "):
        open_prepared(name, prepared_dir=tmp_path)


def test_an_empty_mark_is_not_taken_for_none(prepared: PreparedDataset) -> None:
    (prepared.path.parent / "current").write_text("")
    with pytest.raises(DataError, match=rf"prepared version of 'toy' must be one of {prepared.version}, got ''"):
        open_prepared("toy", prepared_dir=place(prepared))
