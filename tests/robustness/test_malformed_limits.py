"""Files that are small, or say little, and would fill the memory: refused after a bounded read."""

import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fuzz_inputs import forget_peak, guarded, peak_kilobytes
from malformed_cases import csv, inter

from athwe_core.data.prepare import prepare
from athwe_core.data.readers.compression import MAX_RATIO, RATIO_FROM
from athwe_core.data.readers.lines import MAX_LINE_BYTES, blocks
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.table_file import Table
from athwe_core.errors import DataError

MIB = 2**20


def repeated(start: bytes, member: bytes, count: int, *, pack: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    """An archive of `start` and then `count` times the same: made at once, however large what it unpacks to."""
    return pack(start) + count * pack(member)


BOMBS = {
    "one line of 4 GiB": (repeated(csv(), bytes(16 * MIB), 256), r"toy\.csv line 32 must be at most 16 MiB long"),
    "4 GiB of blank lines": (
        repeated(csv(), b"\n" * 16 * MIB, 256),
        r"toy\.csv line 32 must not begin more than 16 MiB",
    ),
    "4 GiB of rows": (
        repeated(csv(), csv([("u" * 4000, "i", 5)] * 4000).split(b"\n", 1)[1], 256),
        rf"toy\.csv must not unpack to more than {MAX_RATIO} times its size, got '72 MiB from",
    ),
    "one line of 4 GiB, xz": (
        repeated(csv(), bytes(16 * MIB), 256, pack=lambda content: lzma.compress(content, preset=0)),
        r"toy\.csv line 32 must be at most 16 MiB long",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_archives_that_unpack_without_end_are_refused_early(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("athwe_core.data.readers.compression.RATIO_FROM", 64 * MIB)  # quicker than the real one
    content, message = BOMBS[name]
    (tmp_path / "data" / "toy").mkdir(parents=True)
    path = tmp_path / "data" / "toy" / "toy.csv"
    path.write_bytes(content)
    read: list[int] = []
    with pytest.raises(DataError, match=message), guarded(30, megabytes=250):
        prepare(
            "toy",
            data_dir=tmp_path / "data",
            prepared_dir=tmp_path / "prepared",
            progress=lambda done, _: read.append(done),
        )
    assert max(read, default=0) < len(content) / 8  # 4 GiB in all
    assert not list((tmp_path / "prepared").glob("**/*"))


LIMITED = """
import resource, sys
from pathlib import Path
from athwe_core.data.prepare import prepare
from athwe_core.errors import DataError

place = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    prepare("toy", data_dir=place, prepared_dir=place / "prepared")
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def with_a_long_line(folder: Path, name: str, start: bytes, size: int) -> str:
    """A data set whose file goes on with zeros that take no room on the disk; what is wrong with it."""
    (folder / "toy").mkdir()
    (folder / "toy" / name).write_bytes(start)
    os.truncate(folder / "toy" / name, size)
    return f"{name} line {start.count(10) + 1} must be at most 16 MiB long"


def test_a_line_of_a_gigabyte_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    expected = with_a_long_line(tmp_path, "toy.csv", csv(), 2**30)
    found = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], check=True, capture_output=True, text=True)
    message, grown = found.stdout.splitlines()
    assert expected in message
    assert int(grown) < 12 * MAX_LINE_BYTES // MIB  # MiB, libraries that load on the way included


@pytest.mark.parametrize(("name", "start"), [("toy.inter", inter()), ("toy.jsonl", b'{"user": "u", "item": "')])
def test_long_lines_of_other_files_are_refused(tmp_path: Path, name: str, start: bytes) -> None:
    expected = with_a_long_line(tmp_path, name, start, 2**26)
    with pytest.raises(DataError, match=expected), guarded(30, megabytes=150):
        prepare("toy", data_dir=tmp_path, prepared_dir=tmp_path / "prepared")


def test_the_ratio_counts_only_from_a_size_that_does_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x" * 1000 + b"\n" + (b"x" * 1000 + b"\n") * 3000))
    assert sum(block.num_lines for block in blocks(path, Reading([path]))) == 3001
    monkeypatch.setattr("athwe_core.data.readers.compression.RATIO_FROM", MIB)
    with pytest.raises(
        DataError, match=r"a\.gz must not unpack to more than 200 times .* Unpack it first if you trust it"
    ):
        list(blocks(path, Reading([path]), block_bytes=2**16))
    plain = tmp_path / "a.txt"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert sum(block.num_lines for block in blocks(plain, Reading([plain]))) == 3001
    assert RATIO_FROM == 256 * MIB


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def test_parquet_of_few_bytes_and_many_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(
        parquet(pl.DataFrame({"user": [1], "item": [2], "time": [3]}).select(pl.all().repeat_by(6_000_000).explode()))
    )
    assert path.stat().st_size < 49_000
    table = Table(path, Reading([path]))
    with pytest.raises(
        DataError, match=r"rows of .*a\.parquet must be at most [\d,]+ for a file of its size, got 6000000"
    ):
        next(iter(table.rows(["user"])))


def test_objects_with_ever_new_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({f"key{number}": number for number in range(10_001)}) + "\n")
    with pytest.raises(
        DataError, match=r"a\.jsonl line 1 to 1 must have at most 10,000 keys .*, got 10001\. Is it one"
    ):
        Table(path, Reading([path]))


def test_the_guard_notices_memory_and_time() -> None:
    with pytest.raises(AssertionError, match=r"a case took \d+ MiB"), guarded(30, megabytes=1):
        assert np.ones(300 * MIB // 8).sum() > 0  # libraries may give back some memory meanwhile
    with pytest.raises(Exception, match=r"a case took more than 0\.2 s"), guarded(0.2):
        spin()
    with pytest.raises(AssertionError, match="a case took too long"), guarded(0.2):
        swallowing()
    forget_peak()
    assert peak_kilobytes() > 0


def spin() -> None:
    """Five seconds of the processor: only those count."""
    until = time.process_time() + 5
    while time.process_time() < until:
        pass


def swallowing() -> None:
    """Like a reader that takes every exception for a damaged file."""
    try:
        spin()
    except Exception:
        return
