"""Text files in blocks of whole lines, in bounded memory. Compression is known by the first bytes, not by the name.

polars would unpack a compressed file whole, so the archives are opened here.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError
from athwe_core.messages import reason

MAX_LINE_BYTES = 16 * 2**20
"""Longest line that is read; the reader refuses a file as soon as a line is longer."""
MAX_RATIO = 200
"""Most unpacked bytes for each packed byte. Real tables reach 3 to 30; far more is an archive made to fill the memory."""
RATIO_FROM = 256 * 2**20
"""Unpacked bytes from which on the ratio is checked: less does no harm."""
_BLOCK_BYTES = 8 * 2**20
_FIRST_LINES = 20
_BOM = b"\xef\xbb\xbf"
_OPENERS: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", lambda raw: gzip.GzipFile(fileobj=raw)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
_UNPACK, _CONVERT = "Unpack it first", "Convert it to parquet first"
_WITH_POLARS = "python -c \"import polars as pl; pl.READ('FILE').write_parquet('FILE.parquet')\""
_REFUSED = {
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd, which is not read here", f"{_UNPACK}: zstd -d FILE"),
    b"\x04\x22\x4d\x18": ("is compressed with lz4, which is not read here", f"{_UNPACK}: lz4 -d FILE"),
    b"PK\x03\x04": ("is a zip archive", f"{_UNPACK}: unzip FILE"),
    b"PK\x05\x06": ("is an empty zip archive", "Fetch it again"),
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", f"{_UNPACK}: 7z x FILE"),
    b"Rar!\x1a\x07": ("is a rar archive", f"{_UNPACK}: unrar x FILE"),
    b"\xd0\xcf\x11\xe0": ("is an old Excel workbook", "Save it as CSV (UTF-8)"),
    b"version https://": ("is a pointer to Git large file storage, not the file", "Fetch it: git lfs pull"),
    b"ORC": ("is an ORC file, which is not read here", f"{_CONVERT} with Spark or pyarrow.orc"),
    b"Obj\x01": ("is an Avro file, which is not read here", f"{_CONVERT}: {_WITH_POLARS.replace('READ', 'read_avro')}"),
    b"\xff\xff\xff\xff": (
        "is an Arrow stream, which is not read here",
        f"{_CONVERT}: {_WITH_POLARS.replace('READ', 'read_ipc_stream')}",
    ),
    b"FEA1": (
        "is a Feather file of version 1, which is not read here",
        "Write it again as Feather version 2 or parquet",
    ),
    b"\x89HDF": ("is an HDF5 file, which is not read here", f"{_CONVERT} with pandas.read_hdf"),
    b"SQLite format 3": (
        "is an SQLite database",
        "Save the table as CSV: sqlite3 -header -csv FILE 'select * from TABLE'",
    ),
    b"\x93NUMPY": ("is a numpy array and has no named columns", "Save it as CSV with a header line"),
    b"\x80\x04": ("is a pickle, which can run code and is not read", "Save it as CSV or parquet"),
    b"\x80\x05": ("is a pickle, which can run code and is not read", "Save it as CSV or parquet"),
    b"\xff\xfe\x00\x00": ("is UTF-32 text, and must be UTF-8", "Convert it: iconv -f UTF-32 -t UTF-8 FILE"),
    b"\x00\x00\xfe\xff": ("is UTF-32 text, and must be UTF-8", "Convert it: iconv -f UTF-32 -t UTF-8 FILE"),
    b"\xff\xfe": ("is UTF-16 text, and must be UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8 FILE"),
    b"\xfe\xff": ("is UTF-16 text, and must be UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8 FILE"),
}
"""First bytes of files that are not read, the rule and the remedy. A longer start stands before its own beginning."""


@dataclass(frozen=True)
class Block:
    """Whole lines: `content` ends with a line feed, `first_line` is the number of its first line, counted from 1."""

    first_line: int
    content: bytes

    @property
    def num_lines(self) -> int:
        return self.content.count(b"\n")

    def halves(self) -> tuple[Block, Block]:
        """The lines up to about the middle, and the rest. There must be two lines at least."""
        middle = self.content.rfind(b"\n", 0, max(len(self.content) // 2, self.content.index(b"\n") + 1)) + 1
        first = Block(self.first_line, self.content[:middle])
        return first, Block(self.first_line + first.num_lines, self.content[middle:])

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its number, without its end."""
        for number, line in enumerate(self.content.split(b"\n")[:-1], start=self.first_line):
            yield number, line.removesuffix(b"\r")


