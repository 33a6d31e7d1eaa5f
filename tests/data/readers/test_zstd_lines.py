from pathlib import Path

import polars as pl
import pytest

from athwe_core.data.readers.lines import blocks, first_lines
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.zstd_lines import most_unpacked_bytes
from athwe_core.errors import DataError

MAGIC = b"\x28\xb5\x2f\xfd"
COMPRESSED = bytes.fromhex(
    "28b52ffd0458550100f8757365722c6974656d2c74696d650a75312c69312c31343031322c6932320a03006023d13c170c8c0180ca69cc"
)
"""As the zstd program writes it: a block that is compressed, and a checksum."""
TEXT = b"user,item,time\n" + b"u1,i1,1400000001\n" * 4 + b"u2,i2,1400000002\n"


def raw_frame(content: bytes) -> bytes:
    """A frame of one block that holds its content as it is; the header says how long that is in four bytes."""
    assert len(content) < 2**17
    return (
        MAGIC + b"\xa0" + len(content).to_bytes(4, "little") + (len(content) << 3 | 1).to_bytes(3, "little") + content
    )


def repeated_frame(byte: bytes, *, num_blocks: int) -> bytes:
    """A frame whose blocks repeat one byte 131,072 times each; the header holds the size of a window."""
    blocks = [
        ((2**17 << 3) | 2 | (number == num_blocks - 1)).to_bytes(3, "little") + byte for number in range(num_blocks)
    ]
    return MAGIC + b"\x00\x38" + b"".join(blocks)


def lines(path: Path) -> list[tuple[int, bytes]]:
    return [line for block in blocks(path, Reading([path])) for line in block.lines()]


def test_what_the_zstd_program_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(COMPRESSED)
    assert lines(path) == list(enumerate(TEXT.splitlines(), start=1))
    assert len(TEXT) <= most_unpacked_bytes(path) == 2**17


def test_several_frames_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    skipped = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    path.write_bytes(raw_frame(b"\xef\xbb\xbfone\r\n\r\nth") + skipped + raw_frame(b"ree"))
    assert lines(path) == [(1, b"one"), (2, b""), (3, b"three")]
    assert most_unpacked_bytes(path) == 15


def test_a_large_file_is_read_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.zst"
    frame = pl.DataFrame({"user": [f"u{number}" for number in range(50_000)], "item": "i"})
    frame.write_csv(path, compression="zstd")
    found = list(blocks(path, Reading([path]), block_bytes=2**16))
    assert len(found) > 5
    assert sum(block.num_lines for block in found) == 50_001
    assert found[-1].content.endswith(b"u49999,i\n")
    assert first_lines(path)[:2] == [b"user,item", b"u0,i"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (COMPRESSED[:-1], r"a\.txt is not a complete zstd file \(ends within a frame\)\. Fetch it again"),
        (COMPRESSED[:30], r"is not a complete zstd file \(ends within a frame\)"),
        (MAGIC, r"is not a complete zstd file \(ends within a frame\)"),
        (COMPRESSED + b"more", r"is not a complete zstd file \(holds something that is no frame\)"),
        (COMPRESSED[:20] + b"\xff" * 12 + COMPRESSED[32:], r"is not a complete zstd file \(.*checksum\)"),
        (raw_frame(b"\xff\n"), r"is compressed with zstd and cannot be read .*utf.*\. Unpack it first: zstd -d a\.txt"),
    ],
    ids=["no checksum", "half a block", "no header", "a tail", "changed bytes", "no UTF-8"],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        lines(path)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(repeated_frame(b"a", num_blocks=16_384))  # 64 KiB: 2 GiB
    with pytest.raises(DataError, match=r"must not unpack to more than 200 times its size, got '2048 MiB from"):
        lines(path)


def test_an_older_polars_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pl, "scan_lines")
    path = tmp_path / "a.txt"
    path.write_bytes(COMPRESSED)
    with pytest.raises(DataError, match=r"which polars .* does not read\. Unpack it first: zstd -d a\.txt"):
        lines(path)
