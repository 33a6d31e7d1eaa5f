"""The same files with the same options give the same version, byte for byte, whichever engine prepares them.

A manifest holds the checksum of every file beside statistics and notes, so equal manifests are equal data sets.
"""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fault_runs import Disk

from athwe_core.data.prepare import PrepareOptions, current_version, prepare
from athwe_core.errors import AthweError, DataError

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]  # of py4j

Row = tuple[str, str, int]
START = 1_400_000_000
USERS = [f"u{number}" for number in range(30)] + ["é\u0301clair", "日本", " u1 ", "7.0", "nan"]


@pytest.fixture
def rows() -> list[Row]:
    """900 rows with ties, repeated rows, late rows, placeholders, ids in two spellings, and users with too few rows."""
    rng = random.Random(5)
    found = [(rng.choice(USERS), f"i{rng.randrange(40)}", START + 1000 * rng.randrange(60)) for _ in range(880)]
    found += [(f"few{number}", f"rare{number % 7}", START + number) for number in range(12)]
    return found + found[:8]


def text_of(rows: Sequence[Row], separator: str = ",") -> str:
    return (
        "\n".join(
            [separator.join(("user_id", "item_id", "timestamp")), *(separator.join(map(str, row)) for row in rows)]
        )
        + "\n"
    )


def write_csv(folder: Path, rows: list[Row]) -> list[Path]:
    """Parts with a bad line, one without a row, one without a byte, one packed, and no header in the last."""
    folder.mkdir()
    (folder / "part-0.csv").write_text(text_of(rows[:300]) + "a,b\n")
    (folder / "part-1.csv").write_text(text_of([]))
    (folder / "part-2.csv").write_text("")
    (folder / "part-3.csv.gz").write_bytes(gzip.compress(text_of(rows[300:700]).encode()))
    (folder / "part-4.csv").write_text(text_of(rows[700:]).split("\n", 1)[1])
    return [folder]


def write_tsv(folder: Path, rows: list[Row]) -> list[Path]:
    folder.mkdir()
    path = folder / "log.tsv"
    path.write_text(text_of(rows, "\t"))
    return [path]


def write_parquet(folder: Path, rows: list[Row]) -> list[Path]:
    """Parts as Spark writes them, times as a type of their own, ids of one part as numbers."""
    folder.mkdir()
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame = frame.with_columns(pl.from_epoch("timestamp", time_unit="s"))
    for number, part in enumerate((frame[:400], frame[:0], frame[400:])):
        part.write_parquet(folder / f"part-{number:05d}-0123abcd.snappy.parquet")
    numbers = pl.DataFrame(
        {"user_id": [7] * 9, "item_id": [f"i{k}" for k in range(9)], "timestamp": frame["timestamp"][:9]}
    )
    numbers.write_parquet(folder / "part-00003-0123abcd.snappy.parquet")
    (folder / "_SUCCESS").write_text("")
    return [folder]


