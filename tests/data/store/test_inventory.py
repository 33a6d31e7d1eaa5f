"""Prepared versions on disk: listed with sizes, broken ones too, and removed."""

from pathlib import Path

import pytest

from athwe_core.data.options import PrepareOptions
from athwe_core.data.prepare import prepare
from athwe_core.data.store.dataset import LOCK, current_version, open_prepared
from athwe_core.data.store.inventory import find_prepared, folder_bytes, list_prepared, remove_prepared
from athwe_core.errors import ConfigError, DataError
from athwe_core.locks import held


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two versions of `demo`; the second one is current."""
    for order in ("file", "item"):
        options = PrepareOptions(demo_users=100, demo_items=100, tie_order=order)  # type: ignore[arg-type]
        prepare("demo", data_dir=tmp_path, prepared_dir=tmp_path / "prepared", options=options)
    return tmp_path / "prepared"


def test_versions_are_listed_with_size_and_the_current_one_is_marked(folder: Path) -> None:
    first, second = list_prepared(folder)
    assert (first.name, first.is_current, second.is_current) == ("demo", False, True)
    assert first.statistics is not None
    assert first.statistics["tie_order"] == "file"
    files = [path for path in (folder / "demo" / first.version).rglob("*") if path.is_file()]
    assert first.bytes == sum(path.stat().st_size for path in files) == folder_bytes(folder / "demo" / first.version)
    (folder / "demo" / first.version / "manifest.json").write_text("{}")
    first, second = list_prepared(folder)
    assert (first.statistics, second.damage) == (None, None)
    assert "is damaged" in str(first.damage)
    assert list_prepared(folder / "none") == []


def test_removing_the_current_version_makes_the_newest_other_one_current(folder: Path) -> None:
    first, second = list_prepared(folder)
    removed = remove_prepared(folder, "demo", version=second.version)
    assert [each.version for each in removed] == [second.version]
    assert (
        current_version("demo", prepared_dir=folder)
        == first.version
        == open_prepared("demo", prepared_dir=folder).version
    )


def test_removing_another_version_leaves_the_current_one(folder: Path) -> None:
    first, second = list_prepared(folder)
    remove_prepared(folder, "demo", version=first.version)
    assert current_version("demo", prepared_dir=folder) == second.version


def test_removing_all_versions_removes_the_folder_unless_it_holds_other_files(folder: Path) -> None:
    (folder / "demo" / "notes.txt").write_text("mine")
    assert len(remove_prepared(folder, "demo")) == 2
    assert [path.name for path in (folder / "demo").iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match=r"^data set name must be prepared in .*, got 'demo'\. Run: athwe prepare"):
        remove_prepared(folder, "demo")


def test_unknown_names_and_versions_are_one_line_errors(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'demo'\?\), got 'demos'"):
        find_prepared(folder, "demos")
    with pytest.raises(ConfigError, match=r"^--version must be one of [0-9a-f]{12}, [0-9a-f]{12}, got 'x'$"):
        find_prepared(folder, "demo", version="x")


def test_a_data_set_that_is_being_prepared_is_not_removed(folder: Path) -> None:
    with held(folder / "demo" / LOCK), pytest.raises(DataError, match="is being prepared by process"):
        remove_prepared(folder, "demo")
    assert len(list_prepared(folder)) == 2
