from collections.abc import Iterator

import pytest
from library_harness import train_tiny
from serve_harness import Running, running

import athwe_core as athwe
from athwe_cli.serve.limits import Limits
from athwe_core.serving.service import RunSource


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> athwe.Run:
    """A run of one epoch on demo data of 150 users, which explains itself."""
    return train_tiny(tmp_path_factory.mktemp("serve"), preset="athwe", name="first")


@pytest.fixture(scope="session")
def source(run: athwe.Run) -> RunSource:
    folder = run.folder.path.parents[3]
    return RunSource(("first",), None, folder / "runs", folder / "prepared")


@pytest.fixture(scope="module")
def served(source: RunSource) -> Iterator[Running]:
    """The run, served with small limits."""
    with running(source, limits=Limits(k=20, histories=8, history=30, body_bytes=20_000)) as found:
        yield found
