"""A model that answers many callers, and is replaced while it runs when a newer one is there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from athwe_core.analysis.case_study.loaded_run import open_runs
from athwe_core.errors import DataError
from athwe_core.runs.checkpoint import STATE
from athwe_core.runs.find import RunFolder, find_run
from athwe_core.serving.batching import Batcher
from athwe_core.serving.engine import Engine
from athwe_core.serving.explorer import Explorer, Pictures
from athwe_core.serving.hub import CONFIG, HUB, is_hub, open_hub
from athwe_core.serving.trained_model import as_trained, open_trained
from athwe_core.training.allocator import HeapTrimmer

CHECK_BATCHES = 256
"""Batches between two checks of the process's memory."""


class Answerer(Protocol):
    """Answers requests of its own kind: an `Engine` or an `Explorer`."""

    def answer(self, requests: Sequence[Any]) -> Sequence[Any]:
        """One answer for each request, in their order."""
        ...


@dataclass(frozen=True, eq=False)
class Served:
    """Runs, opened.

    Attributes:
        names: of the runs; the first one answers.
        version: changes when a run is replaced.
        engine: of the first run.
        explorer: of all runs; None where there is no page.
    """

    names: tuple[str, ...]
    version: str
    engine: Engine
    explorer: Explorer | None


class Source(Protocol):
    """Where runs come from."""

    def version(self) -> str:
        """Changes when `open` would open another model. Cheap. Raises AthweError or OSError where there is none now."""
        ...

    def open(self) -> Served:
        """Load the models. Raises AthweError or OSError."""
        ...


@dataclass(frozen=True)
class RunSource:
    """Runs by the names that a user types.

    Attributes:
        runs: names, at least one, each as in `find_run`; one alone may be a model of the hub.
        dataset: where `last` looks.
        runs_dir, prepared_dir: folders of runs and of prepared versions.
        with_page: whether users, items and reasons are wanted too, which takes the data set.
        images: pictures of items.
    """

    runs: tuple[str, ...]
    dataset: str | None
    runs_dir: Path
    prepared_dir: Path
    with_page: bool = True
    images: Pictures | None = None

    def version(self) -> str:
        """The runs that the names mean now, and when their best weights were written."""
        return " ".join(map(self._version_of, self.runs))

    def _version_of(self, run: str) -> str:
        if run.startswith(HUB):
            return run
        is_exported = is_hub(run)
        folder = None if is_exported else self._find(run)
        written = (Path(run) / CONFIG if folder is None else folder.best / STATE).stat()
        return f"{run if folder is None else folder.path} {written.st_mtime_ns} {written.st_size}"

    def open(self) -> Served:
        """Load the runs."""
        version = self.version()  # before, so that what changes from here on is noticed later
        first = self.runs[0]
        if is_hub(first):
            return Served((first,), version, Engine(open_hub(first)), None)
        folders = [self._find(run) for run in self.runs]
        names = tuple(folder.name for folder in folders)
        if not self.with_page:
            data = folders[0].open_data(self.prepared_dir)
            return Served(names, version, Engine(open_trained(folders[0], data)), None)
        opened = open_runs(folders, self.prepared_dir)
        engine = Engine(as_trained(opened.runs[0].model, folders[0], opened.prepared))
        return Served(names, version, engine, Explorer(opened, self.images))

    def _find(self, run: str) -> RunFolder:
        return find_run(self.runs_dir, run, dataset=self.dataset)


class Service:
    """Answers requests in batches with what a source has.

    Args:
        source: opened at once, and again by `reload`.
        max_batch, max_queue, timeout_seconds: as in `Batcher`.
    """

    def __init__(self, source: Source, *, max_batch: int = 64, max_queue: int = 1024, timeout_seconds: float = 10.0):
        self._source = source
        self._served = source.open()
        self._trimmer, self._num_batches = HeapTrimmer(), 0
        self.batcher: Batcher[tuple[Answerer, Any], Any] = Batcher(
            self._answers, max_batch=max_batch, max_queue=max_queue, timeout_seconds=timeout_seconds
        )

    @property
    def served(self) -> Served:
        """What answers now. A request is made and submitted with one `Served`; it stays with that one after a reload."""
        return self._served

    def submit(self, answerer: Answerer, requests: Sequence[Any]) -> Future[list[Any]]:
        """Queue requests that `answerer` made; see `Batcher.submit`."""
        return self.batcher.submit([(answerer, request) for request in requests])

    def reload(self) -> bool:
        """Load the source again where it has changed. Requests are answered meanwhile, by the model that was there.

        Returns: whether there is another model now.
        Raises: AthweError or OSError where the source cannot be loaded; the model that was there stays.
        """
        if self._source.version() == self._served.version:
            return False
        found = self._source.open()
        if self._served.explorer is not None and found.explorer is None:
            raise DataError("run", "has no data set any more, so it has no page", found.names[0])
        self._served = found
        return True

    def close(self) -> None:
        """Take no more requests, and answer those that wait."""
        self.batcher.close()

    def _answers(self, tasks: Sequence[tuple[Answerer, Any]]) -> list[Any]:
        """Answers in the order of the tasks; neighbours of one answerer are computed together."""
        found: list[Any] = []
        for answerer, group in groupby(tasks, key=lambda task: task[0]):
            found += answerer.answer([request for _, request in group])
        self._num_batches += 1
        if self._num_batches % CHECK_BATCHES == 0:
            self._trimmer.look()
        return found
