"""Prepared data sets as crashes, copies and other versions of the program leave them; and parquet files."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fuzz_inputs import ROWS
from malformed_cases import SECONDS, Case, Read, Refused
from malformed_features import archive

Damage = Callable[[Path], None]
"""Damages the folder of a version."""
FRAME = pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row")


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, num_bytes: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-num_bytes]) and None


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def manifest(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """The manifest after `change`, which changes it in place or gives another one."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / "manifest.json").read_text())
        changed = change(found)
        (folder / "manifest.json").write_text(json.dumps(found if changed is None else changed))

    return damage


def array(stem: str, change: Callable[[Any], Any]) -> Damage:
    return lambda folder: np.save(folder / f"{stem}.npy", change(np.load(folder / f"{stem}.npy")))


def value(stem: str, row: int, number: int) -> Damage:
    def change(found: Any) -> Any:
        found[row] = number
        return found

    return array(stem, change)


def frame(stem: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Damage:
    """Another table, of a version whose manifest knows no checksums of tables."""

    def damage(folder: Path) -> None:
        path, manifest = folder / f"{stem}.parquet", folder / "manifest.json"
        change(pl.read_parquet(path)).write_parquet(path)
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        del facts["files"]
        manifest.write_text(json.dumps(facts), encoding="utf-8")

    return damage


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("0" * 12))
    (folder.parent / "current").write_text("0" * 12)


def marked(content: bytes) -> Damage:
    return lambda folder: (folder.parent / "current").write_bytes(content) and None


VERSION_CASES: dict[str, tuple[Damage, str]] = {
    "a manifest that is cut off": (cut("manifest.json", 9), r"is damaged \("),
    "an empty manifest": (written("manifest.json", b""), r"is damaged \("),
    "a manifest of nul bytes": (written("manifest.json", bytes(4096)), r"is damaged \("),
    "a manifest that is no object": (written("manifest.json", b"[]"), r"is damaged \("),
    "a manifest nested without end": (written("manifest.json", b"[" * 99_999), r"is damaged \("),
    "a manifest in latin-1": (written("manifest.json", b'{"name": "\xe9"}'), r"is damaged \("),
    "a manifest without statistics": (
        manifest(lambda found: found.pop("statistics") and None),
        r"is damaged \('statistics'\)",
    ),
    "a manifest without notes": (manifest(lambda found: found.pop("notes") and None), r"is damaged \('notes'\)"),
    "a manifest with a text for a number": (
        manifest(lambda found: found["statistics"].update(items="6")),
        r"is damaged \(manifest.json: items is a str\)",
    ),
    "a manifest that counts other items": (
        manifest(lambda found: found["statistics"].update(items=5)),
        r"is damaged \(",
    ),
    "a manifest that lists no arrays": (
        manifest(lambda found: found["arrays"].clear()),
        "of the arrays in manifest.json and on disk",
    ),
    "a manifest that lost an array": (
        manifest(lambda found: found["arrays"].pop("text_features") and None),
        "of the arrays in manifest.json and on disk, one lacks text_features",
    ),
    "a format of the future": (
        manifest(lambda found: found.update(format=99)),
        "has format 99, and this version of athwe reads",
    ),
    "a format that is a text": (manifest(lambda found: found.update(format="1")), "is of format '1'"),
    "no format": (manifest(lambda found: found.pop("format") and None), "is of format None"),
    "a version under another name": (renamed, "and version '[0-9a-f]{12}'"),
    "an array that is gone": (without("item_ids.npy"), r"is damaged \("),
    "an array that is cut off": (cut("timestamps.npy", 4), r"is damaged \("),
    "an empty array file": (written("offsets.npy", b""), r"is damaged \("),
    "an array of another length": (array("timestamps", lambda found: found[:-1]), r"timestamps\.npy is int64 \(29,\)"),
    "an array of another type": (array("item_ids", lambda found: found.astype(np.int64)), r"item_ids\.npy is int64"),
    "an array of another byte order": (array("item_ids", lambda found: found.astype(">i4")), r"item_ids\.npy is >i4"),
    "an array of another shape": (array("item_ids", lambda found: found[None]), r"item_ids\.npy is int32 \(1, 30\)"),
    "one number for an array": (array("offsets", lambda found: found[0]), r"is damaged \("),
    "vectors of another width": (
        array("text_features", lambda found: found[:, :1]),
        r"text_features\.npy is float32 \(7, 1\)",
    ),
    "python objects for an array": (array("item_ids", lambda found: found.astype(object)), r"is damaged \("),
    "an archive for an array": (written("item_ids.npy", archive()), r"item_ids\.npy is no array"),
    "a damaged archive for an array": (written("item_ids.npy", archive()[:-30]), r"item_ids\.npy is no array"),
    "users that overlap": (value("offsets", 2, 0), "offsets, item_ids and timestamps do not fit together"),
    "users beyond the end": (value("offsets", -1, 31), "offsets, item_ids and timestamps do not fit together"),
    "an item that does not exist": (value("item_ids", 3, 7), "item_ids.npy holds 1 to 7, and there are 6 items"),
    "the padding as an item": (value("item_ids", 3, 0), "item_ids.npy holds 0 to 6"),
    "a time before 1970": (value("timestamps", 0, -1), "timestamps.npy holds -1"),
    "a table of items that is cut off": (cut("items.parquet", 9), r"items\.parquet is not what was written"),
    "a table of items that is gone": (without("items.parquet"), r"items\.parquet: "),
    "a table of items with a row too few": (
        frame("items", lambda found: found[1:]),
        r"items\.parquet does not hold 7 texts item_id",
    ),
    "a table of users without ids": (
        frame("users", lambda found: found.rename({"user_id": "x"})),
        "does not hold 5 texts user_id",
    ),
    "a table of users with numbers": (
        frame("users", lambda found: found.with_columns(pl.lit(1).alias("user_id"))),
        "does not hold 5 texts user_id",
    ),
    "a mark of another version": (marked(b"0123456789ab\n"), "must be one of [0-9a-f]{12}, got '0123456789ab'"),
    "a mark that is a path": (marked(b"../../../etc\n"), r"must be one of [0-9a-f]{12}, got '\.\./\.\./\.\./etc'"),
    "a mark of garbage": (marked(b"\xff\xfe\x1b[31m"), "must be one of [0-9a-f]{12}, got "),
    "an empty mark": (marked(b""), "must be one of [0-9a-f]{12}, got ''"),
}


