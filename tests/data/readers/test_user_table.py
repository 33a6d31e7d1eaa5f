"""Tables of a user's own, and what is guessed about them."""

import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers import table_file
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.data.readers.table_file import Table
from athwe_core.data.readers.user_table import TableFiles, read_tables
from athwe_core.errors import DataError

Write = Callable[..., Path]
Row = tuple[str, str, int]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return to_file


def read(*paths: Path, item_file: Path | None = None, max_bad_lines: float = 0.5, **options: Any) -> Records:
    chosen = PrepareOptions(max_bad_lines=max_bad_lines, **{"max_missing_ids": 1.0, **options})
    return read_tables(TableFiles(paths, item_file), chosen, Reading([*paths], max_bad_lines))


def rows(records: Records) -> list[Row]:
    columns = (records.user_tokens.to_list(), records.item_tokens.to_list(), records.timestamps.tolist())
    return list(zip(*columns, strict=True))


class TestText:
    CSV = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n7,1029,3.0,1260759179\n"
    ROWS = (("1", "31", 1260759144), ("7", "1029", 1260759179))

    @pytest.mark.parametrize(
        "content",
        [
            CSV.encode(),
            CSV.strip().encode(),
            CSV.replace("\n", "\r\n").encode(),
            b"\xef\xbb\xbf" + CSV.encode() + b"\n\n",
            CSV.replace("\n7", "\n\n7").encode(),
            CSV.replace(",", "\t").encode(),
            CSV.replace(",", ";").encode(),
            CSV.replace("7,", '"7",').encode(),
            CSV.replace("userId", '"userId"').encode(),
            gzip.compress(CSV.encode()),
        ],
        ids=["plain", "no end", "CRLF", "BOM", "blank line", "tabs", "semicolons", "quotes", "quoted header", "gzip"],
    )
    def test_variants_read_the_same_and_what_was_detected_is_reported(self, write: Write, content: bytes) -> None:
        records = read(write("a.csv", content))
        assert rows(records) == [*self.ROWS]
        assert records.notes == (
            "rows: 2 in the files, 2 read",
            "a.csv: users userId, items movieId, times timestamp in s; ignored: rating",
        )

    def test_quoted_fields_hold_separators_quotes_and_line_ends(self, write: Write) -> None:
        content = 'user,item,title,time\nu,i,"a, ""b""\nc",5\nv,5" doll,x,6\n"w\n",j,,7\n'
        assert rows(read(write("a.csv", content))) == [("u", "i", 5), ("v", '5" doll', 6), ("w", "j", 7)]

    def test_lines_are_numbered_as_in_the_file(self, write: Write) -> None:
        content = 'user,item,time\nu,"two\nlines",5\nu,i\nu,i,x\n\nu,i,5,6\nu,,5\n,i,5\nu,i,6\n'
        records = read(write("a.csv", content), max_bad_lines=0.9)
        assert rows(records) == [("u", "two\nlines", 5), ("u", "i", 6)]
        assert (
            "3 of 10 lines could not be read and were dropped: line 4 must have 3 comma-separated" in records.notes[-2]
        )
        assert "got 2; line 7 must have 3" in records.notes[-2]
        assert "line 5 must have a user, an item and a time (s)" in records.notes[-2]
        assert records.notes[-1] == "2 of 4 rows have no id and were dropped: user '' in 1, item '' in 1"

    def test_bytes_that_are_no_text_are_bad_lines(self, write: Write) -> None:
        records = read(write("a.csv", b"user,item,time\nu,i,5\n\xff,i,5\nv,i,6\n"))
        assert rows(records) == [("u", "i", 5), ("v", "i", 6)]
        assert "line 3 must be UTF-8 text" in records.notes[-1]

    def test_more_bad_lines_than_allowed_stop(self, write: Write) -> None:
        with pytest.raises(
            DataError, match=r"a\.csv may have at most 10 % lines that cannot be read, got '2 of 4: line 2"
        ):
            read(write("a.csv", "user,item,time\nu,i\nu,j\nu,k,5\n"), max_bad_lines=0.1, time_unit="s")

    def test_a_quote_that_is_never_closed_is_named(self, write: Write) -> None:
        content = 'user,item,time\nu,i,5\nu,"i,5\n' + "u,i,5\n" * 30_000
        with pytest.raises(DataError, match=r"a\.csv line 3 cannot be split into fields .*\. Is a quote never closed"):
            read(write("a.csv", content))

    def test_negative_times_are_an_error_with_their_row(self, write: Write) -> None:
        with pytest.raises(DataError, match=r"a\.csv line 3: time must not be before 1970, got '-5'"):
            read(write("a.csv", "user,item,time\nu,i,5\nu,i,-5\n"))

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (
                "user,item,rating",
                r"has no column that is surely the time; its columns are user, item, rating\. Name it with",
            ),
            (
                "who,item,time",
                r"has no column that is surely the user; its columns are who, item, time\. Name it with --user-column",
            ),
            ("user,user,time", r"line 1 must name each column once; it names user, user, time"),
            ("user item time", r"its columns are user item time"),
        ],
    )
    def test_columns_that_cannot_be_guessed_are_listed(self, write: Write, header: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(write("a.csv", f"{header}\nu,i,5\n"))

    def test_a_rows_id_is_no_item_but_an_item_tables_is(self, write: Write) -> None:
        with pytest.raises(DataError, match="has no column that is surely the item; its columns are id, user, time"):
            read(write("a.csv", "id,user,time\n1,u,5\n"))
        records = read(write("a.csv", "user,sku,time\nu,1,5\n"), item_file=write("b.csv", "id,title\n1,toy\n"))
        assert records.items is not None
        assert records.items.frame.rows() == [("1", "toy")]

    def test_named_columns_must_be_there(self, write: Write) -> None:
        path = write("a.csv", "user,item,time\nu,i,5\n")
        with pytest.raises(DataError, match=r"a\.csv line 1 has no column when; its columns are user, item, time"):
            read(path, time_column="when")

    def test_named_columns_and_unit_are_not_guessed(self, write: Write) -> None:
        path = write("a.csv", "user,item,time,customer,sku,ms\nu,i,5,c,s,7000\n")
        records = read(path, user_column="customer", item_column="sku", time_column="ms", time_unit="ms")
        assert rows(records) == [("c", "s", 7)]
        assert records.notes[1] == "a.csv: users customer, items sku, times ms in ms; ignored: user, item, time"
        assert "half of the times in ms are before 1970-01-01 when read in ms" in records.notes[2]

    @pytest.mark.parametrize(
        ("content", "message"),
        [("", "is empty"), ("user,item,time\n", "has no rows"), ('[{"user": 1}]', "one JSON object")],
    )
    def test_files_without_rows(self, write: Write, content: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(write("a.csv", content))

    def test_several_files_are_one_table(self, write: Write) -> None:
        paths = write("a.csv", self.CSV), write("b.jsonl", '{"user": "1", "item": "31", "time": 1260759144000}\n')
        assert rows(read(*paths)) == [*self.ROWS, self.ROWS[0]]

    CELLS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1)

    @given(st.lists(st.tuples(CELLS, CELLS, st.integers(0, 2**40)), min_size=1, max_size=8))
    def test_what_polars_writes_is_read_back(self, tmp_path_factory: pytest.TempPathFactory, table: list[Row]) -> None:
        path = tmp_path_factory.mktemp("csv") / "a.csv"
        pl.DataFrame(table, schema=["user", "item", "time"], orient="row").write_csv(path)
        expected = [tuple(re.sub(r"\r\n|\r(?=\n)", "\n", str(cell)) for cell in row) for row in table]
        table_read = Table(path, Reading([path]), quotes="double")
        found = [row for block in table_read.rows(["user", "item", "time"]) for row in block.frame.rows()]
        assert [tuple(re.sub(r"\r", "", cell) for cell in row) for row in found] == [
            tuple(re.sub(r"\r", "", cell) for cell in row) for row in expected
        ]


class TestJsonLines:
    def test_numbers_texts_and_times_of_any_kind(self, write: Write) -> None:
        lines = [
            {"uid": 1, "sku": "a", "ts": "2014-05-13T10:11:12Z"},
            {"x": [1], "sku": 2.0, "ts": "2014-05-13", "uid": "b"},
        ]
        records = read(write("a.jsonl", "\n".join(map(json.dumps, lines))))
        assert rows(records) == [("1", "a", 1399975872), ("b", "2", 1399939200)]
        assert "times ts in iso" in records.notes[1]

    def test_missing_keys_and_lines_that_are_no_object(self, write: Write) -> None:
        good = '{"user": "u", "item": "i", "time": 5}\n'
        records = read(write("a.jsonl", good * 100 + '{"user": "u", "time": 5}\n{"user": \n7\n' + good))
        assert rows(records) == [("u", "i", 5)] * 101
        assert "2 of 104 lines" in records.notes[-2]
        for line in (102, 103):
            assert f"line {line} is neither a JSON object nor a Python literal of one" in records.notes[-2]
        assert records.notes[-1] == "1 of 102 rows have no id and were dropped: item '' in 1"

    def test_odd_and_plain_blocks_write_numbers_alike(self, write: Write) -> None:
        good = '{"user": 7.0, "item": 1e3, "time": 5}\n'
        records = read(write("a.jsonl", good + "oops\n"), write("b.jsonl", good))
        assert rows(records) == [("7", "1000", 5)] * 2


class TestParquet:
    @pytest.mark.parametrize(
        ("times", "said"),
        [
            (pl.Series([1400000001, 1400000002]), "s"),
            (pl.Series([1400000001.9, 1400000002.0]), "s"),
            (pl.Series([1400000001999, 1400000002000]), "ms"),
            (pl.Series([datetime(2014, 5, 13, 16, 53, 21, 5), datetime(2014, 5, 13, 16, 53, 22)]), "us"),
            (pl.Series([datetime(2014, 5, 13, 16, 53, s, tzinfo=UTC) for s in (21, 22)]).dt.cast_time_unit("ns"), "us"),
            (pl.Series(["2014-05-13 16:53:21", "2014-05-13 16:53:22"]), "iso"),
        ],
    )
    def test_types_of_times(self, tmp_path: Path, times: pl.Series, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(table_file, "_ROWS_AT_ONCE", 1)
        pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"], "timestamp": times}).write_parquet(
            tmp_path / "a.parquet"
        )
        records = read(tmp_path / "a.parquet")
        assert rows(records) == [("1", "a", 1400000001), ("2", "b", 1400000002)]
        assert records.notes[1].endswith(f"timestamp in {said}")

    def test_days_and_their_type_win_over_a_named_unit(self, tmp_path: Path) -> None:
        pl.DataFrame({"user": ["u"], "item": ["i"], "date": [date(1970, 1, 2)]}).write_parquet(tmp_path / "a.parquet")
        assert rows(read(tmp_path / "a.parquet", time_unit="ms")) == [("u", "i", 86400)]

    def test_nulls_are_bad_rows(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"user": ["u", None, "v"], "item": ["i", "i", "j"], "time": [5, 5, None]})
        frame.write_parquet(tmp_path / "a.parquet")
        records = read(tmp_path / "a.parquet", max_bad_lines=0.7)
        assert rows(records) == [("u", "i", 5)]
        assert "line 3 must have a user" in records.notes[-2]
        assert records.notes[-1] == "1 of 2 rows have no id and were dropped: user '' in 1"

    def test_damaged_files_say_so(self, tmp_path: Path, write: Write) -> None:
        pl.DataFrame({"user": ["u"], "item": ["i"], "time": [5]}).write_parquet(tmp_path / "a.parquet")
        content = (tmp_path / "a.parquet").read_bytes()
        for damaged in (content[:50], b"PAR1" + bytes(100)):
            with pytest.raises(DataError, match=r"b\.parquet is not a readable parquet file"):
                read(write("b.parquet", damaged))

    def test_rows_that_the_file_says_it_has_and_has_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pl.DataFrame({"user": ["u"], "item": ["i"], "time": [5]}).write_parquet(tmp_path / "a.parquet")
        monkeypatch.setattr(Table, "_num_rows", lambda _: 3)
        with pytest.raises(DataError, match=r"a\.parquet must hold as many rows as it says, 3, got 1\. Fetch or write"):
            read(tmp_path / "a.parquet")

    def test_progress_reaches_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pl.DataFrame({"user": ["u"] * 9, "item": ["i"] * 9, "time": [5] * 9}).write_parquet(path)
        said: list[tuple[int, int]] = []
        read_tables(TableFiles([path]), PrepareOptions(), Reading([path], 0, lambda *counts: said.append(counts)))
        assert said[-1] == (path.stat().st_size, path.stat().st_size)


