"""Histories from CSV files, good and bad."""

from collections.abc import Callable
from pathlib import Path

import pytest

from athwe_core.analysis.case_study.new_user import read_history
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import DataError


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "mine.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return make


def test_rows_are_sorted_by_time_and_equal_times_keep_the_order_of_the_file(
    write: Callable[..., Path], case_data: PreparedDataset
) -> None:
    a, b, c, d = case_data.item_tokens[5:9]
    path = write(
        f'item_id,note,timestamp\n{a},x,2014-03-01\n{b},,1000.9\n\n{c},"y, z",2014-03-01T00:00:00+01:00\n{d},,1000\n'
    )
    case = read_history(path, case_data)
    assert case.item_ids == [6, 8, 7, 5]
    assert case.timestamps == [1000, 1000, 1_393_632_000 - 3600, 1_393_632_000]
    assert (case.user, case.target, case.split) == (None, None, "test")


@pytest.mark.parametrize("header", ["item,time", " Item_ID , TIME", "time,item", "\ufefftimestamp,item_id"])
def test_names_of_columns(header: str, write: Callable[..., Path], case_data: PreparedDataset) -> None:
    item = case_data.item_tokens[3]
    row = f"77,{item}" if header.startswith(("time", "\ufeff")) else f"{item},77"
    assert read_history(write(f"{header}\r\n{row}\r\n"), case_data).timestamps == [77]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv must have a header and at least one row, got '0 lines'"),
        ("item_id,timestamp\n\n", "mine.csv must have a header and at least one row, got '1 lines'"),
        ("item_id,when\nITEM,1\n", r"line 1 must have a column timestamp or time in its header, got 'item_id,when'"),
        ("ITEM,1\nITEM,2\n", "line 1 must have a column item_id or item in its header"),
        ("item,time\nITEM,1\nITEM\n", "line 3 must have 2 fields like the header, got 1"),
        ("item,time\nITEM,1\nITEM,soon\n", "line 3: time must be unix seconds >= 0 or an ISO date .* got 'soon'"),
        ("item,time\nITEM,-5\n", "line 2: time must be unix seconds >= 0 .* got '-5'"),
        ("item,time\nITEM,1960-01-01\n", "got '1960-01-01'"),
        ("item,time\nITEM,\n", "line 2: time must be .* got ''"),
        ("item,time\nITEMx,1\n", r"line 2: item must be an item of demo, got 'item-\d+x'\. Similar ids: 'item-"),
        ("item,time\n,1\n", "line 2: item must be an item of demo, got ''"),
        ('item,time\n"ITEM,1\n', "line 2 must have 2 fields like the header, got 1"),
    ],
)
def test_mistakes_name_file_and_line(
    text: str, message: str, write: Callable[..., Path], case_data: PreparedDataset
) -> None:
    with pytest.raises(DataError, match=message):
        read_history(write(text.replace("ITEM", case_data.item_tokens[3])), case_data)


def test_files_that_cannot_be_read(write: Callable[..., Path], case_data: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv must be a readable CSV file \(No such file"):
        read_history(tmp_path / "absent.csv", case_data)
    with pytest.raises(DataError, match="must be UTF-8 text"):
        read_history(write("item,time\n\xe4,1\n", "latin-1"), case_data)
    with pytest.raises(DataError, match=r"line 2 must be CSV \(.*field larger"):
        read_history(write("item,time\n" + "x" * 200_000 + ",1\n"), case_data)
