"""Shape checks inside the layers while testing, and small worlds: interactions, a catalogue, a network on both.

Every jaxtyping annotation of the modules below is checked at run time by beartype, in the tests of the rooms below: there
every layer, loss and model is called. Elsewhere the checks would take a third of the time and find nothing else.
"""

import gc
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
import typer.testing
from hypothesis import settings
from numpy.typing import NDArray

pytest_plugins = ["tiny_models"]
SHAPE_CHECKED = [f"athwe_core.{room}" for room in ("batch", "losses", "models", "nn")]
CHECKING = {"test_batch.py", "evaluation", "losses", "models", "nn"}
"""Tests that check shapes, by the first part of their path."""
jaxtyping.install_import_hook(SHAPE_CHECKED, "beartype.beartype")


from athwe_core.batch import Catalogue, TimeRange  # noqa: E402 - after the import hook
from athwe_core.config import Config  # noqa: E402
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare  # noqa: E402
from athwe_core.data.split import Split, leave_one_out  # noqa: E402
from athwe_core.models.athwe.model import Athwe  # noqa: E402
from athwe_core.models.protocol import ModelInputs  # noqa: E402
from athwe_core.models.registry import build_config, replace_in  # noqa: E402

torch.set_num_threads(1)  # on tensors this small a second thread costs far more than it brings
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for the processes that tests start
settings.register_profile("quick", max_examples=30, deadline=None)
settings.load_profile("quick")
gc.set_threshold(100_000, 50, 50)  # the libraries are a million objects, through which each collection looks
os.fsync = lambda descriptor: None  # no test cuts the power, and waiting for the disk adds up
typer.testing._get_command = cache(typer.testing._get_command)  # or each call builds the whole command line anew

TESTS = Path(__file__).parent
START = 1_400_000_001
"""An odd second that float32 cannot hold."""
NUM_ROWS, NUM_CATEGORIES, NUM_CLUSTERS = 14, 3, 4
SMALL = ("model.hidden_size=8", "model.inner_size=12", "model.max_length=6", "training.precision=fp32")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with few tests first: they hold the long ones, after which a process at the end would wait for another."""
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: counts[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes in this test, or do not."""
    jaxtyping.config.update("jaxtyping_disable", item.path.relative_to(TESTS).parts[0] not in CHECKING)


@dataclass(frozen=True)
class SmallData:
    """CSR interactions, as packing needs them, split leave-one-out."""

    offsets: NDArray[np.int64]
    item_ids: NDArray[np.int32]
    timestamps: NDArray[np.int64]

    @property
    def split(self) -> Split:
        return leave_one_out(self.offsets)


@pytest.fixture(scope="session")
def make_data() -> Callable[..., SmallData]:
    """Interactions of users with the given numbers of items (held-out ones included), odd seconds, uneven gaps."""

    def make(lengths: Sequence[int], *, num_rows: int = NUM_ROWS, seed: int = 0) -> SmallData:
        rng = np.random.default_rng(seed)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        gaps = rng.integers(0, 40, offsets[-1]) ** 4
        times = np.concatenate([START + np.cumsum(gaps[a:b]) for a, b in pairwise(offsets)])
        return SmallData(offsets, rng.integers(1, num_rows, offsets[-1]).astype(np.int32), times.astype(np.int64))

    return make


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """13 items with text and image vectors of unlike widths, categories and clusters; some items have no cluster.

    Items 5 and 10 are no training target.
    """
    generator = torch.Generator().manual_seed(1)

    def labels(none: int) -> torch.Tensor:
        found = torch.arange(NUM_ROWS) % NUM_CLUSTERS
        found[[0, none]] = -1
        return found

    return Catalogue(
        num_item_rows=NUM_ROWS,
        features={
            "text": torch.randn(NUM_ROWS, 7, generator=generator),
            "image": torch.randn(NUM_ROWS, 5, generator=generator),
        },
        categories=torch.randint(0, 2, (NUM_ROWS, NUM_CATEGORIES), generator=generator),
        clusters={"text": labels(none=3), "image": labels(none=7)},
        target_counts=torch.arange(NUM_ROWS) % 5,
    )


@pytest.fixture(scope="session")
def time_range() -> TimeRange:
    return TimeRange(first=START, last=START + 40_000_000, longest_interval=40**4)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """A preset at small sizes without dropout, after overrides."""

    def make(preset: str, *overrides: str) -> Config:
        return replace_in(build_config(preset), [*SMALL, "model.dropout=0", *overrides])

    return make


@pytest.fixture(scope="session")
def make_network(catalogue: Catalogue, time_range: TimeRange) -> Callable[..., Athwe]:
    """The network of a configuration; with `spread`, weights large enough for every input to matter."""

    def make(config: Config, *, seed: int = 0, spread: float | None = None) -> Athwe:
        generator = torch.Generator().manual_seed(seed)
        network = Athwe(config, ModelInputs(catalogue, time_range, generator=generator))
        if spread is not None:
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.normal_(0, spread, generator=generator)
        return network

    return make


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A demo data set of 150 users."""
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareOptions(demo_users=150, demo_items=100)
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=options)
