"""Whether a fetched archive is whole, and the files that are taken out of a zip archive."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from athwe_core.data.readers.compression import refuse_bomb, unpacked
from athwe_core.data.sources.part_file import refuse_full_disk
from athwe_core.errors import DataError
from athwe_core.messages import listed, reason
from athwe_core.safe_write import replacing

_CHUNK_BYTES = 2**22
_STARTS = {
    ".gz": b"\x1f\x8b",
    ".zip": b"PK\x03\x04",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\x00",
    ".zst": b"\x28\xb5\x2f\xfd",
}
_DAMAGE = (EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile)


def require_whole(path: Path, name: str) -> None:
    """Read a fetched file to its end, unpacked, which compares the checksums of its archive.

    Args:
        path: The file.
        name: What it will be called; its ending is the format that it must have.
    Raises:
        DataError: It is another format, or damaged, or unpacks to far more than its size.
    """
    start = _STARTS.get(PurePosixPath(name).suffix)
    if start is not None:
        with path.open("rb") as file:
            found = file.read(len(start))
        if found != start:
            raise DataError(str(path), f"must be a {PurePosixPath(name).suffix} archive", found)
    with unpacked(path) as archive:
        while archive.read(_CHUNK_BYTES):
            pass


def unpack(path: Path, wanted: Sequence[str], folder: Path) -> None:
    """Take files out of a zip archive, whatever folder of it they are in.

    Args:
        path: The archive.
        wanted: Names of files, each in the archive once.
        folder: Gets the files; each replaces a file of its name when it is complete.
    Raises:
        DataError: The archive is damaged, lacks a file or has two of its name, or they unpack to more than the disk holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = {name: _member(path, archive, name) for name in wanted}
            num_bytes = sum(member.file_size for member in chosen.values())
            refuse_bomb(path, num_bytes, path.stat().st_size)
            refuse_full_disk(folder, num_bytes)
            for name, member in chosen.items():
                with (
                    replacing(folder / name) as temporary,
                    archive.open(member) as source,
                    temporary.open("wb") as file,
                ):
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
    except _DAMAGE as error:
        raise DataError(str(path), f"is not a complete zip archive ({reason(error)})") from None


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if PurePosixPath(info.filename).name == name and not info.is_dir()]
    found = [info for info in found if not info.filename.startswith("__MACOSX/")]
    if len(found) != 1:
        names = listed([info.filename for info in archive.infolist()])
        raise DataError(str(path), f"must hold one file {name}, and holds {names}")
    return found[0]
