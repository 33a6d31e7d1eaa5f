"""Runs that are served and replaced while requests come: none is lost, each is answered by the model it was made for."""

import gc
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import athwe_core as athwe
from athwe_core.errors import AthweError, ConfigError, DataError
from athwe_core.serving.engine import Engine
from athwe_core.serving.service import RunSource, Served, Service


class Named:
    """Answers with its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def answer(self, requests: Sequence[int]) -> list[tuple[str, int]]:
        return [(self.name, request) for request in requests]


class Versions:
    """A source whose version a test sets."""

    def __init__(self) -> None:
        self.now, self.opened, self.is_broken = "1", 0, False

    def version(self) -> str:
        return self.now

    def open(self) -> Served:
        if self.is_broken:
            raise DataError("weights", "are damaged")
        self.opened += 1
        return Served((f"run {self.now}",), self.now, Named(self.now), None)  # type: ignore[arg-type]


def test_no_request_is_lost_while_models_are_replaced() -> None:
    source = Versions()
    service = Service(source, max_batch=8)
    stop = threading.Event()
    found: list[tuple[str, int, list[Any]]] = [("1", 0, [("1", 0)])]

    def ask() -> None:
        number = 0
        while not stop.is_set():
            answerer: Any = service.served.engine
            found.append((answerer.name, number, service.submit(answerer, [number]).result(10)))
            number += 1

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    for version in range(2, 30):
        source.now = str(version)
        assert service.reload()
        assert not service.reload()
        while found[-1][0] != str(version):
            time.sleep(0.001)
    stop.set()
    for caller in callers:
        caller.join(10)
    service.close()
    assert source.opened == 29
    assert all(answer == [(name, number)] for name, number, answer in found)


def test_a_model_that_cannot_be_loaded_leaves_the_one_that_was_there() -> None:
    source = Versions()
    service = Service(source)
    source.now, source.is_broken = "2", True
    with pytest.raises(DataError, match="weights are damaged"):
        service.reload()
    assert service.served.names == ("run 1",)
    source.is_broken = False
    assert service.reload()
    assert service.served.names == ("run 2",)
    service.close()


def test_memory_is_looked_after_and_a_replaced_model_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr("athwe_core.serving.service.CHECK_BATCHES", 2)
    monkeypatch.setattr("athwe_core.training.allocator.HeapTrimmer.look", lambda _: looks.append(1))
    source = Versions()
    service = Service(source)
    answerer: Any = service.served.engine
    for number in range(5):
        assert service.submit(answerer, [number]).result(10) == [("1", number)]
    assert len(looks) == 2
    old = weakref.ref(answerer)
    del answerer
    source.now = "2"
    service.reload()
    service.submit(service.served.engine, [1]).result(10)  # the thread holds its last batch until the next one
    assert old() is None
    service.close()


@pytest.fixture(scope="module")
def folder(run: athwe.Run) -> Path:
    return run.folder.path.parents[3]


def source_of(folder: Path, *runs: str, **options: Any) -> RunSource:
    return RunSource(runs, None, folder / "runs", folder / "prepared", **options)


def test_a_run_with_its_page_and_without(run: athwe.Run, folder: Path) -> None:
    served = source_of(folder, "served").open()
    assert served.names == ("demo/sasrec/served",)
    assert served.explorer is not None
    assert served.explorer.opened.runs[0].model is served.engine.trained.model
    assert source_of(folder, "last", with_page=False).open().explorer is None


def test_a_newer_run_is_another_version(run: athwe.Run, folder: Path) -> None:
    source = source_of(folder, str(run.folder.path))
    before = source.version()
    assert source.version() == before
    state = run.folder.best / "state.json"
    state.touch()
    assert source.version() != before


def test_an_opened_run_is_freed_without_the_garbage_collector(run: athwe.Run, folder: Path) -> None:
    """A replaced model must not stay until a collection happens to run."""
    gc.disable()
    try:
        served = source_of(folder, "served").open()
        assert served.explorer is not None
        served.explorer.picture("a")
        engine = served.engine
        engine.answer([engine.similar_request(run.data.item_tokens[1], k=1, allowed=(2, 3))])
        held = [weakref.ref(engine), weakref.ref(served.explorer), weakref.ref(engine.trained.model)]
        del served, engine
        assert [each() for each in held] == [None, None, None]
    finally:
        gc.enable()


def test_an_exported_model_answers_without_its_data_set(run: athwe.Run, folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    run.export(model, form="hub")
    source = source_of(folder, str(model))
    served = source.open()
    assert served.explorer is None
    assert served.version == source.version()
    tokens = run.data.item_tokens
    asked = ([tokens[3], tokens[4]], [10, 20])
    (theirs,) = served.engine.answer([served.engine.recommend_request(*asked, k=5)])
    mine = Engine(run._trained)
    assert theirs == mine.answer([mine.recommend_request(*asked, k=5)])[0]
    run.export(model, form="hub", columns=("title",), overwrite=True)
    assert source.version() != served.version


def test_runs_that_are_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--run must be a run in"):
        source_of(folder, "nothing").open()
    with pytest.raises(AthweError, match="must name another run"):
        source_of(folder, "served", "served").open()
