"""The three Amazon releases, in small files as they are published; their odd lines too."""

import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from athwe_core.data.readers import amazon, amazon_metadata
from athwe_core.data.readers.amazon import read_amazon
from athwe_core.data.readers.amazon_metadata import LiteralReader, item_row, literal_row
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write lines (objects become JSON) to a file; `.gz` by its name."""

    def to_file(name: str, lines: Sequence[Any]) -> Path:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        content = "".join(text + "\n" for text in texts).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path / name

    return to_file


def read(
    source: str,
    paths: Sequence[Path],
    items: Sequence[Path] = (),
    *,
    max_bad_lines: float = 0.5,
    keep_items: bool = False,
) -> Records:
    return read_amazon(source, paths, items, Reading([*paths, *items], max_bad_lines), keep_items=keep_items)


def rows(records: Records) -> list[tuple[str, str, int]]:
    columns = (records.user_tokens.to_list(), records.item_tokens.to_list(), records.timestamps.tolist())
    return list(zip(*columns, strict=True))


def item(records: Records, number: int = 0) -> dict[str, str]:
    assert records.items is not None
    return records.items.frame.row(number, named=True)


def review(user: str, asin: str, seconds: object, **others: object) -> dict[str, object]:
    return {
        "reviewerID": user,
        "asin": asin,
        "overall": 5.0,
        "reviewText": 'a "toy" é',
        "unixReviewTime": seconds,
    } | others


class TestReviews:
    def test_2014_and_2018_keep_file_order_and_drop_negative_times(self, write: Write) -> None:
        lines = [review("u1", "B2", 1400000001), review("u2", "B1", -1), review("u1", "B1", 1300000000)]
        for source in ("amazon-2014", "amazon-2018"):
            records = read(source, [write("reviews_Toys_5.json.gz", lines)])
            assert rows(records) == [("u1", "B2", 1400000001), ("u1", "B1", 1300000000)]
            assert records.notes == ("rows: 3 in the files, 2 read, 1 dropped: 1 had a negative time",)
            assert records.items is None

    def test_2023_has_milliseconds_and_the_parent_is_the_item(self, write: Write) -> None:
        line = {
            "user_id": "U",
            "asin": "B1",
            "parent_asin": "P1",
            "timestamp": 1588687728923,
            "images": [{"large": "x"}],
        }
        records = read("amazon-2023", [write("Toys.jsonl.gz", [line, line | {"timestamp": -5000}])])
        assert rows(records) == [("U", "P1", 1588687728)]

    def test_2023_benchmark_ratings_in_several_files(self, write: Write) -> None:
        header = "user_id,parent_asin,rating,timestamp"
        parts = [
            write("Toys.train.csv.gz", [header, "U,P1,5.0,1588687728923"]),
            write("Toys.test.csv", [header, "V,P2,1,2000000"]),
        ]
        assert rows(read("amazon-2023", parts)) == [("U", "P1", 1588687728), ("V", "P2", 2000)]

    @pytest.mark.parametrize(
        ("source", "line"), [("amazon-2014", "u,B1,5.0,99999999999"), ("amazon-2018", "B1,u,5.0,99999999999")]
    )
    def test_ratings_without_header_have_the_order_of_their_release(self, write: Write, source: str, line: str) -> None:
        assert rows(read(source, [write("ratings_Toys.csv", [line])])) == [("u", "B1", 99999999999)]

    def test_odd_lines_are_left_out_and_shown(self, write: Write) -> None:
        good = review("u", "B1", 1400000000)
        lines = (
            [good] * 20
            + ["{not json", {"asin": "B1"}, review("", "B1", 5), review("u", "B1", "soon"), "", "[1]"]
            + [good]
        )
        records = read("amazon-2014", [write("reviews_Toys.json", lines)])
        assert len(records) == 21
        assert records.notes == (
            "rows: 26 in the files, 21 read, 5 dropped: 4 could not be read, 1 had no user or item id",
            "reviews_Toys.json: 4 of 27 lines could not be read and were dropped: "
            "line 21 is neither a JSON object nor a Python literal of one: {not json; "
            "line 26 is neither a JSON object nor a Python literal of one: [1]; "
            "line 22 has no reviewerID, asin or unixReviewTime",
            "1 of 22 rows have no id and were dropped: user '' in 1",
        )

    def test_too_many_odd_lines_stop(self, write: Write) -> None:
        path = write("reviews_Toys.json", [review("u", "B1", 1400000000)] * 9 + ["single, quotes"])
        with pytest.raises(
            DataError,
            match=r"Toys\.json may have at most 1 % lines that cannot be read, got .1 of 10: line 10 is neither",
        ):
            read("amazon-2014", [path], max_bad_lines=0.01)

    def test_numbers_and_nulls_of_any_kind(self, write: Write) -> None:
        lines = [review(7, "B1", 1.4e9), review("u", "B1", None), review("u", "B2", "1400000005")]  # type: ignore[arg-type]
        assert rows(read("amazon-2014", [write("reviews_Toys.json", lines)])) == [
            ("7", "B1", 1400000000),
            ("u", "B2", 1400000005),
        ]

    def test_another_unit_is_said(self, write: Write) -> None:
        records = read(
            "amazon-2023", [write("T.jsonl", [{"user_id": "U", "parent_asin": "P", "timestamp": 1588687728}])]
        )
        assert records.notes[1:] == ("T.jsonl: the latest time is 1588687 s: another unit than ms?",)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ([], "is empty"),
            (
                ["user_id,parent_asin,rating", "U,P,5"],
                "line 1 has no column timestamp; its columns are user_id, parent_asin, rating",
            ),
            ([{"user_id": "U", "parent_asin": "P", "timestamp": -1}], "has no rows that can be used"),
        ],
    )
    def test_files_without_rows_say_so(self, write: Write, lines: list[Any], message: str) -> None:
        with pytest.raises(DataError, match=rf"T\.jsonl {message}"):
            read("amazon-2023", [write("T.jsonl", lines)])


class TestMetadata:
    REVIEWS = tuple(review("u", asin, 1400000000) for asin in ("B1", "B2", "B3"))

    def read_items(self, write: Write, lines: Sequence[Any], **options: Any) -> Records:
        return read("amazon-2014", [write("r.json", self.REVIEWS)], [write("meta_Toys.json.gz", lines)], **options)

    def test_python_literals_and_json_lines_mix(self, write: Write) -> None:
        lines = [
            "{'asin': 'B1', 'title': 'Dad\\'s \"toy\" &amp; <b>more</b>', 'brand': 'Acme', 'price': 3.17, 'imUrl': 'http://x/a.jpg',"
            " 'categories': [['Toys & Games', 'Dolls'], ['Toys & Games']], 'description': u'd\\u00e9j\\xe0\\n vu'}",
            {"asin": "B2", "title": None, "categories": None},
            "{'asin': 'B9', 'title': 'nobody bought it'}",
        ]
        records = self.read_items(write, lines)
        assert records.items is not None
        assert len(records.items.frame) == 2
        found = {row["item_id"]: row for row in records.items.frame.to_dicts()}
        assert found["B1"] == {
            **{"item_id": "B1", "title": 'Dad\'s "toy" & more', "brand": "Acme", "categories": "Toys & Games | Dolls"},
            **{"description": "déjà vu", "image_url": "http://x/a.jpg"},
        }
        assert set(found["B2"].values()) == {"B2", ""}
        assert records.notes[1:] == ("1 of 3 items have no metadata",)

    def test_items_without_any_review_are_read_where_they_are_kept(self, write: Write) -> None:
        reviews = write("reviews.json", [review("u1", "B1", 1400000001), review("u1", "B2", 1400000002)])
        meta = [
            "{'asin': 'B7', 'title': 'never bought', 'categories': [['Soap']]}",
            {"asin": "B1", "title": "bought"},
            {"asin": "B8", "title": "new", "brand": "a brand"},
        ]
        for keep, ids in ((False, ["B1"]), (True, ["B1", "B7", "B8"])):
            records = read("amazon-2014", [reviews], [write("meta.json", meta)], keep_items=keep)
            assert records.items is not None
            assert sorted(records.items.frame["item_id"].to_list()) == ids
            assert records.notes[1:] == ("1 of 2 items have no metadata",)
            assert records.item_tokens.to_list() == ["B1", "B2"]

    def test_literals_with_code_are_not_run(self, write: Write, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        code = f"open({str(victim)!r}, 'w').close()"
        lines = [
            f"{{'asin': 'B1', 'title': {code}}}",
            f"{{'asin': 'B1', 'title': __import__('os').system('touch {victim}')}}",
            f"{{'asin': 'B2', 'title': [{code} for _ in (1,)]}}",
            f"{{'asin': 'B2', **{{'title': {code}}}}}",
            "{'asin': 'B3', 'title': f'{1 + 1}'}",
            "{'asin': 'B3', 'title': 'a toy'}",
        ]
        records = self.read_items(write, lines, max_bad_lines=0.9)
        assert not victim.exists()
        assert records.items is not None
        assert records.items.frame["title"].to_list() == ["a toy"]
        assert "5 of 6 lines could not be read" in records.notes[-1]

    def test_the_first_line_of_an_item_counts(self, write: Write) -> None:
        lines = [{"asin": "B1", "title": "first"}, {"asin": "B1", "title": "second"}, {"asin": "B3"}, {"asin": "B2"}]
        records = self.read_items(write, lines)
        assert item(records)["title"] == "first"
        assert records.notes[1:] == ("1 metadata lines repeat an item; the first one counts",)

    def test_a_line_with_another_item_inside_is_not_missed(self, write: Write) -> None:
        line = {"related": {"asin": "B9"}, "title": "it says 'asin': 'B8'", "asin": "B1"}
        assert item(self.read_items(write, [line, {"a\u0073in": "B2"}]))["item_id"] == "B1"

    def test_overlong_literals_are_bad_lines(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(amazon_metadata, "MAX_LITERAL_BYTES", 100)
        records = self.read_items(
            write, [f"{{'asin': 'B1', 'title': '{'x' * 200}'}}", "{'asin': 'B2'}", "{'asin': 'B3'}"]
        )
        assert "line 1 is neither JSON nor a Python literal with an item id" in records.notes[-1]

    def test_a_line_that_breaks_its_worker_is_one_error(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken(LiteralReader):
            def rest(self) -> Any:
                raise amazon.BrokenProcessPool

        monkeypatch.setattr(amazon, "LiteralReader", Broken)
        with pytest.raises(DataError, match=r"meta_Toys\.json\.gz broke a process that read it\. A script"):
            self.read_items(write, ["{'asin': 'B1'}"])

    def test_rows_are_kept_in_frames(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(amazon, "_ROWS_A_FRAME", 2)
        records = self.read_items(write, [{"asin": f"B{number}"} for number in (1, 2, 3)])
        assert records.items is not None
        assert records.items.frame["item_id"].to_list() == ["B1", "B2", "B3"]


class TestItemRows:
    def test_2018(self) -> None:
        found = item_row(
            {
                **{"asin": "B1", "title": '<span class="x">Doll</span>', "brand": "Acme", "price": "$5"},
                **{"category": ["Toys &amp; Games", "Dolls"], "description": ["one", "<br>two"]},
                **{"imageURL": ["http://x/s.jpg"], "imageURLHighRes": ["http://x/l.jpg", "http://x/m.jpg"]},
            }
        )
        assert found == ("B1", "Doll", "Acme", "Toys & Games | Dolls", "one two", "http://x/l.jpg")

    def test_2023(self) -> None:
        images = [{"thumb": "http://x/t.jpg", "large": "http://x/l.jpg", "hi_res": None}, {"large": "http://x/2.jpg"}]
        line = {"parent_asin": "P1", "title": "Doll", "store": "Acme", "images": images, "description": []}
        assert item_row(line | {"categories": [], "main_category": "Toys"}) == (
            "P1",
            "Doll",
            "Acme",
            "Toys",
            "",
            "http://x/l.jpg",
        )
        as_lists = {"large": ["http://x/1.jpg", "http://x/2.jpg"], "thumb": ["a", "b"], "hi_res": [None, None]}
        found = item_row({"parent_asin": "P1", "images": as_lists, "details": {"Brand": "Other"}})
        assert found == ("P1", "", "Other", "", "", "http://x/1.jpg")

    @pytest.mark.parametrize(
        "found", [None, [], "x", {}, {"asin": None}, {"asin": " "}, {"asin": 7}, {"asin": "\ud800"}, {"asin": "B\0"}]
    )
    def test_without_an_item_id_there_is_no_row(self, found: object) -> None:
        assert item_row(found) is None

    @pytest.mark.parametrize(
        "found",
        [
            *({"images": 5}, {"images": [None]}, {"images": {"large": 3}}, {"imageURL": ""}, {"imUrl": None}),
            *({"imUrl": "http://x/\ud800"}, {"imUrl": "http://x/" + "x" * 10_000}, {"images": [{"large": "\0"}]}),
        ],
    )
    def test_odd_images_are_none(self, found: dict[str, object]) -> None:
        assert item_row({"asin": "B1", **found}) == ("B1", "", "", "", "", "")

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "x",
            "{'a': }",
            "(" * 5000,
            "{'asin': 'B1', []: 1}",
            "1" * 10_000,
            "'\\ud800'",
            "{'asin': b'B1'}",
            "9**99",
        ],
    )
    def test_lines_that_are_no_literal(self, line: str) -> None:
        start = time.perf_counter()
        assert literal_row(line.encode()) is None
        assert time.perf_counter() - start < 5

    def test_odd_escapes_do_not_warn(self) -> None:
        assert literal_row(rb"{'asin': 'B1', 'title': 'a \d'}") == ("B1", r"a \d", "", "", "", "")
