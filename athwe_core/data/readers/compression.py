"""Compressed text files, known by their first bytes and not by their names: gzip, bzip2, xz, zstd, zip with one file.

Other formats are refused with a remedy. What a small archive unpacks to is limited, so that none can fill the memory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from athwe_core.data.readers.zstd_lines import ZstdLines
from athwe_core.errors import DataError
from athwe_core.messages import listed, reason

MAX_RATIO = 200
"""Most unpacked bytes for each packed byte. Real tables reach 3 to 30; far more is an archive made to fill the memory."""
RATIO_FROM = 256 * 2**20
"""Unpacked bytes from which on the ratio is checked: less does no harm."""
ZIP, ZSTD = b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_KINDS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", ZIP: "zip", ZSTD: "zstd"}
_UNPACK_WITH = {"gzip": "gzip -d", "bzip2": "bzip2 -d", "xz": "xz -d", "zip": "unzip", "zstd": "zstd -d"}
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The other methods of zip archives are unpacked without a limit: 350 bytes of bzip2 take 600 MB."""
_UNPACK, _CONVERT = "Unpack it first", "Convert it to parquet first"
_WITH_POLARS = "python -c \"import polars as pl; pl.READ('FILE').write_parquet('FILE.parquet')\""
_AS_UTF8 = {kind: f"Convert it: iconv -f {kind} -t UTF-8 FILE" for kind in ("UTF-16", "UTF-32")}
_PICKLE = ("is a pickle, which can run code and is not read", "Save it as CSV or parquet")
_REFUSED = {
    b"\x04\x22\x4d\x18": ("is compressed with lz4, which is not read here", f"{_UNPACK}: lz4 -d FILE"),
    b"\x1f\x9d": ("is compressed with compress, which is not read here", f"{_UNPACK}: uncompress FILE"),
    b"\xff\x06\x00\x00sNaPpY": ("is compressed with snappy, which is not read here", "Write it again with gzip"),
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
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"\xff\xfe\x00\x00": ("is UTF-32 text, and must be UTF-8", _AS_UTF8["UTF-32"]),
    b"\x00\x00\xfe\xff": ("is UTF-32 text, and must be UTF-8", _AS_UTF8["UTF-32"]),
    b"\xff\xfe": ("is UTF-16 text, and must be UTF-8", _AS_UTF8["UTF-16"]),
    b"\xfe\xff": ("is UTF-16 text, and must be UTF-8", _AS_UTF8["UTF-16"]),
}
"""First bytes of files that are not read, the rule and the remedy. A longer start stands before its own beginning."""
_BINARY = {b"PAR1": "is a parquet file", b"ARROW1": "is a Feather file"}
"""First bytes of tables that are read plain, but not out of an archive."""
_TAR = slice(257, 262)


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class UnpackedFile:
    """A text file that is being read, unpacked.

    Args:
        path: The file.
        kind: A value of `_KINDS`; empty for a plain file.
        stream: Gives the unpacked bytes.
        position: Gives how many bytes of the packed file have been read.
    """

    def __init__(self, path: Path, kind: str, stream: _Stream, position: Callable[[], int]) -> None:
        self._path, self._kind, self._stream, self._position = path, kind, stream, position
        self._num_read = 0

    @property
    def position(self) -> int:
        """How many bytes of the file on disk have been read."""
        return self._position()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            DataError: The archive is damaged, unpacks to more than `MAX_RATIO` times its size, or holds no text.
        """
        with _named_damage(self._path, self._kind):
            found = self._stream.read(size)
        if not self._num_read:
            _refuse_content(self._path, self._kind, found)
        self._num_read += len(found)
        if self._kind:
            refuse_bomb(self._path, self._num_read, self.position)
        return found


@contextmanager
def unpacked(path: Path) -> Iterator[UnpackedFile]:
    """Open a text file, compressed or plain.

    Raises:
        DataError: A format that is not read, a damaged archive, or a zip archive of several files.
    """
    with path.open("rb") as raw:
        start = raw.read(16)
        raw.seek(0)
        kind = next((name for magic, name in _KINDS.items() if start.startswith(magic)), "")
        if not kind:
            refused = next((magic for magic in _REFUSED if start.startswith(magic)), None)
            if refused is not None and not (refused == b"ORC" and _is_printable(start)):
                rule, remedy = _REFUSED[refused]
                raise DataError(str(path), rule, remedy=remedy.replace("FILE", path.name))
        with _named_damage(path, kind):
            stream = _open(path, kind, raw)
        position = stream.position if isinstance(stream, ZstdLines) else raw.tell
        yield UnpackedFile(path, kind, stream, position)


def refuse_bomb(path: Path, num_unpacked: int, num_packed: int) -> None:
    """Raise DataError where so many bytes were unpacked from so few."""
    if num_unpacked > max(RATIO_FROM, MAX_RATIO * num_packed):
        found = f"{num_unpacked >> 20} MiB from {num_packed:,} bytes"
        remedy = f"{_UNPACK} if you trust it: the plain file has no such limit"
        raise DataError(str(path), f"must not unpack to more than {MAX_RATIO} times its size", found, remedy)


def _open(path: Path, kind: str, raw: IO[bytes]) -> _Stream:
    if kind == "zip":
        return _only_member(path, raw)
    if kind == "zstd":
        lines = ZstdLines(path)
        refuse_bomb(path, lines.most_bytes, path.stat().st_size)
        return lines
    openers: dict[str, Callable[..., _Stream]] = {
        "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
        "bzip2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    return openers[kind](raw) if kind else raw


def _only_member(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """The one file of a zip archive; folders and what macOS adds do not count."""
    archive = zipfile.ZipFile(raw)
    members = [
        info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith(("__MACOSX/", "."))
    ]
    names = [info.filename for info in members]
    if "[Content_Types].xml" in names:
        raise DataError(str(path), "is an Excel workbook", remedy="Save it as CSV (UTF-8)")
    unpack = f"{_UNPACK}: unzip {path.name}"
    if len(members) != 1:
        remedy = f"{unpack}, then name the files with --raw"
        raise DataError(str(path), f"must hold one file, and holds {len(names)}: {listed(names)}", remedy=remedy)
    if members[0].flag_bits & 1:
        raise DataError(str(path), "is a zip archive with a password", remedy=unpack)
    if members[0].compress_type not in _UNPACKED:
        raise DataError(str(path), "is a zip archive with a method that is not read here", remedy=unpack)
    return archive.open(members[0])


def _refuse_content(path: Path, kind: str, start: bytes) -> None:
    """Refuse what is no text behind its archive: a table of a binary format, another archive, a tar file."""
    unpack = f"{_UNPACK}: {_UNPACK_WITH.get(kind, '')} {path.name}"
    if start[_TAR] == b"ustar":
        raise DataError(str(path), "is a tar archive", remedy=f"{_UNPACK}: tar -xf {path.name}")
    inner = next((what for magic, what in _BINARY.items() if start.startswith(magic)), "")
    if inner and kind and not _is_printable(start[:16]):
        raise DataError(str(path), f"{inner} packed with {kind}", remedy=unpack)


def _is_printable(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


@contextmanager
def _named_damage(path: Path, kind: str) -> Iterator[None]:
    """Turn what the readers of archives raise into DataError."""
    try:
        yield
    except DataError:
        raise
    except (EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, MemoryError) as error:
        rule = f"is not a complete {kind} file ({reason(error)})"
    except OSError as error:
        if not kind or error.errno is not None:
            raise
        rule = f"is not a complete {kind} file ({reason(error)})"
    else:
        return
    raise DataError(str(path), rule, remedy="Fetch it again")
