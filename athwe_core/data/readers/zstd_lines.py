"""The lines of a text file that is compressed with zstd, by polars: the standard library reads zstd from Python 3.14 on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from athwe_core.errors import DataError

_MOST_IN_A_BLOCK = 128 * 2**10  # bytes that one block of a frame can unpack to
_ROWS_AT_ONCE = 10_000
_FRAME, _SKIPPED = 0xFD2FB528, 0x184D2A50  # first four bytes as a number; sixteen of the second kind
_REMEDY = "Unpack it first: zstd -d {}"


class ZstdLines:
    """Reads a file as a stream of bytes: each line without a carriage return at its end, and a line feed.

    Args:
        path: The file.

    Attributes:
        most_bytes: The file unpacks to no more than this.

    Raises:
        DataError: polars is too old to read it.
        ValueError: It is no complete zstd file.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(pl, "scan_lines"):
            rule = f"is compressed with zstd, which polars {pl.__version__} does not read"
            raise DataError(str(path), rule, remedy=_REMEDY.format(path.name))
        self._path, self._rest, self._num_read = path, b"", 0
        self.most_bytes = most_unpacked_bytes(path)
        self._batches = self._read_batches()

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end. Raises DataError where polars cannot unpack it, or it is no UTF-8."""
        while len(self._rest) < size and (batch := next(self._batches, b"")):
            self._rest += batch
        found, self._rest = self._rest[:size], self._rest[size:]
        self._num_read += len(found)
        return found

    def position(self) -> int:
        """About how many bytes of the file have been read: polars does not tell."""
        num_bytes = self._path.stat().st_size
        return min(num_bytes, num_bytes * self._num_read // max(self.most_bytes, 1))

    def _read_batches(self) -> Iterator[bytes]:
        try:
            lines = pl.scan_lines(self._path, glob=False)
            for batch in lines.collect_batches(chunk_size=_ROWS_AT_ONCE, maintain_order=True, lazy=True):
                yield "".join(f"{line}\n" for line in batch.to_series()).encode()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            rule = f"is compressed with zstd and cannot be read ({str(error).splitlines()[0]})"
            raise DataError(str(self._path), rule, remedy=_REMEDY.format(self._path.name)) from None


def most_unpacked_bytes(path: Path) -> int:
    """The most bytes that a zstd file can unpack to, by the sizes of its blocks; nothing is unpacked.

    Raises:
        ValueError: The file ends within a frame, or something else follows one.

    Source: RFC 8878, sections 3.1.1 and 3.1.2.
    """
    total, num_bytes = 0, path.stat().st_size
    with path.open("rb") as file:

        def number(size: int) -> int:
            found = file.read(size)
            if len(found) < size:
                raise ValueError("ends within a frame")
            return int.from_bytes(found, "little")

        while file.tell() < num_bytes:
            magic = number(4)
            if magic & 0xFFFFFFF0 == _SKIPPED:
                file.seek(number(4), 1)
                continue
            if magic != _FRAME:
                raise ValueError("holds something that is no frame")
            flags = number(1)
            is_single = bool(flags & 0x20)
            header = (0 if is_single else 1) + (0, 1, 2, 4)[flags & 3] + (1 if is_single else 0, 2, 4, 8)[flags >> 6]
            file.seek(header, 1)
            is_last = False
            while not is_last:
                block = number(3)
                is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
                total += _MOST_IN_A_BLOCK if kind == 2 else size
                file.seek(1 if kind == 1 else size, 1)
            file.seek(4 if flags & 4 else 0, 1)
        if file.tell() > num_bytes:
            raise ValueError("ends within a frame")
    return total
