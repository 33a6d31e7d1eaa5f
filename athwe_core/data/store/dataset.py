"""Prepared data sets on disk: `PREPARED/NAME/<version>/` with arrays and a manifest; `current` names one version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int32, Int64, UInt8

from athwe_core.data.split import ALL_DATA, LEAVE_ONE_OUT, REFIT, Split, leave_one_out
from athwe_core.data.store.schema import MANIFEST, damaged, read_version
from athwe_core.errors import ConfigError, DataError
from athwe_core.host_process import require_polars
from athwe_core.locks import HeldError, held
from athwe_core.messages import clipped, listed, near_miss, reason
from athwe_core.safe_write import file_hash, replace_text, sync, unfinished_folder
from athwe_core.safe_write import reason as disk_reason

if TYPE_CHECKING:
    import polars as pl

CURRENT = "current"
LOCK = ".lock"
"""There while a process prepares the data set: who, where and since when."""
MAX_NAME_BYTES = 200
"""Of a data set; file systems take 255, and files are named after it."""
_VERSION = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, eq=False, repr=False)
class PreparedDataset:
    """One prepared version; its arrays are read-only memory maps. U users, I interactions, V items with padding.

    Attributes:
        name, path, version: Data set, its folder, and the 12 hex digits that name the version.
        manifest: Content hash, options, sources, statistics, features, category names, notes and item-to-row pairs.
        offsets: (U + 1,) int64; interactions `offsets[u]:offsets[u + 1]` are user u's, in time order.
        item_ids: (I,) int32, 1..num_items; 0 is padding and never occurs.
        timestamps: (I,) int64 seconds since 1970 UTC.
        text_features, image_features: (V, F) float32 or float16, zero rows for padding and missing; None = modality off.
        text_layers, image_layers: (V, S, F) float16 states of the encoders' layers, zero rows likewise; None = none.
        categories: (V, C) uint8 multi-hot; None = no categories.
        text_clusters, image_clusters: (V,) int32 labels, -1 = none; None = no labels.
        training_ends, validation_rows, test_rows: (U,) int64, see `Split`; None = leave-one-out.
        file_rows: (I,) int64, increasing in the order of the source file; None in versions older than the audit.
    """

    name: str
    path: Path
    version: str
    manifest: dict[str, Any]
    offsets: Int64[np.ndarray, "U_plus_1"]
    item_ids: Int32[np.ndarray, "I"]
    timestamps: Int64[np.ndarray, "I"]
    text_features: Float[np.ndarray, "V F_text"] | None = None
    image_features: Float[np.ndarray, "V F_image"] | None = None
    categories: UInt8[np.ndarray, "V C"] | None = None
    text_clusters: Int32[np.ndarray, "V"] | None = None
    image_clusters: Int32[np.ndarray, "V"] | None = None
    text_layers: Float[np.ndarray, "V S F_text"] | None = None
    image_layers: Float[np.ndarray, "V S F_image"] | None = None
    training_ends: Int64[np.ndarray, "U"] | None = None
    validation_rows: Int64[np.ndarray, "U"] | None = None
    test_rows: Int64[np.ndarray, "U"] | None = None
    file_rows: Int64[np.ndarray, "I"] | None = None

    def __repr__(self) -> str:
        size = f"{self.num_users:,} users, {self.num_items:,} items, {len(self.item_ids):,} interactions"
        return f"<PreparedDataset {self.name}: {size}, version {self.version}>"

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """Items without the padding."""
        return int(self.manifest["statistics"]["items"])

    @property
    def num_item_rows(self) -> int:
        """Rows of every item table: the items and the padding row 0."""
        return self.num_items + 1

    @property
    def statistics(self) -> dict[str, Any]:
        """What `prepare --json` prints."""
        return dict(self.manifest["statistics"])

    @cached_property
    def split(self) -> Split:
        """Which rows are training, and which are asked for. Raises DataError where a user has too few for that."""
        if self.training_ends is None or self.validation_rows is None or self.test_rows is None:
            try:
                return leave_one_out(np.asarray(self.offsets))
            except ConfigError as error:
                raise damaged(self.path, self.name, f"{error.name} {error.rule}, got {error.value}") from None
        arrays = (self.offsets[:-1], self.training_ends, self.validation_rows, self.test_rows)
        return Split(*(np.asarray(array) for array in arrays))

    @property
    def split_rule(self) -> str:
        """`leave-one-out`, `global-time`, `given`; `refit` holds out the test items alone, `all-data` nothing."""
        return str(self.manifest["statistics"].get("split", LEAVE_ONE_OUT))

    def without_held_out(self) -> PreparedDataset:
        """The same with all interactions for training: nothing is left to evaluate on."""
        ends = np.asarray(self.offsets[1:])
        return self._with_split(ALL_DATA, ends, test_rows=np.full(self.num_users, -1, np.int64))

    def with_validation_for_training(self) -> PreparedDataset:
        """The same with the validation items for training: only the test items are left to evaluate on."""
        split = self.split
        ends = np.where(split.validation >= 0, split.validation + 1, split.training_end)
        return self._with_split(REFIT, ends, test_rows=split.test)

    def trained_on(self, rule: str | None) -> PreparedDataset:
        """The same under the split rule that a run recorded: `refit` and `all-data` are not prepared, but derived."""
        derived = {ALL_DATA: self.without_held_out, REFIT: self.with_validation_for_training}
        return derived[rule]() if rule in derived else self

    def _with_split(
        self, rule: str, training_ends: Int64[np.ndarray, "U"], *, test_rows: Int64[np.ndarray, "U"]
    ) -> PreparedDataset:
        manifest = {**self.manifest, "statistics": {**self.manifest["statistics"], "split": rule}}
        none = np.full(self.num_users, -1, np.int64)
        return replace(self, manifest=manifest, training_ends=training_ends, validation_rows=none, test_rows=test_rows)

    @property
    def rules(self) -> str:
        """What every result depends on beside the network, in words."""
        return f"{self.split_rule} split, ties in {self.manifest['statistics']['tie_order']} order"

    @cached_property
    def user_tokens(self) -> list[str]:
        """Raw user ids by user number, 0-based. Raises DataError where the file is damaged."""
        return self._table("users", "user_id", self.num_users)["user_id"].to_list()

    @cached_property
    def item_tokens(self) -> list[str]:
        """Raw item ids by internal id; `item_tokens[0]` is the padding's empty string."""
        return self.item_table()["item_id"].to_list()

    def item_table(self) -> pl.DataFrame:
        """Text columns of the items; row k is internal id k, row 0 (padding) holds empty strings.

        Raises:
            DataError: The file is damaged.
        """
        return self._table("items", "item_id", self.num_item_rows)

    def item_values(self, column: str) -> Int64[np.ndarray, "V"]:
        """Number of each item's text in a column of the items: 1 = the most frequent, equal counts by text; 0 = no text.

        Raises:
            DataError: There is no such column, it is empty, or the file is damaged.
        """
        table = self.item_table()
        if column not in table.columns:
            rule = f"has no column {clipped(column)}; its columns are {listed(table.columns)}"
            raise DataError(f"item metadata of {self.name}", rule, remedy="Name another")
        texts = table[column].to_list()
        counts = Counter(text for text in texts if text)
        if not counts:
            raise DataError(f"item metadata of {self.name}", f"has no value in column {column}", remedy="Name another")
        by_count = sorted(counts, key=lambda text: (-counts[text], text))
        number = {text: index for index, text in enumerate(by_count, start=1)}
        return np.array([number.get(text, 0) for text in texts], np.int64)

    def _table(self, stem: str, column: str, num_item_rows: int) -> pl.DataFrame:
        import polars as pl  # noqa: PLC0415  (training opens data sets without it)

        require_polars()
        path = self.path / f"{stem}.parquet"
        try:
            written = self.manifest.get("files", {}).get(path.name) or self.manifest.get("tables", {}).get(stem)
            if written is not None and file_hash(path) != written:  # polars may end the process over a damaged file
                raise damaged(self.path, self.name, f"{stem}.parquet is not what was written")
            found = pl.read_parquet(path, glob=False)
        except (OSError, MemoryError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise damaged(self.path, self.name, f"{stem}.parquet: {reason(error)}") from None
        if len(found) != num_item_rows or found.schema.get(column) != pl.String or found[column].has_nulls():
            raise damaged(self.path, self.name, f"{stem}.parquet does not hold {num_item_rows} texts {column}")
        return found


def prepared_folder(prepared_dir: Path, name: str) -> Path:
    """Return `prepared_dir/NAME`. Raises ConfigError when NAME is no plain folder name."""
    if not re.fullmatch(r"[^/\\\0]+", name) or name.startswith(".") or Path(name).is_absolute():
        rule = "must be a plain name without path separators or a leading dot"
        raise ConfigError("data set name", rule, clipped(name), "Name a folder of the data folder")
    if not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        rule = f"must be printable and have at most {MAX_NAME_BYTES} bytes"
        raise ConfigError("data set name", rule, clipped(name), "Rename its folder")
    return Path(prepared_dir) / name


def list_versions(name: str, *, prepared_dir: Path) -> list[str]:
    """Versions of `name` on disk, oldest first; empty when there is none."""
    folder = prepared_folder(prepared_dir, name)
    found = [path for path in folder.glob("*") if _VERSION.fullmatch(path.name) and (path / MANIFEST).is_file()]
    return [path.name for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))]