def write_json_lines(folder: Path, rows: list[Row]) -> list[Path]:
    folder.mkdir()
    for number in range(2):
        objects = [{"user_id": user, "item_id": item, "timestamp": 1000 * time} for user, item, time in rows[number::2]]
        lines = "\n".join(map(json.dumps, objects)) + "\n"
        (folder / f"log_{number}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return [folder]


def write_days(folder: Path, rows: list[Row]) -> list[Path]:
    """Folders with the time in their names: all rows of a day have one time."""
    for day in range(1, 5):
        place = folder / f"day=2020-09-{day:02d}"
        place.mkdir(parents=True)
        (place / "part-0.csv").write_text(
            "\n".join(["user_id,item_id", *(f"{user},{item}" for user, item, _ in rows[day::4])])
        )
    return [folder]


@pytest.mark.parametrize(
    ("write", "partitions", "options"),
    [
        (write_csv, 2, {"max_bad_lines": 0.01, "max_missing_ids": 0.05}),
        (write_tsv, 7, {"tie_order": "item", "max_missing_ids": 0.05, "min_interactions": 17}),
        (write_parquet, 3, {"tie_order": "random", "seed": 3, "max_missing_ids": 0.05}),
        (write_json_lines, 7, {"split": "global-time", "max_missing_ids": 0.05, "min_interactions": 3}),
        (write_days, 3, {"max_missing_ids": 0.05, "min_interactions": 4}),
    ],
)
def test_the_same_files_give_the_same_version_byte_for_byte(
    write: Callable[[Path, list[Row]], list[Path]],
    partitions: int,
    options: dict[str, Any],
    rows: list[Row],
    tmp_path: Path,
    both: Any,
    spark: Any,
) -> None:
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    local, by_spark = both(*write(tmp_path / "raw", rows), **options)
    assert by_spark.manifest == local.manifest
    assert by_spark.version == local.version
    assert local.num_users > 10
    assert {path.name for path in by_spark.path.parent.iterdir()} == {by_spark.version, "current"}


def test_reviews_and_metadata_of_amazon_with_items_that_nobody_bought(
    rows: list[Row], tmp_path: Path, both: Any
) -> None:
    reviews = [{"reviewerID": user, "asin": item, "unixReviewTime": time} for user, item, time in rows]
    items = [{"asin": f"i{number}", "title": f"Item {number}", "brand": "b"} for number in (*range(3, 45), 5)]
    for stem, objects in (("Toys_5", reviews), ("meta_Toys", items)):
        lines = "\n".join(map(json.dumps, objects)) + "\n"
        (tmp_path / f"{stem}.json.gz").write_bytes(gzip.compress(lines.encode()))
    files = [tmp_path / "Toys_5.json.gz", tmp_path / "meta_Toys.json.gz"]
    local, by_spark = both(*files, name="Toys", max_missing_ids=0.05)
    assert by_spark.manifest == local.manifest
    assert by_spark.manifest["source"] == "amazon-2018"
    assert "1 metadata lines repeat an item; the first one counts" in by_spark.manifest["notes"]


def test_a_given_split_a_table_of_items_and_times_of_another_century(tmp_path: Path, both: Any) -> None:
    users, items = range(8), range(12)
    parts = {"train": range(6), "valid": range(6, 7), "test": range(7, 9)}
    folder = tmp_path / "dataset" / "toy"
    folder.mkdir(parents=True)
    for part, steps in parts.items():
        found = [(f"u{user}", f"i{(user + step) % 9}", START + step // 2) for user in users for step in steps]
        found += [("u0", "i3", 5)] if part == "train" else []
        (folder / f"toy.{part}.csv").write_text(text_of(found))
    goods = tmp_path / "goods.csv"
    goods.write_text("item_id,title\n" + "".join(f"i{item},Title {item}\n" for item in items))
    local, by_spark = both(item_file=goods, split="given", keep_items=True)
    assert by_spark.manifest == local.manifest
    assert by_spark.split_rule == "given"
    assert any("before 1995" in note for note in by_spark.manifest["notes"])
    assert any("further items" in note for note in by_spark.manifest["notes"])


LOG = [(f"u{user}", f"i{(user + step) % 6}", START + step) for user in range(7) for step in range(6)]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        pytest.param([*LOG, ("1.23457E+11", "i0", START), ("1.23457E+12", "i0", START)], {}, id="cut numbers"),
        pytest.param([*LOG, *[("nan", "null", START + step) for step in range(9)]], {}, id="too many placeholders"),
        pytest.param([*LOG, ("u0", "i0", "soon")], {}, id="too many bad lines"),
        pytest.param(LOG, {"min_interactions": 9}, id="nothing left"),
        pytest.param(LOG, {"keep_items": True}, id="items to keep and no table of items"),
        pytest.param([(user, item, START) for user, item, _ in LOG], {"split": "global-time"}, id="one time"),
        pytest.param([("", "", START)] * 5, {"max_missing_ids": 1.0}, id="no id at all"),
    ],
)
def test_what_one_engine_refuses_the_other_refuses_with_the_same_words(
    rows: list[Row], options: dict[str, Any], tmp_path: Path, spark: Any
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text_of(rows))
    texts = []
    for engine in ("local", "spark"):
        with pytest.raises(AthweError) as caught:
            prepare(
                "toy",
                data_dir=tmp_path,
                prepared_dir=tmp_path / engine,
                options=PrepareOptions(**options),
                raw=[path],
                engine=engine,  # type: ignore[arg-type]
            )
        texts.append((type(caught.value), str(caught.value)))
        assert not (tmp_path / engine / "toy").exists()
    assert texts[0] == texts[1]


def test_an_unfinished_job_leaves_the_old_version_and_nothing_else(
    tmp_path: Path, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from athwe_core.data.spark.stage import Stage

    path = tmp_path / "log.csv"
    path.write_text(text_of(LOG))
    old = prepare("toy", data_dir=tmp_path, prepared_dir=tmp_path, raw=[path])
    keep = Stage.keep

    def broken(stage: Stage, table: Any, name: str) -> Any:
        if name == "ordered":
            raise DataError("disk", "broke")
        return keep(stage, table, name)

    monkeypatch.setattr(Stage, "keep", broken)
    with pytest.raises(DataError, match="disk broke"):
        prepare(
            "toy",
            data_dir=tmp_path,
            prepared_dir=tmp_path,
            raw=[path],
            options=PrepareOptions(tie_order="item"),
            engine="spark",
        )
    assert current_version("toy", prepared_dir=tmp_path) == old.version
    assert {each.name for each in (tmp_path / "toy").iterdir()} == {old.version, "current"}
    assert spark.range(3).count() == 3  # the session of the calling program goes on


@pytest.mark.parametrize("size", ["6m", "16m"])  # the reading of the files does not fit; what comes behind it
def test_a_full_disk_is_one_line_and_the_old_version_stays(size: str, tmp_path: Path, spark: Any) -> None:
    path, rng = tmp_path / "log.parquet", random.Random(0)
    disk = Disk(tmp_path / "disk", size)
    try:
        old = prepare(
            "demo", data_dir=tmp_path, prepared_dir=disk.path, options=PrepareOptions(demo_users=100, demo_items=100)
        )
        rows = [
            (f"u{rng.randrange(10**4)}", f"i{rng.randrange(1000)}", START + rng.randrange(10**9))
            for _ in range(700_000)
        ]
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(path)
        with pytest.raises(DataError, match=r"No space left on device") as caught:
            prepare("demo", data_dir=tmp_path, prepared_dir=disk.path, raw=[path], engine="spark")
        assert "\n" not in str(caught.value)
        assert current_version("demo", prepared_dir=disk.path) == old.version
        assert {each.name for each in (disk.path / "demo").iterdir()} == {old.version, "current"}
    finally:
        disk.unmount()
