"""Which files are taken for what, and what is said where that is not sure."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.detect import Source, available_datasets, find_source, sniff
from athwe_core.errors import ConfigError, DataError

INTER = "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t5\n"
ITEM = "item_id:token\ttitle:token_seq\ni\ta toy\n"
REVIEW_2014 = json.dumps({"reviewerID": "U", "asin": "B1", "helpful": [0, 0], "unixReviewTime": 5})
REVIEW_2018 = json.dumps({"reviewerID": "U", "asin": "B1", "verified": True, "unixReviewTime": 5})
REVIEW_2023 = json.dumps({"user_id": "U", "asin": "B1", "parent_asin": "B1", "timestamp": 5000})
LITERAL = "{'asin': 'B1', 'title': 'toy'}"
META = json.dumps({"parent_asin": "B1", "title": "toy"})
BENCHMARK = "user_id,parent_asin,rating,timestamp\nU,B1,5,5000\n"
TABLE = "user,item,time\nu,i,5\n"


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write files of `NAME -> content` into a folder of the data folder."""

    def write(folder: str, **files: str) -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for name, content in files.items():
            (place / name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
        return place

    return write


def find(
    tmp_path: Path, name: str = "Toys", *, item_file: Path | None = None, raw: tuple[Path, ...] = (), **options: Any
) -> Source:
    return find_source(name, data_dir=tmp_path, raw=raw, item_file=item_file, options=PrepareOptions(**options))


def names(source: Source) -> tuple[str, list[str], list[str]]:
    return source.kind, [path.name for path in source.interactions], [path.name for path in source.items]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"Toys.inter": INTER, "Toys.item": ITEM}, "atomic"),
        ({"reviews_Toys_5.json.gz": REVIEW_2014, "meta_Toys.json.gz": LITERAL}, "amazon-2014"),
        ({"reviews_Toys.json": REVIEW_2018}, "amazon-2014"),
        ({"ratings_Toys.csv": "A2SUAM1J3GNN3B,0000013714,5.0,1393545600", "meta_Toys.json": LITERAL}, "amazon-2014"),
        ({"Toys_5.json.gz": REVIEW_2018, "meta_Toys.json.gz": META}, "amazon-2018"),
        ({"Toys.json": REVIEW_2018}, "amazon-2018"),
        ({"Toys.csv": "0000013714,A2SUAM1J3GNN3B,5.0,1393545600"}, "amazon-2018"),
        ({"Toys.jsonl.gz": REVIEW_2023, "meta_Toys.jsonl.gz": META}, "amazon-2023"),
        ({"Toys.csv.gz": BENCHMARK}, "amazon-2023"),
        ({"Toys.csv": TABLE}, "table"),
        ({"Toys.jsonl": '{"user": 1, "item": 2, "time": 3}'}, "table"),
        ({"clicks.tsv": TABLE.replace(",", "\t")}, "table"),
    ],
)
def test_every_kind_is_found_by_its_content(put: Callable, tmp_path: Path, files: dict[str, str], kind: str) -> None:
    put("Toys", **files)
    found = find(tmp_path)
    interactions, *items = files
    assert names(found) == (kind, [interactions], items)
    assert found.why == ("" if kind == "atomic" else f"source {kind}: {', '.join(files)}")
    assert find(tmp_path, source=kind) == found
    elsewhere = find(tmp_path, "Other", raw=(tmp_path / "Toys",))
    assert names(elsewhere) == (kind, [interactions], items)
    files_named = find(tmp_path, "Other", raw=tuple(tmp_path / "Toys" / name for name in files))
    assert names(files_named) == (kind, [interactions], items)


def test_parquet_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "Toys").mkdir()
    pl.DataFrame({"user": ["u"]}).write_parquet(tmp_path / "Toys" / "Toys.parquet")
    assert find(tmp_path).kind == "table"


def test_atomic_files_win_over_others_in_the_folder_of_a_data_set(put: Callable, tmp_path: Path) -> None:
    put("Toys", **{"Toys.inter": INTER, "Toys.csv": TABLE, "reviews_Toys_5.json": REVIEW_2014})
    assert names(find(tmp_path)) == ("atomic", ["Toys.inter"], [])
    assert names(find(tmp_path, source="amazon-2014")) == ("amazon-2014", ["reviews_Toys_5.json"], [])


def test_files_named_after_the_data_set_win_over_others(put: Callable, tmp_path: Path) -> None:
    put(
        "raw",
        **{"Toys.jsonl": REVIEW_2023, "meta_Toys.jsonl": META, "Books.jsonl": REVIEW_2023, "meta_Books.jsonl": META},
    )
    assert names(find(tmp_path, raw=(tmp_path / "raw",)))[1:] == (["Toys.jsonl"], ["meta_Toys.jsonl"])


def test_parts_of_a_benchmark_come_in_the_order_of_time(put: Callable, tmp_path: Path) -> None:
    put("Toys", **{f"Toys.{part}.csv.gz": BENCHMARK for part in ("valid", "test", "train")})
    assert names(find(tmp_path))[1] == [f"Toys.{part}.csv.gz" for part in ("train", "valid", "test")]


