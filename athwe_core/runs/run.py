"""The files of a run on disk, their locks, and the errors when they cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from athwe_core.errors import CheckpointError, ConfigError, DataError
from athwe_core.locks import HeldError, held, remove_lost
from athwe_core.runs.json_files import read_object, read_object_lines
from athwe_core.runs.schema import RESTORE, EpochRecord, require_manifest, require_record
from athwe_core.safe_write import file_hash, reason, remove_abandoned, replace_text, replacing

if TYPE_CHECKING:
    import polars as pl

    from athwe_core.config import Config
    from athwe_core.data.store.dataset import PreparedDataset

CONFIG, MANIFEST, METRICS, PER_USER = "config.yaml", "manifest.json", "metrics.jsonl", "per_user.parquet"
LOG = "log.txt"
"""What the command line printed: for people, read by no code."""
LOCK = ".lock"
"""Exists while a process trains the run; the text beside it tells who, where and since when."""
CHANGE_LOCK = ".change.lock"
"""Exists for the moment in which a process reads, changes and writes the manifest or the ranks."""
CHANGE_WAIT_SECONDS = 60.0
RANKS = "ranks"
"""Key of the manifest: SHA-256 that each file of ranks may have."""
INIT_FROM = "init_from"
"""Key of the manifest: the run or file whose weights the run starts from."""
FINISHED, RUNNING, INTERRUPTED = "finished", "running", "interrupted"
TRAINED = "trained"
"""Status of a run on all data at its end: it has no results and is compared with no other run."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and what is written to them."""

    path: Path

    @property
    def name(self) -> str:
        """`dataset/preset/name`, by which every command finds the run."""
        return "/".join(self.path.parts[-3:])

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, for when the last is damaged."""
        return self.path / "checkpoints" / "previous"

    @property
    def per_user(self) -> Path:
        return self.path / PER_USER

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the system releases it when the process ends, however it ends.

        What a killed process left half-written is removed.
        Raises:
            CheckpointError: Another process trains the run, or nothing can be written to it.
        """
        from athwe_core.runs.checkpoint import settle

        with ExitStack() as stack:
            try:
                stack.enter_context(held(self.path / LOCK))
                remove_abandoned(self.path)
                for checkpoint in (self.best, self.last, self.previous):
                    settle(checkpoint)
            except HeldError as error:
                rule = f"is being trained by {error}"
                raise CheckpointError(f"run {self.name}", rule, remedy=error.remedy) from None
            except OSError as error:
                rule, remedy = f"cannot be written to ({reason(error)})", f"Fix that, then: {self.resume_command}"
                raise CheckpointError(f"run {self.name}", rule, remedy=remedy) from None
            yield

    def release_lost(self, *, process: int, host: str) -> None:
        """Remove the locks of a process on a host that is known to be gone, see `locks.remove_lost`."""
        for lock in (LOCK, CHANGE_LOCK):
            remove_lost(self.path / lock, process=process, host=host)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one process at a time change the manifest and the ranks. Raises CheckpointError."""
        with ExitStack() as stack:
            try:
                with refusals(self.path / MANIFEST):
                    stack.enter_context(held(self.path / CHANGE_LOCK, wait_seconds=CHANGE_WAIT_SECONDS))
            except HeldError as error:
                rule = f"is being changed by {error}"
                raise CheckpointError(f"run {self.name}", rule, remedy=error.remedy) from None
            yield

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return f"athwe train --resume {self.name}"

    def config(self) -> Config:
        """The complete configuration."""
        from athwe_core.config import read_yaml
        from athwe_core.models.registry import config_from_tree

        path = self.path / CONFIG
        try:
            tree = read_yaml(path)
        except ConfigError as error:
            raise CheckpointError(error.name, error.rule, remedy=RESTORE) from None
        try:
            return config_from_tree(tree)
        except ConfigError as error:
            found: dict[str, Any] = {} if error.value is None else {"value": error.value}
            raise ConfigError(f"{path}: {error.name}", error.rule, remedy=error.remedy or RESTORE, **found) from None

    def manifest(self) -> dict[str, Any]:
        """Provenance, status and, once finished, results."""
        manifest = read_object(self.path / MANIFEST, remedy=RESTORE)
        require_manifest(str(self.path / MANIFEST), manifest, has_results=manifest.get("status") == FINISHED)
        return manifest

    def update_manifest(self, **facts: Any) -> None:
        """Add facts to the manifest, replacing the file whole.

        Raises:
            CheckpointError: There is no manifest, or the disk refuses.
        """
        with self._changing():
            write_manifest(self.path, self.manifest() | facts)

    @property
    def damage(self) -> CheckpointError | None:
        """Why the run cannot be used: its manifest is unreadable; None where it can."""
        try:
            self.manifest()
        except CheckpointError as error:
            return error
        return None

    def metrics(self) -> list[EpochRecord]:
        """One record per finished epoch; CheckpointError with the line where one is damaged."""
        path = self.path / METRICS
        records: list[EpochRecord] = []
        for name, record in read_object_lines(path, remedy=RESTORE) if path.exists() else ():
            require_record(name, record, epoch=len(records) + 1)
            records.append(cast(EpochRecord, record))
        return records

    def write_metrics(self, records: Sequence[EpochRecord]) -> None:
        """Replace the epoch records."""
        with refusals(self.path / METRICS):
            replace_text(self.path / METRICS, "".join(json.dumps(record) + "\n" for record in records))

    def write_ranks(self, frame: pl.DataFrame, *, file: str = PER_USER) -> None:
        """Put ranks in place of those of the same splits; ranks of other splits stay where they can be read.

        Args:
            frame: Lines of `per_user_frame`.
            file: Name of the file in the run's folder.
        Raises:
            CheckpointError: The disk refuses.
        """
        import polars as pl

        from athwe_core.runs.checkpoint import not_written
        from athwe_core.runs.rank_table import read_ranks

        path = self.path / file
        with self._changing():
            frames = [frame]
            with suppress(CheckpointError):  # no file, or a damaged one: the other split has to be ranked again
                before = read_ranks(path, digests=self._digests(file), remedy="")
                frames.insert(0, before.filter(~pl.col("split").is_in(frame["split"].unique().to_list())))
            try:
                with refusals(path), replacing(path) as temporary:
                    pl.concat(frames).write_parquet(temporary)
                    self._accept(file, temporary)
            except pl.exceptions.PolarsError as error:  # so it calls a full disk
                raise not_written(path, error) from None

    def _digests(self, file: str) -> list[str] | None:
        """SHA-256 that a file of ranks may have; None in runs of version 0.1.0. Raises CheckpointError."""
        known = self.manifest().get(RANKS, {})
        digests = known.get(file) if isinstance(known, dict) else []
        if digests is not None and not (isinstance(digests, list) and all(isinstance(each, str) for each in digests)):
            raise CheckpointError(f"{self.path / MANIFEST}: {RANKS}", "must be checksums by file", remedy=RESTORE)
        return digests

    def _accept(self, file: str, new: Path) -> None:
        """Note the checksum of the file that is about to be put in place; until it is, the present one counts too."""
        path, manifest = self.path / file, self.manifest()
        digests = [file_hash(new), *([file_hash(path)] if path.exists() else [])]
        write_manifest(self.path, manifest | {RANKS: {**manifest.get(RANKS, {}), file: digests}})

    def ranks(self, split: str) -> pl.DataFrame:
        """Lines of `per_user.parquet` of a split (see `per_user_frame`), in the order of users.

        Raises:
            CheckpointError: The file is unreadable or holds nothing of the split.
        """
        import polars as pl

        from athwe_core.runs.rank_table import read_ranks

        remedy = f"Rank the users again: athwe evaluate --run {self.name} --split {split}"
        found = read_ranks(self.per_user, digests=self._digests(PER_USER), remedy=remedy)
        frame = found.filter(pl.col("split") == split)
        if frame.is_empty():
            raise CheckpointError(str(self.per_user), f"must hold ranks of the {split} split", remedy=remedy)
        return frame

    def open_data(self, prepared_dir: Path, *, check_all: bool = False) -> PreparedDataset:
        """Open the prepared version the run was trained on.

        Args:
            prepared_dir: Folder of prepared versions.
            check_all: Read every file of it whole, see `open_prepared`.
        Raises: DataError when it is gone or its content is another one now.
        """
        from athwe_core.data.store.dataset import open_prepared

        data = self.manifest()["data"]
        prepared = open_prepared(data["name"], prepared_dir=prepared_dir, version=data["version"], check_all=check_all)
        if prepared.manifest["content_hash"] != data["content_hash"]:
            raise DataError(
                f"prepared data set {data['name']} version {data['version']}",
                f"must be the one run {self.name} was trained on, content {data['content_hash'][:12]}",
                prepared.manifest["content_hash"][:12],
                "Prepare it again from the same files, or train again",
            )
        return prepared.trained_on(data.get("split_rule"))


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Replace the manifest of the run in `folder`."""
    path = folder / MANIFEST
    with refusals(path):
        replace_text(path, json.dumps(facts, indent=2) + "\n")


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the system refuses while `path` is written, as a CheckpointError."""
    try:
        yield
    except OSError as error:
        from athwe_core.runs.checkpoint import not_written

        raise not_written(path, error) from None
