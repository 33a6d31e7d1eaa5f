import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest

from athwe_core.data.readers.lines import blocks
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError

TEXT = b"\xef\xbb\xbfone\r\n\r\nthree"


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("log.csv")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(file)
    return file.getvalue()


def lines(folder: Path, content: bytes, name: str = "a.txt") -> list[tuple[int, bytes]]:
    path = folder / name
    path.write_bytes(content)
    return [line for block in blocks(path, Reading([path])) for line in block.lines()]


ZIPPED = {
    "one file": zipped({"log.csv": TEXT}),
    "stored": zipped({"log.csv": TEXT}, method=zipfile.ZIP_STORED),
    "in a folder": zipped({"data/": b"", "data/log.csv": TEXT}),
    "from a mac": zipped({"log.csv": TEXT, "__MACOSX/._log.csv": b"x", ".DS_Store": b"x"}),
}


@pytest.mark.parametrize(
    "content",
    [TEXT, gzip.compress(TEXT), bz2.compress(TEXT), lzma.compress(TEXT), *ZIPPED.values()],
    ids=["plain", "gzip", "bzip2", "xz", *ZIPPED],
)
@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.csv.zip"])
def test_compression_is_by_content_not_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    assert lines(tmp_path, content, name) == [(1, b"one"), (2, b""), (3, b"three")]


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    content = gzip.compress(b"one\n") + gzip.compress(b"two\n")
    assert lines(tmp_path, content) == [(1, b"one"), (2, b"two")]


REFUSED = {
    "half a gzip file": (
        gzip.compress(b"line\n" * 1000, mtime=0)[:-9],
        r"a\.txt is not a complete gzip file .*\. Fetch it again",
    ),
    "a gzip header": (b"\x1f\x8b" + bytes(30), r"a\.txt is not a complete gzip file"),
    "half a bzip2 file": (bz2.compress(b"line\n" * 1000)[:-9], r"is not a complete bzip2 file"),
    "half an xz file": (lzma.compress(b"line\n" * 1000)[:-9], r"is not a complete xz file"),
    "half a zip file": (ZIPPED["one file"][:-9], r"is not a complete zip file .*\. Fetch it again"),
    "a zip header": (b"PK\x03\x04" + bytes(9), r"is not a complete zip file"),
    "two files in a zip archive": (
        zipped({"a.csv": b"a", "b.csv": b"b"}),
        r"must hold one file, and holds 2: a\.csv, b\.csv\. Unpack it first: unzip a\.txt, then name .* --raw",
    ),
    "no file in a zip archive": (zipped({"data/": b""}), r"must hold one file, and holds 0"),
    "an empty zip archive": (zipped({}), r"is an empty zip archive"),
    "a method without a limit": (
        zipped({"a.csv": b"a" * 99}, method=zipfile.ZIP_BZIP2),
        r"is a zip archive with a method that is not read here\. Unpack it first: unzip a\.txt",
    ),
    "a workbook": (
        zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
        r"is an Excel workbook\. Save it as CSV \(UTF-8\)",
    ),
    "parquet in gzip": (
        gzip.compress(parquet()),
        r"is a parquet file packed with gzip\. Unpack it first: gzip -d a\.txt",
    ),
    "parquet in zip": (zipped({"a.parquet": parquet()}), r"is a parquet file packed with zip\. .*: unzip a\.txt"),
    "tar": (tarred(TEXT), r"is a tar archive\. Unpack it first: tar -xf a\.txt"),
    "tar in gzip": (gzip.compress(tarred(TEXT)), r"is a tar archive\. Unpack it first: tar -xf a\.txt"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(9), r"is compressed with lz4, .*: lz4 -d a\.txt"),
    "compress": (b"\x1f\x9d" + bytes(9), r"is compressed with compress, .*: uncompress a\.txt"),
    "snappy": (b"\xff\x06\x00\x00sNaPpY", r"is compressed with snappy, which is not read here"),
    "orc": (b"ORC\x08\x03\x10\x00", r"is an ORC file, which is not read here\. Convert it to parquet first"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_and_foreign_archives_are_named(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        lines(tmp_path, content)


def test_a_zip_archive_with_a_password_is_named(tmp_path: Path) -> None:
    content = bytearray(ZIPPED["one file"])
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    with pytest.raises(DataError, match=r"is a zip archive with a password\. Unpack it first: unzip a\.txt"):
        lines(tmp_path, bytes(content))


@pytest.mark.parametrize("text", [b"ORCHID,1\n", b"PAR1,item\n"])
def test_text_that_begins_like_a_binary_format_is_text(tmp_path: Path, text: bytes) -> None:
    assert lines(tmp_path, gzip.compress(text)) == [(1, text.strip())]


def test_what_an_archive_asks_too_much_memory_for_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(gzip.GzipFile, "read", too_much)
    with pytest.raises(DataError, match=r"a\.txt is not a complete gzip file \(MemoryError\)"):
        lines(tmp_path, gzip.compress(b"x\n"))