class TestItemFile:
    @pytest.fixture
    def interactions(self, write: Write) -> Path:
        return write("a.csv", "user,sku,time\nu,1,5\nu,2,6\n")

    def test_texts_are_cleaned_and_lists_are_names(self, write: Write, interactions: Path) -> None:
        lines = [
            {
                "sku": 1,
                "title": "A &amp; <b>B</b>",
                "tags": ["Toys &amp; Games", "Dolls"],
                "image_url": "http://x?a=1&copy=2",
            },
            {"sku": 2, "title": None, "tags": [], "image_url": ""},
            {"sku": 1, "title": "again"},
        ]
        items = write("items.jsonl", "\n".join(map(json.dumps, lines)))
        records = read(interactions, item_file=items, item_column="sku")
        assert records.items is not None
        assert records.items.frame.rows() == [
            ("1", "A & B", "Toys & Games | Dolls", "http://x?a=1&copy=2"),
            ("2", "", "", ""),
        ]
        assert records.items.types == {
            **{"item_id": "token", "title": "token", "categories": "name_seq", "image_url": "token"}
        }

    def test_csv_with_bars_and_another_id_column(self, write: Write, interactions: Path) -> None:
        items = write("items.csv", 'movieId,title,genres\n1,"Toy Story, the",Comedy|Drama\n2,b,Drama\n')
        records = read(interactions, item_file=items, item_column="sku")
        assert records.items is not None
        assert records.items.frame.columns == ["item_id", "title", "categories"]
        assert records.items.frame.rows()[0] == ("1", "Toy Story, the", "Comedy | Drama")
        assert "items.csv: items movieId, title, categories genres" in records.notes

    def test_parquet_lists_and_columns_that_are_no_text(self, tmp_path: Path, interactions: Path) -> None:
        values = {"sku": ["1"], "categories": [["A", None, "B|C"]], "raw": [b"\0"], "deep": [{"a": 1}], "price": [2.5]}
        pl.DataFrame(values).write_parquet(tmp_path / "items.parquet")
        records = read(interactions, item_file=tmp_path / "items.parquet")
        assert records.items is not None
        assert records.items.frame.to_dicts() == [{"item_id": "1", "categories": "A | B | C", "price": "2.5"}]

    def test_no_column_for_the_id(self, write: Write, interactions: Path) -> None:
        with pytest.raises(
            DataError, match=r"items\.csv line 1 has no column that is surely the item id; its columns are a, b"
        ):
            read(interactions, item_file=write("items.csv", "a,b\n1,2\n"))


