"""Ranks on disk: plain parquet whose checksum the run's manifest holds."""

import hashlib
from pathlib import Path

import polars as pl
import pytest

from athwe_core.errors import CheckpointError
from athwe_core.runs.rank_table import read_ranks

FRAME = pl.DataFrame(
    {
        "user_id": ["a", "b"],
        "split": ["test", "test"],
        "target_item_id": ["x", "y"],
        "rank": [1.0, 2.5],
        "history_length": [3, 4],
        "target_popularity": [5, 6],
        "same_day": [True, False],
    }
)


def written(folder: Path, frame: pl.DataFrame = FRAME) -> tuple[Path, str]:
    path = folder / "per_user.parquet"
    frame.write_parquet(path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_with_its_checksum_is_read(tmp_path: Path) -> None:
    path, digest = written(tmp_path)
    assert read_ranks(path, digests=["0" * 64, digest], remedy="").equals(FRAME)
    assert pl.read_parquet(path).equals(FRAME)


def test_a_file_with_another_checksum_is_damaged(tmp_path: Path) -> None:
    path, digest = written(tmp_path)
    for digests in (["0" * 64], []):
        with pytest.raises(CheckpointError, match=r"is damaged: .* Rank again"):
            read_ranks(path, digests=digests, remedy="Rank again")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_ranks(path, digests=[digest], remedy="")


def test_a_run_without_checksums_is_of_version_0_1_0(tmp_path: Path) -> None:
    assert read_ranks(written(tmp_path)[0], digests=None, remedy="").equals(FRAME)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (FRAME.drop("rank"), "must hold one rank of at least 1 for each user"),
        (FRAME.with_columns(rank=pl.lit(0.5)), "must hold one rank of at least 1 for each user"),
        (FRAME.with_columns(rank=pl.lit(float("nan"))), "must hold one rank of at least 1 for each user"),
        (FRAME.with_columns(rank=pl.lit(None, pl.Float64)), "must hold one rank of at least 1 for each user"),
        (FRAME.with_columns(rank=pl.lit(1)), "must hold one rank of at least 1 for each user"),
    ],
)
def test_a_table_of_another_kind_is_refused(tmp_path: Path, frame: pl.DataFrame, text: str) -> None:
    path, digest = written(tmp_path, frame)
    with pytest.raises(CheckpointError, match=text):
        read_ranks(path, digests=[digest], remedy="")


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"user_id,rank\n"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "per_user.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"per_user\.parquet must be readable parquet"):
        read_ranks(path, digests=None, remedy="")