def parquet(found: pl.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    found.write_parquet(file, **options)
    return file.getvalue()


PLAIN = parquet(FRAME, compression="uncompressed")


def times(values: Any) -> bytes:
    return parquet(FRAME.with_columns(pl.Series("time", values)))


NO_TIME = Refused(r"toy\.parquet", "has no column that is surely the time; its columns are user, item", "--time-column")
NO_USER = Read(
    [row for number, row in enumerate(ROWS) if number != 3],
    says="1 of 30 rows have no id and were dropped: user '' in 1",
)
PARQUET = {
    "parquet cut off": (
        PLAIN[:-9],
        Refused(r"toy\.parquet", "is not a readable parquet file", "Fetch or write it again"),
    ),
    "parquet with zeros within": (
        PLAIN[:4] + bytes(200) + PLAIN[204:],
        Refused(r"toy\.parquet", "cannot be read", "Fetch"),
    ),
    "text that begins like parquet": (
        b"PAR1,item,time\nu,i,5\n",
        Refused(r"toy\.parquet", "is not a readable parquet file", "Fetch"),
    ),
    "parquet without rows": (
        parquet(FRAME[:0]),
        Refused(r"toy\.parquet", "has no rows", "complete"),
    ),
    "parquet without columns": (
        parquet(pl.DataFrame()),
        Refused(r"toy\.parquet", "has no column that is surely the user", "--user-column"),
    ),
    "parquet without times": (parquet(FRAME.drop("time")), NO_TIME),
    "durations for times": (times(pl.Series(SECONDS).cast(pl.Duration("us"))), NO_TIME),
    "bytes for times": (times([b"5"] * len(ROWS)), Read([(user, item, 5) for user, item, _ in ROWS])),
    "objects for times": (times([{"s": 5}] * len(ROWS)), NO_TIME),
    "nothing for times": (times([None] * len(ROWS)), Refused(r"column time", "must hold times", "--time-column")),
    "truths for times": (times([True] * len(ROWS)), Refused(r"column time", "must hold times", "--time-column")),
    "decimals for times": (times(pl.Series(SECONDS).cast(pl.Decimal(20, 2))), Read()),
    "floats for times, some NaN": (
        times([float("nan") if n == 3 else float(t) for n, t in enumerate(SECONDS)]),
        "left out",
    ),
    "dates beyond the calendar": (
        times(pl.Series([2**31 - 1] * len(ROWS), dtype=pl.Int32).cast(pl.Date)),
        Refused("column time", "must hold times", "--time-column"),
    ),
    "moments beyond the calendar": (
        times(pl.Series([2**63 - 1] * len(ROWS)).cast(pl.Datetime("ms"))),
        Refused("column time", "must hold times", "--time-column"),
    ),
    "moments in nanoseconds and a zone": (
        times(pl.Series([10**9 * t + 5 for t in SECONDS]).cast(pl.Datetime("ns", "Asia/Tokyo"))),
        Read(),
    ),
    "ids that are lists": (parquet(FRAME.with_columns(pl.concat_list("user"))), Read()),
    "ids of a categorical type": (parquet(FRAME.with_columns(pl.col("user").cast(pl.Categorical))), Read()),
    "null ids": (
        parquet(
            FRAME.with_columns(pl.when(pl.col("time") == SECONDS[3]).then(None).otherwise(pl.col("user")).alias("user"))
        ),
        NO_USER,
    ),
}
LEFT_OUT = Read(
    [row for number, row in enumerate(ROWS) if number != 3], says="line 4 must have a user, an item and a time"
)
PARQUET_CASES = {
    name: Case(
        {"toy.parquet": content},
        LEFT_OUT if isinstance(expected, str) else expected,
        {"max_bad_lines": 0.5, "max_missing_ids": 0.5},
    )
    for name, (content, expected) in PARQUET.items()
}