def test_the_parts_of_an_atomic_benchmark_are_a_given_split_unless_another_is_named(
    put: Callable, tmp_path: Path
) -> None:
    put("Toys", **{f"Toys.{part}.inter": INTER for part in ("train", "valid", "test")})
    found = find(tmp_path)
    assert names(found) == ("atomic", [f"Toys.{part}.inter" for part in ("train", "valid", "test")], [])
    assert found.has_parts
    assert find(tmp_path, split="given").has_parts
    assert not find(tmp_path, split="leave-one-out").has_parts
    put("Other", **{"Other.inter": INTER})
    with pytest.raises(ConfigError, match=r"--split given needs the parts of a benchmark.*Put Other\.train\.inter, "):
        find(tmp_path, "Other", split="given")


def test_a_named_source_settles_what_looks_the_same(put: Callable, tmp_path: Path) -> None:
    folder = put("Toys", **{"Toys_5.json": REVIEW_2018})
    assert find(tmp_path, source="amazon-2014").kind == "amazon-2014"
    assert names(find(tmp_path, raw=(folder / "Toys_5.json",), source="table")) == ("table", ["Toys_5.json"], [])


def test_the_item_file_of_a_table(put: Callable, tmp_path: Path) -> None:
    folder = put("Toys", **{"clicks.csv": TABLE, "goods.csv": "item,title\ni,toy\n"})
    found = find(tmp_path, item_file=folder / "goods.csv")
    assert names(found) == ("table", ["clicks.csv"], ["goods.csv"])
    assert found.why == "source table: clicks.csv, goods.csv"
    with pytest.raises(
        DataError, match=r"must be one, and there are clicks\.csv, goods\.csv\. Name one: --raw .*/clicks\.csv, or all"
    ):
        find(tmp_path)


@pytest.mark.parametrize("name", ["items.csv", "Toys.items.csv.gz"])
def test_a_table_named_items_is_the_item_file(put: Callable, tmp_path: Path, name: str) -> None:
    put("Toys", **{"Toys.csv" if "Toys" in name else "clicks.csv": TABLE, name: "item,title\ni,toy\n"})
    assert names(find(tmp_path))[2] == [name]
    assert names(find(tmp_path, "other", raw=(tmp_path / "Toys",)))[2] == [name]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {},
            {},
            r"'Toys' has no interactions: looked for Toys\.inter and Toys\.inter\.gz in .*Toys, and for Amazon reviews",
        ),
        ({"meta_Toys.json": LITERAL}, {}, "has no interactions"),
        ({"Toys.csv": TABLE}, {"source": "amazon-2023"}, "and for files of source amazon-2023 in"),
        (
            {"Toys.csv": TABLE, "Toys.jsonl": REVIEW_2023},
            {},
            r"must be of one kind, and amazon-2023 and table are there \(Toys\.csv, ",
        ),
        ({"Toys.jsonl": REVIEW_2023, "Toys.csv": BENCHMARK}, {}, r"must be one, and there are Toys\.csv, Toys\.jsonl"),
        (
            {"a.jsonl": REVIEW_2023, "meta_a.json": META, "meta_b.json": META},
            {},
            "one file of items, and there are meta_a",
        ),
    ],
)
def test_what_is_not_sure_is_an_error(
    put: Callable, tmp_path: Path, files: dict[str, str], options: dict[str, str], message: str
) -> None:
    put("Toys", **files)
    with pytest.raises(DataError, match=message):
        find(tmp_path, **options)


def test_files_that_are_not_there(tmp_path: Path, put: Callable) -> None:
    put("Toys", **{"Toys.csv": TABLE})
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        find(tmp_path, raw=(tmp_path / "absent.csv",))
    with pytest.raises(DataError, match=r"items\.csv does not exist"):
        find(tmp_path, item_file=tmp_path / "items.csv")
    with pytest.raises(
        DataError, match=r"'Toyz' is unknown: no folder .*Toyz \(there: Toys, demo, did you mean 'Toys'\?\)"
    ):
        find(tmp_path, "Toyz")


def test_options_that_do_not_fit_together(tmp_path: Path, put: Callable) -> None:
    folder = put("Toys", **{"Toys.jsonl": REVIEW_2023})
    with pytest.raises(ConfigError, match="demo is the data set named demo and reads no files, got 'Toys'"):
        find(tmp_path, source="demo")
    goods = put("other", **{"goods.csv": TABLE}) / "goods.csv"
    for options in ({"item_file": goods}, {"user_column": "user"}, {"time_unit": "ms"}):
        with pytest.raises(
            ConfigError,
            match=rf"--{next(iter(options)).replace('_', '-')} is for tables, and this is amazon-2023, got ",
        ):
            find(tmp_path, **options)
    assert find(tmp_path, "demo").kind == "demo"
    assert find(tmp_path, "demo", raw=(folder,)).kind == "amazon-2023"


def test_available_names_are_folders_with_interactions(put: Callable, tmp_path: Path) -> None:
    put("A", **{"A.inter.gz": INTER})
    put("B", **{"reviews_B_5.json": REVIEW_2014})
    put("C", **{"meta_C.json": LITERAL, "C.item": ITEM})
    put("D", **{"C.csv": TABLE})
    assert available_datasets(tmp_path) == ["A", "B", "demo"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_files_are_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert sniff(tmp_path / "a.csv")[0] is None


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path: Path, put: Callable) -> None:
    table = put("Toys", **{"Toys.csv": TABLE}) / "Toys.csv"
    os.mkfifo(tmp_path / "pipe")
    for raw in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(DataError, match=rf"{raw} must be a file or a folder\. Copy"):
            find(tmp_path, raw=(raw,))
    for item_file in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match=rf"{item_file} must be a file\. Copy"):
            find(tmp_path, raw=(table,), item_file=item_file)
