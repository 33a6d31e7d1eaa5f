"""A run that starts from other weights: what fits is loaded, items are matched by id, the rest is reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError
from athwe_core.runs.checkpoint import save_checkpoint
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.training.build import build_setup
from athwe_core.training.initial_weights import (
    InitialWeights,
    build_from,
    find_initial_weights,
    load_fitting,
    save_first_checkpoint,
    sentences,
)
from athwe_core.training.loop import train
from athwe_core.training.state import TrainingState

SETTINGS = ("training.batch_targets=200", "training.lr=1e-30", "training.epochs=1", "model.num_layers=2")
"""A rate at which no weight moves."""


@pytest.fixture
def make_run(tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]) -> Callable[..., RunFolder]:
    def make(name: str, *overrides: str, **options: Any) -> RunFolder:
        config = make_config("sasrec", *SETTINGS, *overrides)
        return create_run(tmp_path, config, prepared, preset="sasrec", name=name, command="test", **options)

    return make


@pytest.fixture
def source(make_run: Callable[..., RunFolder], prepared: PreparedDataset) -> RunFolder:
    """A run with a best checkpoint of random weights, drawn from another seed."""
    run = make_run("source", "training.seed=7")
    save_checkpoint(run.best, build_setup(run.config(), prepared).model, TrainingState().state())
    return run


class Silence:
    """A listener."""

    def epoch_begins(self, epoch: int, **_: Any) -> None: ...

    def step_ends(self, step: int, means: dict[str, float]) -> None: ...

    def epoch_ends(self, record: Any, *, is_best: bool) -> None: ...


def test_training_goes_on_from_the_weights_of_a_run(
    make_run: Callable[..., RunFolder], source: RunFolder, prepared: PreparedDataset, tmp_path: Path
) -> None:
    initial = find_initial_weights("source", tmp_path, prepared.path.parents[1])
    run = make_run("new", init_from=initial.source)
    setup, notes = build_from(run.config(), prepared, initial)
    weights = load_file(source.best / "weights.safetensors")
    assert notes[0] == f"initial weights from run demo/sasrec/source: {len(weights)} of {len(weights)} weights loaded"
    assert (
        notes[1]
        == f"tables.id.weight: loaded for {prepared.num_items} of {prepared.num_items} items, the others start anew"
    )
    save_first_checkpoint(run, setup)
    train(run, prepared, listener=Silence())
    trained = load_file(run.last / "weights.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(trained[name], value, msg=name)
    assert run.manifest()["init_from"] == "run demo/sasrec/source"


def test_a_run_that_was_killed_before_its_weights_were_there_does_not_start_without_them(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("killed", init_from="run a/b/c")
    with pytest.raises(CheckpointError, match=r"must have the weights of run a/b/c to start from\. Delete its folder"):
        train(run, prepared, listener=Silence())


def test_rows_of_items_are_matched_by_item_id(
    make_config: Callable[..., Config], prepared: PreparedDataset, source: RunFolder
) -> None:
    weights = load_file(source.best / "weights.safetensors")
    old = [*prepared.item_tokens[:1], "gone", *reversed(prepared.item_tokens[3:])]
    weights["tables.id.weight"] = torch.arange(float(len(old)))[:, None].expand(-1, 8)
    config = make_config("sasrec", *SETTINGS)
    fresh, model = (build_setup(config, prepared).model for _ in range(2))
    loaded = load_fitting(model, InitialWeights("run x", weights, old), prepared.item_tokens)
    assert loaded.by_item == ["tables.id.weight"]
    assert loaded.known_items == prepared.num_items - 2
    for row, token in enumerate(prepared.item_tokens):
        expected = fresh.tables.id.weight[row] if row in (1, 2) else torch.full((8,), float(old.index(token)))
        torch.testing.assert_close(model.tables.id.weight[row], expected)


def test_what_does_not_fit_is_left_and_reported(
    make_config: Callable[..., Config], prepared: PreparedDataset, source: RunFolder
) -> None:
    weights = load_file(source.best / "weights.safetensors")
    weights["position"] = torch.zeros(5, 8)
    weights["gru.weight"] = weights.pop("input_norm.weight")
    config = make_config("sasrec", *SETTINGS)
    fresh, model = (build_setup(config, prepared).model for _ in range(2))
    initial = InitialWeights("file w.safetensors", weights)
    loaded = load_fitting(model, initial, prepared.item_tokens)
    assert (loaded.other_shape, loaded.new) == (["position"], ["input_norm.weight"])
    assert (loaded.unknown_items, loaded.unused) == (["tables.id.weight"], ["gru.weight"])
    for name in ("position", "input_norm.weight", "tables.id.weight"):
        assert torch.equal(model.get_parameter(name), fresh.get_parameter(name)), name
    assert torch.equal(model.get_parameter("input_norm.bias"), weights["input_norm.bias"])
    assert sentences(loaded, initial, num_items=9) == [
        f"initial weights from file w.safetensors: {len(loaded.whole)} of {len(loaded.whole) + 3} weights loaded",
        "tables.id.weight: not loaded, file w.safetensors does not tell the items of their rows, or its data set is gone",
        "position: not loaded, the shape is another",
        "input_norm.weight: not in file w.safetensors",
        "gru.weight: only in file w.safetensors",
    ]


def test_weights_of_which_none_fits_are_refused(make_config: Callable[..., Config], prepared: PreparedDataset) -> None:
    initial = InitialWeights("file w.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(
        ConfigError, match=r"^--init-from must have a weight that fits model sasrec: file w\.safetensors has none"
    ):
        build_from(make_config("sasrec"), prepared, initial)


def test_files_are_read_and_their_faults_named(source: RunFolder, tmp_path: Path, prepared: PreparedDataset) -> None:
    good = source.best / "weights.safetensors"
    found = find_initial_weights(str(good), tmp_path, tmp_path)
    assert found.item_ids is None
    assert found.weights.keys() == load_file(good).keys()
    bad, torn = tmp_path / "bad.safetensors", tmp_path / "torn.safetensors"
    save_file({"a": torch.tensor([float("nan")])}, bad)
    torn.write_bytes(b"nothing")
    for path, rule in (
        (bad, "must hold finite values, and a is not finite"),
        (torn, "must be a readable safetensors file"),
        (tmp_path / "no.safetensors", r"must be a readable file \(No such file or directory\)"),
    ):
        with pytest.raises(CheckpointError, match=rule):
            find_initial_weights(str(path), tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="must be a run in"):
        find_initial_weights("nowhere", tmp_path, tmp_path)


def test_a_run_whose_data_is_gone_gives_its_other_weights(source: RunFolder, tmp_path: Path) -> None:
    found = find_initial_weights("source", tmp_path, tmp_path / "nowhere")
    assert found.item_ids is None
    assert len(found.weights) > 1


def test_a_run_without_weights_is_refused(
    make_run: Callable[..., RunFolder], tmp_path: Path, prepared: PreparedDataset
) -> None:
    make_run("empty")
    with pytest.raises(CheckpointError, match="must have finished an epoch"):
        find_initial_weights("empty", tmp_path, prepared.path.parents[1])
