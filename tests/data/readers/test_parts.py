"""Data sets in several files, as people have them; every row is read once."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.detect import find_source, read_source
from athwe_core.data.readers.parts import are_parts, benchmark_parts, hive_columns, may_be_table
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.errors import DataError

ROWS = [(f"u{user}", f"i{step}", 1_600_000_000 + 90_000 * step + user) for user in range(4) for step in range(5)]
FRAME = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")
Row = tuple[str, str, int]


def read(*raw: Path, **options: Any) -> Records:
    chosen = PrepareOptions(**options)
    source = find_source("toy", data_dir=raw[0].parent / "nowhere", raw=raw, options=chosen)
    return read_source(source, chosen, Reading(source.paths, chosen.max_bad_lines))


def rows(records: Records) -> list[Row]:
    columns = (records.user_tokens.to_list(), records.item_tokens.to_list(), records.timestamps.tolist())
    return list(zip(*columns, strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    return tmp_path / "parts"


def csv(frame: pl.DataFrame, *, header: bool = True) -> bytes:
    return frame.write_csv(include_header=header).encode()


def test_a_folder_of_parts_in_several_formats_and_compressions_is_one_table(folder: Path) -> None:
    FRAME[:0].write_parquet(folder / "part-0.parquet")
    FRAME[:5].write_parquet(folder / "part-1.parquet")
    FRAME[5:10].write_ipc(folder / "part-2.feather")
    (folder / "part-3.csv.gz").write_bytes(gzip.compress(csv(FRAME[10:15])))
    (folder / "part-4.csv").write_bytes(csv(FRAME[15:], header=False))
    (folder / "part-5.csv").write_bytes(b"")
    (folder / "_SUCCESS").touch()
    (folder / ".part-1.parquet.crc").write_bytes(b"crc")
    records = read(folder)
    assert rows(records) == ROWS
    assert records.notes[0] == "rows: 20 in the files, 20 read"
    assert "part-0.parquet, part-5.csv: no rows, passed over" in records.notes
    assert rows(read(folder / "part-[1-4]*")) == ROWS
    with pytest.raises(DataError, match=r"--raw .*/x\*\.csv must match a file\. Check the pattern"):
        read(folder / "x*.csv")


def test_folders_named_by_a_column_give_it(folder: Path) -> None:
    for day in range(3):
        place = folder / f"day=2020-09-1{day}" / "shop=a%20b"
        place.mkdir(parents=True)
        FRAME[day::3].drop("timestamp").write_csv(place / "part-0.csv")
    records = read(folder)
    found = {(user, item, 1_599_696_000 + 86_400 * (number % 3)) for number, (user, item, _) in enumerate(ROWS)}
    assert set(rows(records)) == found
    assert "times day in iso; ignored: shop" in records.notes[1]
    path = folder / "day=2020-09-10" / "shop=a%20b" / "x"
    assert hive_columns(path, folder) == {"day": "2020-09-10", "shop": "a b"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["part-0.csv", "part-00001.csv.gz", "part-2.parquet"], True),
        (["log_2019.csv", "log_2020.csv"], True),
        (["part-0-3f2a9c1b.csv", "part-1-77aa01ff.csv"], True),
        (["january.csv", "february.csv"], False),
        (["log_1.csv", "items_1.csv"], False),
    ],
)
def test_names_that_differ_in_numbers_are_parts(names: Sequence[str], expected: bool) -> None:
    assert are_parts([Path(name) for name in names]) is expected


def test_files_of_other_names_are_no_guess_but_may_be_named(folder: Path) -> None:
    for month, frame in (("january", FRAME[:10]), ("february", FRAME[10:])):
        frame.write_csv(folder / f"{month}.csv")
    with pytest.raises(
        DataError, match=r"must be one, and there are february\.csv, january\.csv\. Name one: --raw .*, or all"
    ):
        read(folder)
    assert rows(read(folder / "january.csv", folder / "february.csv")) == ROWS


def test_what_lies_beside_a_table_is_none() -> None:
    names = ("a.csv", "part-00000", "000000_0", "a.pq", "u.data")
    assert all(may_be_table(Path(name)) for name in names)
    beside = ("_SUCCESS", ".a.csv.crc", "emb_item_order.txt", "README", "a.npy", "_metadata.parquet")
    assert not any(may_be_table(Path(name)) for name in beside)


def test_parts_of_a_benchmark_come_in_the_order_of_time() -> None:
    paths = [Path(f"x.{part}.inter") for part in ("valid", "test", "train")]
    assert [path.name for path in benchmark_parts(paths)] == ["x.train.inter", "x.valid.inter", "x.test.inter"]
    assert benchmark_parts(paths[:2]) == []


def test_ids_of_another_type_in_the_next_file_are_the_same_users(folder: Path) -> None:
    numbers = FRAME.with_columns(pl.col("user_id", "item_id").str.slice(1).cast(pl.Int64))
    numbers[:7].write_parquet(folder / "a-0.parquet")
    numbers[7:13].with_columns(pl.col("user_id", "item_id").cast(pl.Float64)).write_parquet(folder / "a-1.parquet")
    numbers[13:].with_columns(pl.col("user_id", "item_id").cast(pl.String).cast(pl.Binary)).write_parquet(
        folder / "a-2.parquet"
    )
    assert rows(read(folder)) == [(user[1:], item[1:], time) for user, item, time in ROWS]


@pytest.mark.parametrize(("name", "separator"), [("u.data", "\t"), ("ratings.dat", "::"), ("u.csv", ",")])
def test_files_without_a_header_need_names_and_keep_their_first_row(folder: Path, name: str, separator: str) -> None:
    path = folder / name
    path.write_text("".join(separator.join((user, item, "5", str(time))) + "\n" for user, item, time in ROWS))
    for options in ({}, {"user_column": "u0", "item_column": "i0", "time_column": "1600000000"}):
        with pytest.raises(
            DataError, match=r"must name the columns, and holds values.*--columns user,item,rating,time"
        ):
            read(path, **options)
    assert rows(read(path, columns=("user", "item", "rating", "time"))) == ROWS
    with pytest.raises(
        DataError, match=r"--columns .* must name each of the columns, got 'user,item'\. Line 1 has 4 fields"
    ):
        read(path, columns=("user", "item"))


def test_python_literals_and_json_may_mix(folder: Path) -> None:
    lines = [
        repr({"user": user, "item": item, "time": time})
        if number % 2
        else f'{{"user": "{user}", "item": "{item}", "time": {time}}}'
        for number, (user, item, time) in enumerate(ROWS)
    ]
    (folder / "a.json").write_text("\n".join(line.replace("{'user': '", "{u'user': u'") for line in lines))
    assert rows(read(folder / "a.json")) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ORC\x0a\x03\x00\x00\x12", "is an ORC file, which is not read here. Convert it to parquet"),
        (b"Obj\x01\x02", "is an Avro file.*pl.read_avro"),
        (b"\xff\xff\xff\xff\x78", "is an Arrow stream.*pl.read_ipc_stream"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"\x80\x04\x95", "is a pickle, which can run code"),
    ],
)
def test_formats_that_are_not_read_are_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "a.csv").write_bytes(content + bytes(9))
    with pytest.raises(DataError, match=message):
        read(folder / "a.csv")


def test_a_header_may_begin_like_an_orc_file(folder: Path) -> None:
    (folder / "a.csv").write_text("ORCID,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS))
    assert rows(read(folder / "a.csv", user_column="ORCID")) == ROWS
