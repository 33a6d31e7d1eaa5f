from pathlib import Path

import pytest

from athwe_core.data.readers.reading import Reading, RowCounts
from athwe_core.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "a.csv"
    place.write_text("x\n" * 10)
    return place


def test_every_row_is_accounted_for(path: Path) -> None:
    reading = Reading([path], max_bad_lines=0.5)
    reading.advance(path, 20, 10)
    reading.skip_lines(path)  # the header
    reading.add_rows(path, 5, 7)  # two of them go on
    reading.bad_line(path, 9, "must have 3 fields", num_lines=2)
    reading.bad_row(path, 3, "must have a time")
    reading.drop(path, "had a negative time", 1)
    reading.drop(path, "never happened", 0)
    reading.finish(path)
    counts = reading.counts([path])
    assert counts == RowCounts(6, 3, {"could not be read": 2, "had a negative time": 1})
    assert counts.sentence() == "rows: 6 in the files, 3 read, 3 dropped: 2 could not be read, 1 had a negative time"
    assert reading.notes == [
        "a.csv: 3 of 10 lines could not be read and were dropped: line 9 must have 3 fields; line 3 must have a time"
    ]


@pytest.mark.parametrize("num_lines", [8, 10])
def test_lines_that_are_in_no_row_stop(path: Path, num_lines: int) -> None:
    reading = Reading([path])
    reading.advance(path, 20, 10)
    reading.add_rows(path, 3, num_lines)
    reading.skip_lines(path)
    with pytest.raises(
        DataError, match=rf"a\.csv has 10 lines, and the rows .* account for {num_lines + 1}\. .*--quotes none"
    ):
        reading.finish(path)
    reading.finish(path, are_rows_counted=False)


def test_counts_add_up_over_files_and_reasons() -> None:
    counts = RowCounts(10, 8, {"a": 2}).without("b", 3).without("a", 1).without("c", 0)
    assert counts == RowCounts(10, 4, {"a": 3, "b": 3})
    assert Reading().counts([Path("never read")]) == RowCounts(0, 0)


def test_lines_of_another_encoding_are_told_how_to_convert(path: Path) -> None:
    reading = Reading([path])
    reading.advance(path, 20, 10)
    reading.bad_line(path, 2, "must be UTF-8 text, got b'\\xfc'")
    with pytest.raises(DataError, match=r"Convert it: iconv -f WINDOWS-1252 -t UTF-8 a\.csv$"):
        reading.finish(path)
    reading.bad_line(path, 3, "must have 3 fields")
    with pytest.raises(DataError, match=r"or raise --max-bad-lines"):
        reading.finish(path)