def current_version(name: str, *, prepared_dir: Path) -> str | None:
    """The version marked current, None when nothing is prepared. What a damaged mark says is no version."""
    marker = prepared_folder(prepared_dir, name) / CURRENT
    if not marker.is_file():
        return None
    with marker.open("rb") as file:
        return file.read(64).decode("utf-8", "replace").strip()


def open_prepared(
    name: str, *, prepared_dir: Path, version: str | None = None, check_all: bool = False
) -> PreparedDataset:
    """Open a prepared version, by default the current one.

    Args:
        name: Name of the data set.
        prepared_dir: Folder of prepared versions.
        version: Its 12 hex digits; None = the version marked current.
        check_all: Read every file whole and compare it with its checksum. Without it, that is done only where size, time of
            change or sampled blocks of a file differ from the last time.
    Raises:
        ConfigError: NAME is no plain folder name.
        DataError: NAME is not prepared, has no such version, or its files are damaged.
    """
    folder = prepared_folder(prepared_dir, name)
    versions = list_versions(name, prepared_dir=prepared_dir)
    if not versions:
        raise DataError(
            f"data set {name!r}",
            f"is not prepared in {prepared_dir}{near_miss(name, prepared_names(Path(prepared_dir)))}",
            remedy=f"Run: athwe prepare --dataset {name}",
        )
    if version is None:
        version = current_version(name, prepared_dir=prepared_dir)
        version = versions[-1] if version is None else version
    if version not in versions:
        rule = f"must be one of {', '.join(versions)}"
        remedy = f"Or run: athwe prepare --dataset {name}"
        raise DataError(f"prepared version of {name!r}", rule, clipped(version), remedy)
    path = folder / version
    manifest, arrays = read_version(path, name, check_all=check_all)
    return PreparedDataset(name=name, path=path, version=version, manifest=manifest, **arrays)


