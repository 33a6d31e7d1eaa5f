"""Text sources in blocks of whole lines, in bounded memory: compression by content, progress, lines that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from athwe_core.errors import DataError
from athwe_core.messages import brief, reason

ByteProgress = Callable[[int, int], None]
"""Called with the bytes read so far and in all, as they lie on disk."""
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no row of a table; so much is read before it is refused, and no more."""
MAX_RATIO = 200
"""Tables pack to a third or a thirtieth; what unpacks to more than this many times its size is a bomb or mere repeats."""
RATIO_FROM = 256 * 2**20
"""Unpacked bytes from which on the ratio counts: less does no harm."""
_BLOCK_BYTES = 8 * 2**20
_SHOWN = 3
_FIRST_LINES = 20
_ENOUGH_TO_JUDGE = 1000  # bad lines, before a file is given up half-way
_BOM = b"\xef\xbb\xbf"
_OPENERS: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", lambda raw: gzip.GzipFile(fileobj=raw)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
_UNPACK = "Unpack it first"
_REFUSED = {
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd, which is not read here", f"{_UNPACK}: zstd -d FILE"),
    b"\x04\x22\x4d\x18": ("is compressed with lz4, which is not read here", f"{_UNPACK}: lz4 -d FILE"),
    b"PK\x03\x04": ("is a zip archive", f"{_UNPACK}: unzip FILE"),
    b"PK\x05\x06": ("is an empty zip archive", "Fetch it again"),
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", f"{_UNPACK}: 7z x FILE"),
    b"Rar!\x1a\x07": ("is a rar archive", f"{_UNPACK}: unrar x FILE"),
    b"\xd0\xcf\x11\xe0": ("is an old Excel workbook", "Save it as CSV (UTF-8)"),
    b"\xff\xfe\x00\x00": ("is UTF-32 text, and must be UTF-8", "Convert it: iconv -f UTF-32 -t UTF-8 FILE"),
    b"\x00\x00\xfe\xff": ("is UTF-32 text, and must be UTF-8", "Convert it: iconv -f UTF-32 -t UTF-8 FILE"),
    b"\xff\xfe": ("is UTF-16 text, and must be UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8 FILE"),
    b"\xfe\xff": ("is UTF-16 text, and must be UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8 FILE"),
}
"""First bytes of what is no text and no archive that is read; longer ones before those that begin them."""


def _ignore(*_: object) -> None:
    """Hear nothing."""


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


@dataclass
class Reading:
    """How far the reading of some files has come, and which of their lines could not be read.

    Attributes:
        paths: The files, in the order of reading.
        max_bad_lines: Share of a file's lines, 0..1, that may be unreadable and are then left out.
        progress: Told how far it is.
        notes: One sentence for each file with lines left out.
    """

    paths: Sequence[Path] = ()
    max_bad_lines: float = 0.0
    progress: ByteProgress = _ignore
    notes: list[str] = field(default_factory=list)
    _positions: dict[Path, int] = field(default_factory=dict)
    _num_lines: dict[Path, int] = field(default_factory=dict)
    _bad: dict[Path, list[str]] = field(default_factory=dict)
    _num_bad: dict[Path, int] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files on disk."""
        return sum(path.stat().st_size for path in self.paths)

    def advance(self, path: Path, position: int, num_lines: int) -> None:
        """Say that `path` has been read up to a byte, and how many lines that were.

        Raises:
            DataError: So many lines were bad that the whole file cannot keep within `max_bad_lines` any more.
        """
        self._positions[path], self._num_lines[path] = position, num_lines
        self.progress(sum(self._positions.values()), self.num_bytes)
        if self._num_bad.get(path, 0) >= _ENOUGH_TO_JUDGE and position:
            self._refuse_above(path, self.max_bad_lines * num_lines * path.stat().st_size / position)

    def bad_line(self, path: Path, number: int, reason: str, text: str | bytes = "") -> None:
        """Count a line that is left out."""
        self._num_bad[path] = self._num_bad.get(path, 0) + 1
        shown = self._bad.setdefault(path, [])
        if len(shown) < _SHOWN:
            shown.append(f"line {number} {reason}" + (f": {brief(text)}" if text else ""))

    def finish(self, path: Path) -> None:
        """Say that all rows of `path` have been looked at; lines left out become a note.

        Raises:
            DataError: More than the share `max_bad_lines` was bad.
        """
        num_bad, num_lines = self._num_bad.get(path, 0), self._num_lines.get(path, 0)
        self._refuse_above(path, self.max_bad_lines * num_lines)
        if num_bad:
            shown = "; ".join(self._bad[path])
            self.notes.append(
                f"{path.name}: {num_bad} of {num_lines} lines could not be read and were left out: {shown}"
            )

    def _refuse_above(self, path: Path, most: float) -> None:
        num_bad = self._num_bad.get(path, 0)
        if num_bad > most:
            raise DataError(
                str(path),
                f"may have at most {100 * self.max_bad_lines:g} % lines that cannot be read",
                f"{num_bad} of {self._num_lines[path]}: {'; '.join(self._bad[path])}",
                "Mend the file or raise max_bad_lines",
            )


def compression(path: Path) -> str | None:
    """`gzip`, `bzip2` or `xz` by the file's first bytes, None for a plain file. Raises DataError for what is not read."""
    with path.open("rb") as file:
        start = file.read(8)
    for magic, (rule, remedy) in _REFUSED.items():
        if start.startswith(magic):
            raise DataError(str(path), rule, remedy=remedy.replace("FILE", path.name))
    return next((name for magic, (name, _) in _OPENERS.items() if start.startswith(magic)), None)


def blocks(path: Path, reading: Reading, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
    """Yield a file's lines in blocks; a byte-order mark and blank lines at the end are left out.

    Args:
        path: Plain, gzip, bzip2 or xz by its first bytes, whatever its name.
        reading: Told how far it is.
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