def compression(path: Path) -> str | None:
    """`gzip`, `bzip2` or `xz` by the file's first bytes, None for a plain file. Raises DataError for other formats."""
    with path.open("rb") as file:
        start = file.read(16)
    for magic, (rule, remedy) in _REFUSED.items():
        if start.startswith(magic) and not (magic == b"ORC" and _is_printable(start)):
            raise DataError(str(path), rule, remedy=remedy.replace("FILE", path.name))
    return next((name for magic, (name, _) in _OPENERS.items() if start.startswith(magic)), None)


def _is_printable(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def blocks(path: Path, reading: Reading, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
    """Yield a file's lines in blocks; a byte-order mark and blank lines at the end are left out.

    Args:
        path: Plain, gzip, bzip2 or xz by its first bytes, whatever its name.
        reading: Gets the progress.
    Raises:
        DataError: A damaged or foreign archive, one that unpacks to more than `MAX_RATIO` times its size, a line above
            16 MiB, or see `Reading.advance`.
    """
    kind, first_line, rest, is_start, num_read = compression(path), 1, b"", True, 0
    with path.open("rb") as raw:
        opener = next((opener for name, opener in _OPENERS.values() if name == kind), None)
        stream = cast("IO[bytes]", opener(raw)) if opener else raw
        while True:
            with _named_damage(path, kind):
                found = stream.read(block_bytes)
            reading.advance(path, raw.tell(), first_line - 1)
            num_read += len(found)
            if kind and num_read > max(RATIO_FROM, MAX_RATIO * raw.tell()):
                _refuse_bomb(path, num_read, raw.tell())
            if is_start:
                found, is_start = found.removeprefix(_BOM), False
            if not found:
                break
            content, rest = _whole_lines(rest, found)
            if len(rest) > MAX_LINE_BYTES:
                _refuse_long(path, first_line + content.count(b"\n"), rest)
            if content:
                block = Block(first_line, content)
                yield block
                first_line += block.num_lines
    if rest := rest.rstrip(b"\r\n"):
        block = Block(first_line, rest + b"\n")
        yield block
        first_line += block.num_lines
    reading.advance(path, path.stat().st_size, first_line - 1)


def first_lines(path: Path, *, block_bytes: int = 2**16) -> list[bytes]:
    """The first lines of a text file: 20, or fewer where they are long or there are no more. Raises as `blocks` does."""
    found: list[bytes] = []
    for block in blocks(path, Reading(), block_bytes=block_bytes):
        found += (line for _, line in block.lines())
        if len(found) >= _FIRST_LINES or len(block.content) >= block_bytes // 2:
            break
    return found[:_FIRST_LINES]


def _whole_lines(rest: bytes, found: bytes) -> tuple[bytes, bytes]:
    """Cut behind the last line that has an end and a line with content behind or in it; blank ends wait."""
    end = found.rfind(b"\n") + 1
    if not end:
        return b"", rest + found
    content = rest + found[:end]
    kept = len(content.rstrip(b"\r\n"))
    end_of_line = content.find(b"\n", kept) + 1 if kept else 0
    return content[:end_of_line], content[end_of_line:] + found[end:]


def _refuse_long(path: Path, line: int, rest: bytes) -> None:
    """Refuse a line that is too long, or too many blank ones. The rest begins on `line`; it has blank lines or is one."""
    most = f"{MAX_LINE_BYTES >> 20} MiB"
    if len(rest) - rest.rfind(b"\n") > MAX_LINE_BYTES:
        rule, remedy = f"must be at most {most} long", "Is it text with line ends?"
        raise DataError(f"{path} line {line + rest.count(10)}", rule, "more", remedy)
    if len(rest) > 2 * MAX_LINE_BYTES:
        raise DataError(f"{path} line {line}", f"must not begin more than {most} of blank lines", remedy="Remove them")


def _refuse_bomb(path: Path, num_read: int, num_packed: int) -> None:
    found = f"{num_read >> 20} MiB from {num_packed:,} bytes"
    remedy = f"{_UNPACK} if you trust it: the plain file has no such limit"
    raise DataError(str(path), f"must not unpack to more than {MAX_RATIO} times its size", found, remedy)


@contextmanager
def _named_damage(path: Path, kind: str | None) -> Iterator[None]:
    try:
        yield
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, MemoryError) as error:
        rule = f"is not a complete {kind} file ({reason(error)})"
    except OSError as error:
        if kind is None or error.errno is not None:
            raise
        rule = f"is not a complete {kind} file ({reason(error)})"
    else:
        return
    raise DataError(str(path), rule, remedy="Fetch it again")
