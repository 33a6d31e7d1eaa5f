"""A public data set into its folder: what is there already stays, what comes is checked, and its checksums are recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from athwe_core.data.readers.reading import ignore
from athwe_core.data.sources.archive import require_whole, unpack
from athwe_core.data.sources.fetch import Fetcher
from athwe_core.data.sources.part_file import FullDiskError, PartFile, refuse_full_disk
from athwe_core.data.sources.table import OWN_FILES, DataSource, RemoteFile
from athwe_core.errors import DataError
from athwe_core.locks import HeldError, held
from athwe_core.safe_write import file_hash, replace_text, sync

CHECKSUMS, ORIGIN = OWN_FILES
_LOCK = ".download.lock"
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_AGAIN = "Run the command again; where it happens again, the file on the server is damaged"


@dataclass(frozen=True)
class DownloadPlan:
    """What is to be fetched.

    Attributes:
        source: The data set.
        folder: Its folder.
        missing: The files to fetch, each with its size in bytes, None where the server does not tell.
        kept: Names of files that are there already, with the checksum that was recorded.
        unknown: Names of files that are there already, without a record.
    """

    source: DataSource
    folder: Path
    missing: tuple[tuple[RemoteFile, int | None], ...]
    kept: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def num_bytes(self) -> int | None:
        """Bytes to fetch; None where the size of a file is unknown."""
        sizes = [size for _, size in self.missing if size is not None]
        return sum(sizes) if len(sizes) == len(self.missing) else None


@dataclass(frozen=True)
class DownloadedFile:
    """A file that was fetched: its name in the folder, its bytes, and their SHA-256."""

    name: str
    bytes: int
    sha256: str


def plan_download(source: DataSource, data_dir: Path, fetcher: Fetcher, *, overwrite: bool = False) -> DownloadPlan:
    """Find out what of a data set is missing, and how large it is.

    Args:
        source: The data set.
        data_dir: Folder of the data sets.
        fetcher: Asks for the sizes.
        overwrite: Fetch files that are there already again.
    Raises:
        DataError: A file on disk differs from its recorded checksum, the server lacks a file, or the disk has no room.
    """
    folder = data_dir / source.name
    there = {name for name in source.file_names if (folder / name).is_file() and not overwrite}
    if source.unpack and len(there) < len(source.unpack):
        there = set()  # what is missing is in the archive with the others
    recorded = read_checksums(folder)
    for name in sorted(there & recorded.keys()):
        if file_hash(folder / name) != recorded[name]:
            rule = f"differs from its checksum in {CHECKSUMS}"
            raise DataError(str(folder / name), rule, remedy="To fetch it again: --overwrite")
    wanted = source.files if not there else () if source.unpack else [f for f in source.files if f.name not in there]
    missing = tuple((file, fetcher.size(file.url)) for file in wanted)
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    left = sum(max((size or 0) - PartFile(folder / file.name).size, 0) for file, size in missing)
    refuse_full_disk(place, left)
    return DownloadPlan(
        source, folder, missing, tuple(sorted(there & recorded.keys())), tuple(sorted(there - recorded.keys()))
    )


def run_download(
    plan: DownloadPlan,
    fetcher: Fetcher,
    *,
    progress: Callable[[str, int, int], None] = ignore,
    notify: Callable[[str], None] = ignore,
) -> list[DownloadedFile]:
    """Fetch what a plan lacks.

    Args:
        plan: What to fetch. Its folder is made.
        fetcher: Fetches.
        progress: Called with the name of a file, its bytes on disk, and its bytes in all (0 where unknown).
        notify: Called with one sentence for each archive that is being checked or unpacked.
    Returns:
        The files that were fetched, or taken out of an archive.
    Raises:
        DataError: See `Fetcher.fetch`; or a file is damaged, or has another checksum than the table says, and is removed.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    found: list[DownloadedFile] = []
    with _alone(plan.folder):
        for file, _ in plan.missing:
            target = plan.folder / file.name
            part = fetcher.fetch(file.url, target, progress=lambda d, t, name=file.name: progress(name, d, t))  # type: ignore[misc]
            notify(f"checking {file.name}")
            with _removed_if_damaged(file, target):
                if file.sha256 is not None and (checksum := file_hash(part)) != file.sha256:
                    raise DataError(str(part), f"must have the checksum {file.sha256}", checksum)
                if plan.source.unpack:
                    unpack(part, plan.source.unpack, plan.folder)
                else:
                    require_whole(part, file.name)
            if not plan.source.unpack:
                sync(part)
                part.replace(target)
            PartFile(target).remove()
            names = plan.source.unpack or (file.name,)
            new = [
                DownloadedFile(name, (plan.folder / name).stat().st_size, file_hash(plan.folder / name))
                for name in names
            ]
            found += new
            _record(plan, new)
    return found


def read_checksums(folder: Path) -> dict[str, str]:
    """The recorded SHA-256 of the files of a folder; empty where there is no record."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    lines = map(_CHECKSUM_LINE.fullmatch, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {line[2]: line[1] for line in lines if line}


def _record(plan: DownloadPlan, files: list[DownloadedFile]) -> None:
    """Write the checksums, as `sha256sum -c` reads them, and where the files come from."""
    checksums = read_checksums(plan.folder) | {file.name: file.sha256 for file in files}
    text = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items()))
    replace_text(plan.folder / CHECKSUMS, text)
    source = plan.source
    facts = {
        "title": source.title,
        "page": source.page,
        "terms": source.terms,
        "citation": source.citation,
        "files": [file.url for file in source.files],
        "fetched": datetime.now(UTC).isoformat("T", "seconds"),
    }
    replace_text(plan.folder / ORIGIN, yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))


@contextmanager
def _removed_if_damaged(file: RemoteFile, target: Path) -> Iterator[None]:
    try:
        yield
    except FullDiskError:
        raise
    except DataError as error:
        PartFile(target).remove()
        raise DataError(file.url, f"came damaged and was removed: {error.rule}", remedy=_AGAIN) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One download into a folder at a time."""
    try:
        with held(folder / _LOCK):
            yield
    except HeldError as error:
        raise DataError(str(folder), f"is being filled by {error}", remedy=error.remedy) from None
