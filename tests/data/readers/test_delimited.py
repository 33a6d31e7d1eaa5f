import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers.delimited import open_blocks, split_rows
from athwe_core.data.readers.header import Dialect, split_header
from athwe_core.data.readers.lines import blocks
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError

NAMES = ["a", "b", "c"]
FIELDS = st.text(st.sampled_from('x,"\n é;'), max_size=4)


def read(
    path: Path, *, has_quotes: bool = True, block_bytes: int = 9
) -> tuple[list[tuple[int, tuple[str, ...]]], list[int]]:
    bad: list[int] = []
    reading = Reading([path])

    def on_bad(line: int, rule: str, value: object, *, num_lines: int = 1) -> None:
        bad.extend(range(line, line + num_lines))

    found = blocks(path, reading, block_bytes=block_bytes)
    parts = split_rows(found, NAMES, Dialect(",", has_quotes), path=path, reading=reading, on_bad=on_bad)
    rows = [row for part in parts for row in zip(part.lines.tolist(), part.frame.rows(), strict=True)]
    return rows, bad


@given(
    table=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=8),
    block_bytes=st.integers(1, 60),
)
def test_quoted_tables_of_any_cut_are_as_the_standard_library_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str, str]], block_bytes: int
) -> None:
    text, starts = io.StringIO(), []
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    for row in table:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    rows, bad = read(path, block_bytes=block_bytes)
    assert rows == list(zip(starts, table, strict=True))
    assert bad == []


@given(
    lines=st.lists(st.text(st.sampled_from("x,é "), min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=9),
    block_bytes=st.integers(1, 60),
)
def test_without_quotes_both_ways_split_alike(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    fits = [(number, tuple(line.split(","))) for number, line in enumerate(lines, start=1) if line.count(",") == 2]
    for has_quotes in (True, False):
        rows, bad = read(path, has_quotes=has_quotes, block_bytes=block_bytes)
        assert rows == fits
        assert bad == [number for number, line in enumerate(lines, start=1) if line.count(",") != 2]


def test_header_and_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf"a ",b\r\n1,2\n')
    header, rest = open_blocks(path, Reading([path]))
    assert split_header(path, header, Dialect(",", has_quotes=True)) == ["a", "b"]
    assert split_header(path, header, Dialect(",", has_quotes=False)) == ['"a "', "b"]
    assert [(block.first_line, block.content) for block in rest] == [(2, b"1,2\n")]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\xff,b\n", r"line 1 must be UTF-8 text, got b'\\xff'")]
)
def test_files_without_a_header(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_blocks(path, Reading([path]))


@pytest.mark.parametrize(
    ("tail", "line"), [('x,"y,z\n', 3), ('x,"y,z\n1,2,3\n', 3), ('x,y,"', 3), ('"a",b,"c\n\n\n', 3), ('1,2,3\n"', 4)]
)
def test_a_quote_that_is_open_to_the_end_is_an_error(tmp_path: Path, tail: str, line: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b,c\n"1",2,3\n' + tail)
    with pytest.raises(
        DataError, match=rf"a\.csv line {line} cannot be split into fields \(a quote is open to the end"
    ):
        read(path)


def test_every_line_of_a_bad_row_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b,c\n1,"2\n\n3",4,5\nx,y,z\n')
    assert read(path) == ([(1, ("a", "b", "c")), (5, ("x", "y", "z"))], [2, 3, 4])


def test_lines_with_nul_bytes_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'1,2,3\n1,\0,3\n"4",5,6\n"\0",5,6\n')
    assert read(path) == ([(1, ("1", "2", "3")), (3, ("4", "5", "6"))], [2, 4])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"a\0,b\n", "line 1 must be text without NUL bytes"),
        (b"a,b\r1,2\r", "line 1 must end with LF or CRLF, and a carriage return stands in it, got 'a,b.r1,2'"),
    ],
)
def test_headers_that_are_no_line_of_text(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(header)
    with pytest.raises(DataError, match=message):
        open_blocks(path, Reading([path]))


@pytest.mark.parametrize("has_quotes", [True, False])
def test_headers_of_too_many_names(tmp_path: Path, has_quotes: bool) -> None:
    path = tmp_path / "a.csv"
    assert len(split_header(path, "," * 9999, Dialect(",", has_quotes))) == 10_000
    with pytest.raises(DataError, match=r"a\.csv line 1 must name at most 10,000 columns, got 10001"):
        split_header(path, "," * 10_000, Dialect(",", has_quotes))
