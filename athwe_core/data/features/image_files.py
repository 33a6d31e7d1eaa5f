"""Pictures of items in a folder or a zip archive, named by item id; what is in them is not trusted."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from athwe_core.data.store.dataset import prepared_folder
from athwe_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FORMATS = ("JPEG", "PNG", "WEBP")
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png"}
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others are unpacked without a limit: 350 bytes of bzip2 take 600 MB."""
JPEG_QUALITY = 85
_NO_WAIT, _AS_BYTES = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_BINARY", 0)  # of POSIX, of Windows


@dataclass(frozen=True)
class ImageSource:
    """Pictures by raw item id: `ITEM.jpg`, `.jpeg`, `.png` or `.webp`, at the top or one level down.

    Attributes:
        path: The folder or the zip archive.
        entries: Item id to the file, or the member of the archive. An id is only ever looked up here, never made part of a
            path.
        broken: Items, in the order they were asked for, whose picture is no picture, no plain file, or larger than
            `MAX_BYTES` or `MAX_PIXELS`.
    """

    path: Path
    entries: dict[str, str]
    broken: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> ImageSource:
        """List the pictures of a folder or zip archive; where an item has several, the first by name counts.

        Raises:
            DataError: `path` is neither.
        """
        path = Path(path)
        if path.is_dir():
            names = sorted(str(file.relative_to(path)) for file in _files(path))
        elif path.is_file() and zipfile.is_zipfile(path):
            try:
                with zipfile.ZipFile(path) as archive:
                    names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
            except Exception as error:  # of a foreign archive it raises many kinds
                raise DataError(str(path), f"must be a readable zip archive ({error})") from None
        else:
            raise DataError(str(path), "must be a folder or a zip archive of pictures named by item id")
        entries: dict[str, str] = {}
        for name in names:
            parts = PurePosixPath(name).parts
            is_hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
            if len(parts) <= 2 and not is_hidden and name.lower().endswith(SUFFIXES):
                entries.setdefault(PurePosixPath(name).stem, name)
        return cls(path, entries)

    def __len__(self) -> int:
        return len(self.entries)

    def has(self, item_id: str) -> bool:
        """Whether there is a file for the item; it may still turn out to be broken."""
        return item_id in self.entries

    def picture(self, item_id: str, *, size: int | None = None) -> Image | None:
        """The item's picture in RGB on white, at most `size` pixels on a side where given.

        Returns: None where there is none or it is broken, see `broken`.
        """
        if item_id not in self.entries:
            return None
        try:
            return _decode(self._read(self.entries[item_id]), size)
        except Exception:  # decoders of untrusted bytes fail in dozens of ways, all of which mean the same here
            if item_id not in self.broken:
                self.broken.append(item_id)
            return None

    def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
        """The item's picture as JPEG of at most `size` pixels on a side; None where there is none or it is broken."""
        picture = self.picture(item_id, size=size)
        if picture is None:
            return None
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()

    def fingerprint(self) -> str:
        """SHA-256 over item, length and CRC-32 of every picture: the same from a folder and from an archive of it.

        Of what is too large to be a picture the length counts.
        """
        digest = hashlib.sha256()
        for item_id, entry in sorted(self.entries.items()):
            length, crc = self._length_and_crc(entry)
            digest.update(f"{item_id}\t{length}\t{crc:08x}\n".encode())
        return digest.hexdigest()

    def _length_and_crc(self, entry: str) -> tuple[int, int]:
        """-1 and 0 of what is a broken picture, as `picture` will say."""
        try:
            if not self.path.is_dir():
                member = self._archive.getinfo(entry)
                return member.file_size, member.CRC if member.file_size <= MAX_BYTES else 0
            with _plain_file(self.path / entry) as file:
                length, crc = os.fstat(file.fileno()).st_size, 0
                while length <= MAX_BYTES and (block := file.read(2**20)):
                    crc = zlib.crc32(block, crc)
        except (OSError, KeyError, ValueError):
            return -1, 0
        return length, crc

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)  # closes itself when collected; its directory takes long to read

    def _read(self, entry: str) -> bytes:
        if self.path.is_dir():
            with _plain_file(self.path / entry) as file:
                content = file.read(MAX_BYTES + 1)
        else:
            if self._archive.getinfo(entry).compress_type not in _UNPACKED:
                raise ValueError("neither stored nor deflated")
            with self._archive.open(entry) as member:
                content = member.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError("too many bytes")
        return content


@contextmanager
def _plain_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to read; ValueError of anything else: a pipe would be waited for, a device read for ever."""
    with open(os.open(path, os.O_RDONLY | _NO_WAIT | _AS_BYTES), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("no plain file")
        yield file


def picture_suffix(content: bytes) -> str:
    """`.jpg`, `.png` or `.webp`, by what the bytes are.

    Raises:
        ValueError: They are no whole picture of these kinds, or one of more than `MAX_PIXELS`.
    """
    is_webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    suffix = (
        ".webp" if is_webp else next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)
    )
    if suffix is None:
        raise ValueError(f"is no JPEG, PNG or WebP but begins with {content[:12]!r}")
    try:
        _decode(content, 64)
    except Exception as error:  # see `picture`
        raise ValueError(f"is a broken picture ({error})") from None
    return suffix


def find_images(data_dir: Path, dataset: str) -> ImageSource | None:
    """The pictures of a data set: the folder `images/` in `data_dir/DATASET`, else the first `images*.zip`; None = none."""
    folder = prepared_folder(data_dir, dataset)
    found = [path for path in (folder / "images", *sorted(folder.glob("images*.zip"))) if path.exists()]
    return ImageSource.open(found[0]) if found else None


def _files(folder: Path) -> Iterator[Path]:
    """Files in `folder` and in the folders directly in it."""
    for path in folder.iterdir():
        yield from (file for file in (path.iterdir() if path.is_dir() else (path,)) if file.is_file())


def _decode(content: bytes, size: int | None) -> Image:
    """RGB of a JPEG, PNG or WebP; raises whatever its decoder raises, and for one of too many pixels."""
    from PIL import Image  # noqa: PLC0415 - heavy, and most work needs no picture

    with Image.open(io.BytesIO(content), formats=_FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError("too many pixels")
        if size is not None:
            file.draft("RGB", (size, size))  # a JPEG decodes at a fraction of its size
        picture = file.convert("RGBA" if "A" in file.getbands() or "transparency" in file.info else "RGB")
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    if size is not None:
        picture.thumbnail((size, size))
    return picture
