"""Long tables in one file: whole, resumable, in the three formats."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import polars as pl
import pytest

from athwe_core.errors import ConfigError, DataError
from athwe_core.locks import held
from athwe_core.serving import table_parts
from athwe_core.serving.table_parts import write_table


class Squares:
    """Two rows for each entry; can fail at one."""

    def __init__(self, size: int, *, fails_at: int | None = None, identity: str = "squares") -> None:
        self.size, self.identity, self.fails_at = size, identity, fails_at
        self.spans: list[tuple[int, int]] = []

    def rows(self, first: int, end: int) -> pl.DataFrame:
        if self.fails_at is not None and first <= self.fails_at < end:
            raise KeyboardInterrupt
        self.spans.append((first, end))
        numbers = [number for number in range(first, end) for _ in range(2)]
        texts = [f'"{number}",\n' for number in numbers]
        return pl.DataFrame({"number": numbers, "square": [n * n for n in numbers], "text": texts})


READERS = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three entries."""
    monkeypatch.setattr(table_parts, "PART_ENTRIES", 3)


@pytest.mark.parametrize("ending", READERS)
def test_a_table_is_the_same_in_every_format_and_nothing_else_is_left(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{ending}"
    path.write_text("the old file")
    calls: list[tuple[int, int]] = []
    written = write_table(
        Squares(7), path, rows_per_entry=2, progress=lambda done, total, rate: calls.append((done, total))
    )
    assert READERS[ending](path).equals(Squares(7).rows(0, 7))
    assert calls == [(3, 7), (6, 7), (7, 7)]
    assert written.bytes == path.stat().st_size
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", READERS)
def test_an_empty_table_has_its_columns(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{ending}"
    write_table(Squares(0), path, rows_per_entry=2)
    assert path.exists()
    if ending != ".jsonl":
        assert READERS[ending](path).columns == ["number", "square", "text"]


def test_an_interrupted_table_continues_with_the_parts_that_are_missing(tmp_path: Path) -> None:
    path, notes = tmp_path / "table.csv", []
    path.write_text("the old file")
    with pytest.raises(KeyboardInterrupt):
        write_table(Squares(10, fails_at=7), path, rows_per_entry=2)
    assert path.read_text() == "the old file"
    again = Squares(10)
    written = write_table(again, path, rows_per_entry=2, notify=notes.append)
    assert again.spans == [(6, 9), (9, 10)]
    assert written.kept_entries == 6
    assert notes == ["6 of 10 are done already and are kept"]
    assert pl.read_csv(path).equals(Squares(10).rows(0, 10))
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_parts_of_another_table_are_not_used(tmp_path: Path) -> None:
    path, notes = tmp_path / "table.csv", []
    with pytest.raises(KeyboardInterrupt):
        write_table(Squares(10, fails_at=7, identity="others"), path, rows_per_entry=2)
    write_table(Squares(10), path, rows_per_entry=2, notify=notes.append)
    assert notes == [
        "the finished parts of another table are removed: the model, the users or the options have changed"
    ]
    assert pl.read_csv(path).equals(Squares(10).rows(0, 10))
    (tmp_path / ".table.csv.parts").mkdir()
    (tmp_path / ".table.csv.parts" / "plan.json").write_text("[" * 100_000)
    write_table(Squares(2), path, rows_per_entry=2)
    assert pl.read_csv(path).height == 4


def test_nothing_is_left_of_a_table_whose_first_part_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_table(Squares(3, fails_at=0), tmp_path / "table.csv", rows_per_entry=2)
    assert list(tmp_path.iterdir()) == []


def test_a_long_table_is_estimated_first_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_parts, "SAMPLE_ENTRIES", 4)
    monkeypatch.setattr(table_parts, "ESTIMATE_FROM", 50)
    notes: list[str] = []
    path = tmp_path / "table.jsonl"
    written = write_table(Squares(60), path, rows_per_entry=2, notify=notes.append)
    (note,) = notes
    assert note.startswith("estimate: 0 s and 0 MB for 60")
    assert written.bytes < 100_000
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100))
    with pytest.raises(ConfigError, match=r"^--to must be on a disk with room for 0 MB, got '0 MB free'"):
        write_table(Squares(60), path, rows_per_entry=2)


def test_mistakes_are_one_line_errors(tmp_path: Path) -> None:
    for name, message in [
        ("table.xlsx", r"^--to must end with \.parquet, \.csv or \.jsonl, got"),
        ("none/table.csv", r"^--to must be in a folder that exists, got .* Type: mkdir -p"),
    ]:
        with pytest.raises(ConfigError, match=message):
            write_table(Squares(1), tmp_path / name, rows_per_entry=2)
    (tmp_path / ".table.csv.parts").mkdir()
    with held(tmp_path / ".table.csv.parts" / ".lock"), pytest.raises(DataError, match="is being written by process"):
        write_table(Squares(1), tmp_path / "table.csv", rows_per_entry=2)


def test_a_disk_that_refuses_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_parts, "_join", full)
    path = tmp_path / "table.csv"
    with pytest.raises(DataError, match=r"could not be written \(No space left on device\)\. Finished parts are kept"):
        write_table(Squares(5), path, rows_per_entry=2)
    monkeypatch.undo()
    monkeypatch.setattr(table_parts, "PART_ENTRIES", 3)
    again = Squares(5)
    write_table(again, path, rows_per_entry=2)
    assert again.spans == []
    assert json.loads(pl.read_csv(path).write_json()) == json.loads(Squares(5).rows(0, 5).write_json())
