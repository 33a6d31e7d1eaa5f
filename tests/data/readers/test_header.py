from pathlib import Path

import pytest

from athwe_core.data.readers.header import Dialect, header_text, refuse_note, split_header
from athwe_core.errors import DataError

PLACE = Path("log.csv")


@pytest.mark.parametrize("header", ["#user,item,time", "# user\titem\ttime", "sep,=,x", "user,item,time"])
def test_names_of_columns_are_no_notes(header: str) -> None:
    refuse_note(PLACE, header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "# exported 2020-09-14, by tool",
            r"log\.csv line 1 is a comment and names no columns.* sed '/\^#/d' log\.csv",
        ),
        ("sep=;", r"log\.csv line 1 tells spreadsheets the separator .*, got 'sep=;'\. Remove it: sed 1d log\.csv"),
        ("SEP=\t", r"tells spreadsheets the separator"),
    ],
)
def test_notes_before_the_names_are_refused(header: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        refuse_note(PLACE, header)


def test_names_in_quotes_may_hold_the_separator() -> None:
    assert split_header(PLACE, '"a,b", c', Dialect(",", has_quotes=True)) == ["a,b", "c"]
    assert split_header(PLACE, '"a,b"', Dialect(",", has_quotes=False)) == ['"a', 'b"']


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"\xff", "must be UTF-8 text"), (b"a\0", "without NUL bytes.*UTF-16"), (b"a\rb", "must end with LF or CRLF")],
)
def test_lines_that_are_no_text(line: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        header_text(PLACE, line)
