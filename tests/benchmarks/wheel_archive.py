"""Wheels as one small archive, and back: python tests/benchmarks/wheel_archive.py pack WHEELS FOLDER | unpack FOLDER WHEELS.

A wheel is a zip of files compressed one by one. Stored without that compression, all in one tar file, xz makes them a third
smaller; its filter for x86 code helps further.
"""

from __future__ import annotations

import lzma
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ARCHIVE = "wheels.tar.xz"
MOST_BYTES = 40e6
FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**26},
]


def pack(wheels: Path, folder: Path) -> int:
    """Write every wheel of one folder to the archive in another; returns its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / ARCHIVE
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "wheels.tar"
        with tarfile.open(plain, "w") as archive:
            for wheel in sorted(wheels.glob("*.whl")):
                archive.add(_stored(wheel, Path(temporary)), arcname=wheel.name)
        with plain.open("rb") as source, lzma.open(target, "wb", format=lzma.FORMAT_XZ, filters=FILTERS) as out:
            while block := source.read(2**24):
                out.write(block)
    return target.stat().st_size


def unpack(folder: Path, wheels: Path) -> list[Path]:
    """Write the wheels of the archive to a folder; returns their paths."""
    wheels.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / ARCHIVE, "r:xz") as archive:
        archive.extractall(wheels, filter="data")
    return sorted(wheels.glob("*.whl"))


def _stored(wheel: Path, folder: Path) -> Path:
    """A copy of the wheel without compression and without the tests of its package."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for entry in (entry for entry in source.infolist() if "/tests/" not in entry.filename):
            target.writestr(zipfile.ZipInfo(entry.filename, entry.date_time), source.read(entry))
    return copy


def main(action: str, source: str, target: str) -> None:
    if action == "unpack":
        print(f"{len(unpack(Path(source), Path(target)))} wheels in {target}")
        return
    size = pack(Path(source), Path(target))
    print(f"{Path(target) / ARCHIVE}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 1e6:.0f} MB: leave a package out")


if __name__ == "__main__":
    main(*sys.argv[1:])