@contextmanager
def new_version(folder: Path, version: str) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes `folder/version` in one rename, on failure it goes.

    What a killed process left unfinished in `folder` goes too. Nothing is left of `folder` where it stays empty.
    Raises: DataError when another process prepares the data set, or the disk refuses; what was there stays.
    """
    try:
        with written_to(folder), _only_here(folder), unfinished_folder(folder) as temporary:
            yield temporary
            temporary.chmod(0o755)  # it was private until now
            for path in (*temporary.iterdir(), temporary):
                sync(path)
            try:
                temporary.rename(folder / version)
            except OSError:
                if not (folder / version / MANIFEST).is_file():  # else another process was faster: same content
                    raise
            sync(folder)
    finally:
        with suppress(OSError):
            folder.rmdir()


def mark_current(folder: Path, version: str) -> None:
    """Make `version` the one that opens by default. Raises DataError when the disk refuses."""
    with written_to(folder):
        replace_text(folder / CURRENT, version + "\n")


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """What the system refuses while `folder` is written to, as a DataError; of files elsewhere as it is."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(folder):
            raise
        rule = f"could not be written ({disk_reason(error)})"
        remedy = "What was there is kept: mend that, then run the same command again"
        raise DataError(f"prepared data set {folder}", rule, remedy=remedy) from None


@contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    """Hold the data set for this process; the system lets go of it when the process ends, however it ends."""
    with ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(folder / LOCK))
                break
            except FileNotFoundError:  # another process found the folder empty just now and removed it
                continue
            except HeldError as error:
                rule = f"is being prepared by {error}"
                raise DataError(f"data set {folder.name!r}", rule, remedy=error.remedy) from None
        yield


def prepared_names(prepared_dir: Path) -> list[str]:
    """Names of the prepared data sets, sorted."""
    return sorted(path.parent.name for path in prepared_dir.glob(f"*/{CURRENT}"))