def test_a_table_says_its_kind(write: Write, tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a")
    assert Table(tmp_path / "a", Reading()).kind == "parquet"
    assert Table(write("b", '{"x": 1}\n{"y": 2}'), Reading()).columns == ["x", "y"]
    assert Table(write("c", "x,y"), Reading()).columns == ["x", "y"]


def test_ids_in_float32_are_exact_or_refused(tmp_path: Path) -> None:
    def write_ids(first: int) -> Path:
        rows = [(first + 2 * user, item, 1_400_000_001) for user in range(3) for item in range(2)]
        frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
        frame.with_columns(pl.col("user").cast(pl.Float32)).write_parquet(tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    assert read(write_ids(2**24 - 6)).user_tokens.names.to_list() == ["16777210", "16777212", "16777214"]
    with pytest.raises(DataError, match=r"user ids must not be numbers cut to a few digits"):
        read(write_ids(2**24 + 2))


def test_a_time_of_zero_among_others_of_today_stands_for_none(write: Write) -> None:
    lines = [f"u{row},i,{0 if row in (2, 5) else 1_400_000_001}" for row in range(8)]
    records = read(write("a.csv", "\n".join(["user,item,time", *lines])))
    assert records.user_tokens.to_list() == ["u0", "u1", "u3", "u4", "u6", "u7"]
    assert any("2 of 9 lines could not be read and were dropped: line 4 must have a user" in n for n in records.notes)


def test_times_that_begin_at_zero_keep_it(write: Write) -> None:
    lines = [f"u{row},i,{row}" for row in range(8)]
    assert len(read(write("a.csv", "\n".join(["user,item,time", *lines])))) == 8
