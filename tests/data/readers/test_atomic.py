import gzip
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.readers.atomic import find_atomic, read_atomic, read_table
from athwe_core.data.readers.ids import PLACEHOLDERS
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.errors import DataError

HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"


def inter(tmp_path: Path, content: str | bytes, suffix: str = "inter") -> Path:
    path = tmp_path / f"toy.{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_toy(folder: Path) -> Records:
    path = find_atomic(folder, "toy", "inter")
    assert path is not None
    return read_atomic([path], find_atomic(folder, "toy", "item"), Reading([path]))


def columns(folder: Path) -> tuple[list[str], list[str], list[int]]:
    records = read_toy(folder)
    assert records.timestamps.dtype == np.int64
    return records.user_tokens.to_list(), records.item_tokens.to_list(), records.timestamps.tolist()


def test_rows_come_in_file_order_and_other_columns_are_ignored(tmp_path: Path) -> None:
    inter(tmp_path, "rating:float\titem_id:token\tuser_id:token\ttimestamp:float\n5\tb\tu\t7\n4\ta\tv\t3\n")
    assert columns(tmp_path) == (["u", "v"], ["b", "a"], [7, 3])


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + "u\ti\t5\nv\tj\t6\n").encode(),
        (HEADER + "u\ti\t5\nv\tj\t6").encode(),
        (HEADER + "u\ti\t5\nv\tj\t6\n").replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + (HEADER + "u\ti\t5\nv\tj\t6\n\n").encode(),
        gzip.compress((HEADER + "u\ti\t5\nv\tj\t6\n").encode()),
    ],
    ids=["plain", "no last newline", "CRLF", "BOM and blank end", "gzip"],
)
@pytest.mark.parametrize("suffix", ["inter", "inter.gz"])
def test_file_variants_read_the_same(tmp_path: Path, content: bytes, suffix: str) -> None:
    inter(tmp_path, content, suffix)  # the magic number decides, not the name
    assert columns(tmp_path) == (["u", "v"], ["i", "j"], [5, 6])


def test_quotes_and_unicode_separators_are_ordinary_characters(tmp_path: Path) -> None:
    inter(tmp_path, HEADER + '"u\ti"\t5\nv\u2028w\t"\t6\n')
    assert columns(tmp_path)[:2] == (['"u', "v\u2028w"], ['i"', '"'])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1400000001", 1400000001),  # float32 would make 1400000000
        ("1400000001.0", 1400000001),
        ("1400000001.999999999", 1400000001),
        ("1.400000001E9", 1400000001),
        ("1400000001.", 1400000001),
        (" 12 ", 12),
        ("+5", 5),
        ("-0", 0),
        (".5", 0),
        ("9007199254740993", 2**53 + 1),  # float64 would make 2**53
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_times_are_exact_whole_seconds(tmp_path: Path, text: str, seconds: int) -> None:
    inter(tmp_path, HEADER + f"u\ti\t{text}\n")
    assert columns(tmp_path)[2] == [seconds]


@pytest.mark.parametrize(
    "text", ["x", "", "nan", "inf", "-3", "-0.5", "1e999999999", "2014-05-13", "9223372036854775808"]
)
def test_bad_times_name_file_line_and_value(tmp_path: Path, text: str) -> None:
    inter(tmp_path, HEADER + f"u\ti\t5\nu\tj\t{text}\n")
    expected = rf"toy\.inter line 3: timestamp must be a number of seconds >= 0, got {re.escape(repr(text))}"
    with pytest.raises(DataError, match=expected):
        read_toy(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "u\ti\t5\nu\tj\n", r"toy\.inter line 3 must have 3 tab-separated fields like the header, got 2"),
        (HEADER + "u\ti\t5\t9\n", r"line 2 must have 3 tab-separated fields .*, got 4"),
        (HEADER + "u\ti\t5\n\nu\tj\t6\n", r"line 3 must have 3 tab-separated fields .*, got 1"),
        (HEADER + "\ti\t5\n", r"line 2: user_id must not be empty"),
        (HEADER + "u\ti\t5\nu\t\t5\n", r"line 3: item_id must not be empty"),
        (HEADER, r"toy\.inter has a header but no rows"),
        ("", r"toy\.inter is empty"),
        ("\n\n", r"toy\.inter is empty"),
        ("user_id:token\titem_id:token\nu\ti\n", r"has no column timestamp; its columns are user_id, item_id"),
        ("user_id\titem_id:token\n", r"line 1 must name each column as name:type .*, got 'user_id'"),
        ("user_id:tok\titem_id:token\n", r"line 1 must name each column .*, got 'user_id:tok'"),
        ("a:token\ta:token\nu\ti\n", r"line 1 must name each column once, got 'a'"),
        (HEADER.encode() + b"u\ti\t5\n\xff\tj\t6\n", r"line 3 must be UTF-8 text, got b'\\xff'"),
        (gzip.compress(HEADER.encode() * 50, mtime=0)[:-12], r"toy\.inter is not a complete gzip file"),
    ],
)
def test_malformed_files_say_where(tmp_path: Path, content: str | bytes, message: str) -> None:
    inter(tmp_path, content)
    with pytest.raises(DataError, match=message):
        read_toy(tmp_path)


def test_two_files_of_one_kind_are_refused(tmp_path: Path) -> None:
    inter(tmp_path, HEADER + "u\ti\t5\n")
    inter(tmp_path, HEADER + "u\ti\t5\n", "inter.gz")
    with pytest.raises(DataError, match=r"holds both toy\.inter and toy\.inter\.gz\. Keep one"):
        read_toy(tmp_path)


def test_item_table_puts_item_id_first_and_keeps_first_row_of_an_item(tmp_path: Path) -> None:
    inter(tmp_path, HEADER + "u\ti\t5\n")
    inter(tmp_path, "title:token_seq\titem_id:token\nfirst one\ti\nsecond\ti\n\tj\n", "item")
    records = read_toy(tmp_path)
    assert records.items is not None
    assert records.items.frame.rows() == [("i", "first one"), ("j", "")]
    assert records.items.types == {"title": "token_seq", "item_id": "token"}
    assert records.notes == (
        "rows: 1 in the files, 1 read",
        "toy.item: 1 rows repeat an item; the first row of each item counts",
    )


def test_milliseconds_and_missing_item_file_are_said(tmp_path: Path) -> None:
    inter(tmp_path, HEADER + "u\ti\t1400000001000\n")
    notes = read_toy(tmp_path).notes
    assert "1400000001000: milliseconds?" in notes[1]
    assert "no toy.item" in notes[2]


FIELD = st.text(
    st.characters(blacklist_characters="\t\n\r\0\ufeff\x1c\x1d\x1e\x1f", blacklist_categories=["Cs"]), min_size=1
).filter(lambda text: text.strip().lower() not in PLACEHOLDERS)


@given(rows=st.lists(st.tuples(FIELD, FIELD, st.integers(0, 2**63 - 1)), min_size=1, max_size=8))
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("atomic")
    inter(folder, HEADER + "".join(f"{user}\t{item}\t{time}\n" for user, item, time in rows))

    def clean(text: str) -> str:
        return unicodedata.normalize("NFC", text).strip()

    with_ids = [(clean(user), clean(item), time) for user, item, time in rows]
    assert list(zip(*columns(folder), strict=True)) == with_ids


def test_single_column_table(tmp_path: Path) -> None:
    path = inter(tmp_path, "item_id:token\na\nb\n", "item")
    assert read_table(path, required=("item_id",)).frame.rows() == [("a",), ("b",)]
