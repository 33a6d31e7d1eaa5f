"""Text files in blocks of whole lines, in bounded memory; compressed ones are unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from athwe_core.data.readers.compression import unpacked
from athwe_core.data.readers.reading import Reading
from athwe_core.errors import DataError

MAX_LINE_BYTES = 16 * 2**20
"""Longest line that is read; the reader refuses a file as soon as a line is longer."""
_BLOCK_BYTES = 8 * 2**20
_FIRST_LINES = 20
_BOM = b"\xef\xbb\xbf"


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


def blocks(path: Path, reading: Reading, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
    """Yield a file's lines in blocks; a byte-order mark and blank lines at the end are left out.

    Args:
        path: Plain or compressed, see `compression`.
        reading: Gets the progress.
    Raises:
        DataError: A damaged or foreign archive, or one that unpacks to far more than its size; a line above 16 MiB; or see
            `Reading.advance`.
    """
    first_line, rest, is_start = 1, b"", True
    with unpacked(path) as file:
        while True:
            found = file.read(block_bytes)
            reading.advance(path, file.position, first_line - 1)
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
