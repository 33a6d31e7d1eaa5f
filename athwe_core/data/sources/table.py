"""The table of sources (YAML): which files make a data set, where they are, and on which terms they may be used."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from athwe_core.config import parse_yaml, read_yaml
from athwe_core.data.store.dataset import prepared_folder
from athwe_core.errors import ConfigError, require

SOURCES = "sources.yaml"
"""A user's own table, in the folder of the data sets."""
OWN_FILES = ("SHA256SUMS", "SOURCE.yaml")
"""What a download writes beside the files."""
_PLACEHOLDER = "{name}"
_ADDRESS = re.compile(r"https?://[^/?#\s]+(?:/[^/?#\s]*)*/([^/?#\s]+)(?:\?[^#\s]*)?")
"""Its first group is the name of the file."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_MOST_SHOWN = 3
_Text = Annotated[str, Field(min_length=1)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        url: Where it is.
        name: What it is called in the data set's folder.
        sha256: What its checksum must be; None where that is not known.
    """

    url: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class DataSource:
    """A data set that can be fetched.

    Attributes:
        name: Of the data set and of its folder.
        collection: The key of the table that it belongs to.
        title, page, terms, citation: What a user should know before using it; empty where the table does not tell.
        files: In the order of fetching.
        unpack: Files to take out of the only file, a zip archive; empty where the files are kept as they come.
    """

    name: str
    collection: str
    title: str
    page: str
    terms: str
    citation: str
    files: tuple[RemoteFile, ...]
    unpack: tuple[str, ...] = ()

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that the folder holds in the end."""
        return self.unpack or tuple(file.name for file in self.files)


class _Collection(BaseModel):
    """A section of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: _Text
    page: str = ""
    terms: str = ""
    citation: str = ""
    files: Annotated[tuple[_Text, ...], Field(min_length=1)]
    names: Annotated[tuple[_Text, ...], Field(min_length=1)]
    folder: _Text = _PLACEHOLDER
    unpack: tuple[_Text, ...] = ()
    sha256: Mapping[str, _Sha256] = Field(default_factory=dict)


def known_sources(data_dir: Path, extra: Path | None = None) -> dict[str, DataSource]:
    """The data sets that can be fetched, by name.

    Args:
        data_dir: Folder of the data sets; the table in its `sources.yaml` takes precedence over the package's.
        extra: A further table (`--sources`), which takes precedence over both.
    Raises:
        ConfigError: `extra` does not exist, or a table is no YAML, or has keys, names or addresses that are not allowed.
    """
    if extra is not None:
        require(extra.is_file(), "--sources", "must be a file", str(extra), "Check the path")
    found = dict(_of_package())
    for path in (data_dir / SOURCES, extra):
        if path is not None and (path == extra or path.is_file()):
            found |= _sources(read_yaml(path), str(path))
    return found


def find_download(name: str, known: Mapping[str, DataSource]) -> DataSource:
    """The source of a data set. Raises ConfigError with the likeliest names for an unknown one."""
    if name in known:
        return known[name]
    lower = {other.lower(): other for other in known}
    close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=_MOST_SHOWN)]
    hint = f", did you mean {' or '.join(close)}?" if close else ""
    rule = f"must be in the table of sources{hint}"
    raise ConfigError("data set", rule, name, "List them: athwe download")


def commands(name: str, data_dir: Path) -> tuple[str, str]:
    """The commands that fetch and prepare a data set, as typed."""
    where = "" if str(data_dir) == os.environ.get("ATHWE_DATA", "dataset") else f" --data {shlex.quote(str(data_dir))}"
    return f"athwe download {name}{where}", f"athwe prepare --dataset {name}{where}"


@cache
def _of_package() -> dict[str, DataSource]:
    text = resources.files(__package__).joinpath(SOURCES).read_text(encoding="utf-8")
    return _sources(parse_yaml(text, SOURCES), SOURCES)


def _sources(tree: Mapping[str, object], where: str) -> dict[str, DataSource]:
    found: dict[str, DataSource] = {}
    for key, section in tree.items():
        place = f"{where}: {key}"
        require(isinstance(section, dict), place, "must be a section with title, files and names", section)
        try:
            collection = _Collection.model_validate(section)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            inner = ".".join(map(str, first["loc"]))
            remedy = "Compare it with the table in docs/download.md"
            raise ConfigError(f"{place}.{inner}", f"cannot be used ({first['msg']})", first["input"], remedy) from None
        for name in collection.names:
            source = _source(str(key), collection, name, place)
            require(source.name not in found, place, "must name each data set once", source.name)
            found[source.name] = source
    return found


def _source(key: str, collection: _Collection, name: str, place: str) -> DataSource:
    folder = collection.folder.replace(_PLACEHOLDER, name)
    prepared_folder(Path(), folder)  # refuses what is no plain name
    urls = [url.replace(_PLACEHOLDER, name) for url in collection.files]
    files = tuple(_remote_file(url, collection.sha256, place) for url in urls)
    source = DataSource(
        folder,
        key,
        *(collection.title, collection.page, collection.terms, collection.citation),
        files,
        collection.unpack,
    )
    if source.unpack:
        require(len(files) == 1, f"{place}.unpack", "is for one file, a zip archive", len(files))
    names = source.file_names
    for each in names:
        is_plain = _FILE_NAME.fullmatch(each) and each not in OWN_FILES
        require(bool(is_plain), f"{place}.files", "must end with a plain file name", each)
    require(len(set(names)) == len(names), f"{place}.files", "must have different names", names)
    return source


def _remote_file(url: str, checksums: Mapping[str, str], place: str) -> RemoteFile:
    found = _ADDRESS.fullmatch(url)
    if found is None or not url.isprintable():
        raise ConfigError(f"{place}.files", "must be http or https addresses that end with a file name", url)
    return RemoteFile(url, found[1], checksums.get(found[1]))
