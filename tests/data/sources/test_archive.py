"""Archives that are cut, damaged, of another format, or lie about what they hold."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from athwe_core.data.sources.archive import require_whole, unpack
from athwe_core.errors import DataError

LINES = "".join(f"user {number}\n" for number in range(20_000)).encode()


def write(folder: Path, content: bytes) -> Path:
    path = folder / "x.part"
    path.write_bytes(content)
    return path


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def test_a_whole_file_passes(tmp_path: Path) -> None:
    require_whole(write(tmp_path, gzip.compress(LINES)), "x.json.gz")
    require_whole(write(tmp_path, LINES), "x.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(LINES)[:-9], "is not a complete gzip file"),
        (flipped(gzip.compress(LINES), 200), "is not a complete gzip file"),
        (LINES, r"must be a \.gz archive, got b'us'"),
        (b"", r"must be a \.gz archive, got b''"),
    ],
)
def test_a_damaged_file_does_not(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        require_whole(write(tmp_path, content), "x.json.gz")


def test_only_the_wanted_files_are_taken_out_and_never_outside_the_folder(tmp_path: Path) -> None:
    members = {
        "ml-1m/": b"",
        "../../ratings.dat": LINES,
        "ml-1m/movies.dat": b"m",
        "__MACOSX/movies.dat": b"x",
        "u": b"u",
    }
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    unpack(write(tmp_path, packed(members)), ["ratings.dat", "movies.dat"], target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"ratings.dat": LINES, "movies.dat": b"m"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "movies.dat", "ratings.dat", "x.part"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed({"ratings.dat": LINES})[:-30], "is not a complete zip archive"),
        (flipped(packed({"ratings.dat": LINES}), 300), "is not a complete zip archive"),
        (packed({"movies.dat": b"m"}), r"must hold one file ratings\.dat, and holds movies\.dat"),
        (packed({"a/ratings.dat": b"m", "b/ratings.dat": b"n"}), r"must hold one file ratings\.dat, and holds a/"),
        (b"no archive", "is not a complete zip archive"),
    ],
)
def test_an_archive_that_is_refused_leaves_no_file(tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path, content, message)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    bomb = packed({"ratings.dat": bytes(300 * 2**20)})
    refused(tmp_path, bomb, "must not unpack to more than 200 times its size")


def refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        unpack(write(tmp_path, content), ["ratings.dat"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.part"]
