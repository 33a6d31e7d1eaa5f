"""Quotes that are never closed: found where they swallow rows, and not thought of where a text has lines."""

from pathlib import Path

import pytest

from athwe_core.data.readers.delimited import split_rows
from athwe_core.data.readers.header import Dialect
from athwe_core.data.readers.lines import blocks
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError

NAMES = ["user", "title", "time"]


def read(
    folder: Path, lines: list[str], separator: str, *, block_bytes: int = 2**16, is_sure: bool = False
) -> tuple[list, list[str]]:
    path = folder / "a.csv"
    path.write_text("".join(line + "\n" for line in lines))
    reading = Reading([path], 1.0)

    def on_bad(line: int, rule: str, value: object, *, num_lines: int = 1) -> None:
        reading.bad_line(path, line, rule, num_lines=num_lines)

    found = blocks(path, reading, block_bytes=block_bytes)
    dialect = Dialect(separator, has_quotes=True, is_sure=is_sure)
    parts = list(split_rows(found, NAMES, dialect, path=path, reading=reading, on_bad=on_bad))
    reading.finish(path)  # every line is accounted for
    return [row for part in parts for row in part.frame.rows()], reading.notes


def lines_with(titles: dict[int, str], separator: str, count: int = 60) -> list[str]:
    return [separator.join((f"u{n}", titles.get(n, "a toy"), str(1_400_000_000 + n))) for n in range(count)]


@pytest.mark.parametrize(
    "titles", [{10: '"Wow', 40: '"Wow'}, {10: '"Wow', 11: '"Wow'}, {10: '"Wow', 30: 'doll 5"'}, {10: '"Wow'}]
)
def test_quotes_of_a_tsv_that_do_not_pair_are_ordinary_characters(tmp_path: Path, titles: dict[int, str]) -> None:
    rows, notes = read(tmp_path, lines_with(titles, "\t"), "\t")
    assert [row[1] for row in rows] == [titles.get(n, "a toy") for n in range(60)]
    assert notes == ["a.csv: the quotes do not pair (line 11): read as ordinary characters"]


@pytest.mark.parametrize("titles", [{10: '"Wow', 40: '"Wow'}, {10: '"Wow', 30: 'doll 5"'}, {10: '"Wow'}])
def test_quotes_of_a_csv_that_do_not_pair_are_an_error_with_their_line(tmp_path: Path, titles: dict[int, str]) -> None:
    with pytest.raises(DataError, match=r"a\.csv line 11 .*Where quotes are ordinary characters: --quotes none"):
        read(tmp_path, lines_with(titles, ","), ",")


@pytest.mark.parametrize("block_bytes", [40, 2**16])
def test_texts_of_several_lines_are_read(tmp_path: Path, block_bytes: int) -> None:
    texts = {3: "one\ntwo", 20: 'a, b,\n"c", d\n\nlast', 50: "x\n" * 9}
    quoted = {n: '"' + text.replace('"', '""') + '"' for n, text in texts.items()}
    rows, notes = read(tmp_path, lines_with(quoted, ","), ",", block_bytes=block_bytes)
    assert [row[1] for row in rows] == [texts.get(n, "a toy") for n in range(60)]
    assert notes == []


def test_who_names_the_quotes_is_believed(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, lines_with({10: '"Wow', 40: '"Wow'}, ","), ",", is_sure=True)
    assert len(rows) == 30


def test_a_table_of_one_column_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"one\ntwo"\nthree\n')
    reading = Reading([path])
    dialect = Dialect(",", has_quotes=True, is_sure=False)
    parts = split_rows(blocks(path, reading), ["id"], dialect, path=path, reading=reading, on_bad=reading.bad_line)  # type: ignore[arg-type]
    assert [part.frame.rows() for part in parts] == [[("one\ntwo",), ("three",)]]
