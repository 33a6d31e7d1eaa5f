"""Small demo data sets, configurations that train in no time, and runs that were never trained."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
import torch

from athwe_core.analysis.case_study.loaded_run import CaseRuns, open_runs
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.evaluation.evaluate import rank_users
from athwe_core.evaluation.groups import per_user_frame
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.models.athwe.network import Network
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import replace_in
from athwe_core.runs.checkpoint import save_checkpoint
from athwe_core.runs.find import FINISHED, RunFolder, create_run
from athwe_core.training.build import build_setup

MakeConfig = Callable[..., Config]
TINY = ("training.batch_targets=64", "training.epochs=2", "training.device=cpu", "model.num_layers=1")
CASE_RUNS = {
    "athwe": ("athwe", ()),
    "two": ("hm4sr", ("model.modalities=[id, text]", "model.num_layers=1", "model.max_length=4", "training.seed=1")),
    "centred": ("athwe-published", ("training.seed=2",)),
    "plain": (
        "hm4sr",
        ("model.interactive_moe.enabled=false", "model.temporal_moe.enabled=false", "losses.pcl.weight=0"),
    ),
    "sasrec": ("sasrec", ("training.seed=3", "model.max_length=6")),
}
"""Name of a run to preset and overrides."""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A demo data set of 100 users."""
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareOptions(demo_users=100, demo_items=100)
    return prepare("demo", data_dir=folder, prepared_dir=folder, options=options)


@pytest.fixture
def tiny_config(small: PreparedDataset, make_config: MakeConfig) -> MakeConfig:
    """A preset that fits the data set, at sizes at which two epochs take a moment."""

    def make(*overrides: str, preset: str = "athwe") -> Config:
        return adapt_to_data(replace_in(make_config(preset), [*TINY, *overrides]), small)[0]

    return make


@pytest.fixture
def finished(tmp_path: Path, small: PreparedDataset) -> Callable[..., RunFolder]:
    """A finished run under `tmp_path` whose users' targets have the given ranks in both splits; its weights are as drawn."""

    def make(
        config: Config,
        *,
        ranks: Sequence[float] | None = None,
        preset: str = "athwe",
        name: str,
        epochs: int = 3,
        seconds: float = 2.0,
    ) -> RunFolder:
        run = create_run(tmp_path, config, small, preset=preset, name=name, command="test")
        network: Network = build_setup(config, small).model
        save_checkpoint(run.best, network, {"progress": {}})
        places = [1.0] * small.num_users if ranks is None else list(ranks)
        frames = [per_user_frame(small, places, split=split) for split in ("validation", "test")]
        pl.concat(frames).write_parquet(run.per_user)
        record = {"seconds": seconds, "validation_seconds": 1.0}
        run.write_metrics([{"epoch": epoch + 1, **record} for epoch in range(epochs)])
        metrics = mean_metrics(places, config.evaluation.ks)
        results = {"best_epoch": 1, "epochs": epochs, "seconds_per_epoch": seconds}
        results |= {"validation": metrics, "test": metrics}
        run.update_manifest(status=FINISHED, device="cpu", results=results)
        return run

    return make


@pytest.fixture(scope="session")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


@pytest.fixture(scope="session")
def case_data(case_folder: Path) -> PreparedDataset:
    options = PrepareOptions(demo_users=150, demo_items=100)
    return prepare("demo", data_dir=case_folder, prepared_dir=case_folder / "prepared", options=options)


@pytest.fixture(scope="session")
def run_folders(
    case_folder: Path, case_data: PreparedDataset, make_config: Callable[..., Config]
) -> dict[str, RunFolder]:
    """Runs by name, with best weights and per-user ranks of the test split."""
    folders = {}
    for name, (preset, overrides) in CASE_RUNS.items():
        config, _ = adapt_to_data(make_config(preset, *overrides), case_data)
        run = create_run(case_folder / "runs", config, case_data, preset=preset, name=name, command="test")
        network = build_setup(config, case_data).model
        generator = torch.Generator().manual_seed(config.training.seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0, 0.4, generator=generator)
        save_checkpoint(run.best, network, {"progress": {"best_value": 0.25, "best_epoch": 3}})
        ranks = rank_users(network, case_data, split="test")
        frame: pl.DataFrame = per_user_frame(case_data, ranks, split="test")
        frame.write_parquet(run.per_user)
        folders[name] = run
    return folders


@pytest.fixture(scope="session")
def opened(case_folder: Path, run_folders: dict[str, RunFolder]) -> CaseRuns:
    return open_runs(list(run_folders.values()), case_folder / "prepared")
