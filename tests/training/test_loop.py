"""Training on a small demo data set: what it leaves, that it stops, and that a stopped run ends as if it had not been."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from athwe_core.config import Config
from athwe_core.data import long_arrays
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, NonFiniteLossError
from athwe_core.evaluation import blocks, evaluate
from athwe_core.evaluation.baselines import training_popularity
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.models.inputs import adapt_to_data, target_counts, training_time_range
from athwe_core.models.registry import replace_in
from athwe_core.runs import checkpoint
from athwe_core.runs.find import RunFolder, create_run
from athwe_core.training import loop, ranking_progress
from athwe_core.training import step as step_module
from athwe_core.training.build import build_setup
from athwe_core.training.loop import Result, train
from athwe_core.training.optim import make_optimizer
from athwe_core.training.state import restore

SIZES = ("training.batch_targets=200", "training.epochs=3", "training.lr=0.003", "model.dropout=0.2")


class Silence:
    """A listener that remembers the epochs."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.best: list[bool] = []

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        pass

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        self.steps.append(step)

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        self.best.append(is_best)


@pytest.fixture
def make_run(tmp_path: Path, prepared: PreparedDataset, make_config: Callable[..., Config]) -> Callable[..., RunFolder]:
    def make(name: str, *overrides: str, preset: str = "athwe") -> RunFolder:
        config, _ = adapt_to_data(make_config(preset, *SIZES, *overrides), prepared)
        return create_run(tmp_path, config, prepared, preset=preset, name=name, command="test")

    return make


def stop_after(steps: int, listener: Silence) -> Callable[[], bool]:
    return lambda: len(listener.steps) >= steps


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(run.best / "weights.safetensors")


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in records]


@pytest.mark.parametrize("preset", ["athwe", "hm4sr", "athwe-published"])
def test_every_preset_trains_to_the_end(
    preset: str, make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", "training.epochs=2", preset=preset)
    result = train(run, prepared, listener=Silence())
    assert result.finished
    records = run.metrics()
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[1]["losses"]["ce"] < records[0]["losses"]["ce"]
    assert run.manifest()["results"] == result.results


@pytest.mark.parametrize(
    "settings",
    [
        ("training.batching=packed", "training.precision=fp32"),
        ("training.batching=prefix", "training.precision=bf16"),
        ("training.batching=packed", "training.schedule.kind=one-cycle", "training.weight_decay=0.1"),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(
    settings: tuple[str, ...], make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    settings = (*settings, "training.epochs=2")
    straight, broken = make_run("straight", *settings), make_run("broken", *settings)
    expected = train(straight, prepared, listener=Silence())
    for steps in (2, 1):
        listener = Silence()
        assert train(broken, prepared, listener=listener, should_stop=stop_after(steps, listener)) == Result(False, {})
        assert broken.manifest()["status"] == "interrupted"
    found = train(broken, prepared, listener=Silence())
    timeless = {"best_epoch", "epochs", "validation", "test"}
    assert {k: found.results[k] for k in timeless} == {k: expected.results[k] for k in timeless}
    assert without_times(broken.metrics()) == without_times(straight.metrics())
    for name, value in weights(straight).items():
        assert torch.equal(weights(broken)[name], value), name


@pytest.mark.parametrize("ranking", [1, 2], ids=["validation", "test"])
def test_a_run_stopped_while_it_ranks_goes_on_to_the_same_end(
    ranking: int, make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = make_run("straight", "training.epochs=1"), make_run("broken", "training.epochs=1")
    expected = train(straight, prepared, listener=Silence())
    ranked: list[int] = []
    tiled_ranks = evaluate.tiled_ranks

    def noted(*given: Any, **named: Any) -> torch.Tensor:
        ranked.append(len(given[1]))
        return tiled_ranks(*given, **named)

    monkeypatch.setattr(blocks, "BLOCK_USERS", 16)
    monkeypatch.setattr(evaluate, "tiled_ranks", noted)
    a_ranking = -(-len(prepared.split.users("test")) // 16)
    until = (ranking - 1) * a_ranking + 2
    listener = Silence()
    stopped = train(broken, prepared, listener=listener, should_stop=lambda: len(ranked) >= until)
    assert stopped == Result(False, {})
    assert len(ranked) == until
    assert broken.manifest()["status"] == "interrupted"
    steps = len(listener.steps)
    found = train(broken, prepared, listener=listener)
    assert len(listener.steps) == steps  # none was taken again
    timeless = {"best_epoch", "epochs", "validation", "test"}
    assert {k: found.results[k] for k in timeless} == {k: expected.results[k] for k in timeless}
    assert without_times(broken.metrics()) == without_times(straight.metrics())
    for name, value in weights(straight).items():
        assert torch.equal(weights(broken)[name], value), name


def test_a_long_ranking_says_how_far_it_is(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_USERS", 50)
    said: list[str] = []
    train(make_run("run", "training.epochs=1"), prepared, listener=Silence(), notify=said.append)
    assert said == []
    monkeypatch.setattr(ranking_progress, "SECONDS_BETWEEN", 0.0)
    train(make_run("slow", "training.epochs=1"), prepared, listener=Silence(), notify=said.append)
    users = len(prepared.split.users("test"))
    assert users > 100
    of_one = [f"{done:,} of {users:,} users ranked" for done in range(50, users, 50)]
    expected = [f"{split}: {each}" for split in ("validation", "test") for each in of_one]
    assert [sentence.rsplit(",", 1)[0] for sentence in said] == expected
    assert all(re.fullmatch(r" \d+ s left", sentence.rsplit(",", 1)[1]) for sentence in said)


def test_a_sample_of_users_chooses_the_epoch_and_the_results_are_of_all(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", "training.epochs=2", "evaluation.validation_users=20")
    results = train(run, prepared, listener=Silence()).results
    assert [record["validation_users"] for record in run.metrics()] == [20, 20]
    chosen = max(run.metrics(), key=lambda record: record["validation"]["ndcg@20"])
    assert results["best_epoch"] == chosen["epoch"]
    ranks = run.ranks("validation")["rank"].to_numpy()
    assert len(ranks) == len(prepared.split.users("validation"))
    assert results["validation"] == mean_metrics(ranks, (5, 10, 20, 50))
    assert results["validation"]["ndcg@20"] != chosen["validation"]["ndcg@20"]


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_says_so(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    straight, broken = make_run("straight", "training.epochs=2"), make_run("broken", "training.epochs=2")
    expected = train(straight, prepared, listener=Silence())
    for steps in (2, 2):
        listener = Silence()
        train(broken, prepared, listener=listener, should_stop=stop_after(steps, listener))
    damaged = broken.last / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    said: list[str] = []
    found = train(broken, prepared, listener=Silence(), notify=said.append)
    assert len(said) == 1
    assert "is damaged" in said[0]
    assert "going on from the one before" in said[0]
    assert found.results["test"] == expected.results["test"]
    assert without_times(broken.metrics()) == without_times(straight.metrics())


def test_with_both_checkpoints_damaged_it_stops_rather_than_starting_again(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", "training.epochs=2")
    for steps in (2, 2):
        listener = Silence()
        train(run, prepared, listener=listener, should_stop=stop_after(steps, listener))
    for folder in (run.last, run.previous):
        (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        train(run, prepared, listener=Silence())


def test_saves_inside_an_epoch_when_the_time_is_up(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run, listener = make_run("run", "training.epochs=1"), Silence()

    def look() -> bool:
        if len(listener.steps) == 3:
            progress = json.loads((run.last / "state.json").read_text())["progress"]
            assert (progress["epoch"], progress["step"]) == (0, 2)
        return False

    assert train(run, prepared, listener=listener, should_stop=look, checkpoint_minutes=1e-9).finished
    assert len(listener.steps) >= 3


def test_a_finished_run_resumed_only_repeats_its_results(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("run", "training.epochs=1")
    first = train(run, prepared, listener=Silence())
    listener = Silence()
    monkeypatch.setattr(loop, "rank_users", None)
    assert train(run, prepared, listener=listener).results == first.results
    assert listener.steps == []


def test_stops_early_after_patience_epochs_without_a_better_one(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", "training.lr=1e-12", "training.patience=2", "training.epochs=50")
    listener = Silence()
    result = train(run, prepared, listener=listener)
    best = max(i for i, is_best in enumerate(listener.best) if is_best)
    assert len(listener.best) == best + 1 + 2
    assert result.results["best_epoch"] == best + 1


def test_same_seed_same_run_other_seed_another(make_run: Callable[..., RunFolder], prepared: PreparedDataset) -> None:
    one = [train(make_run(name, "training.epochs=1"), prepared, listener=Silence()).results["test"] for name in "ab"]
    other = train(make_run("c", "training.epochs=1", "training.seed=1"), prepared, listener=Silence()).results["test"]
    assert one[0] == one[1]
    assert one[0] != other


def test_reading_steps_late_changes_nothing(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, listeners = [make_run(name, "training.epochs=2") for name in "ab"], [Silence(), Silence()]
    train(runs[0], prepared, listener=listeners[0])
    monkeypatch.setattr(loop, "steps_ahead", lambda _: 2)
    train(runs[1], prepared, listener=listeners[1], checkpoint_minutes=1e-9)
    assert listeners[0].steps == listeners[1].steps
    assert without_times(runs[0].metrics()) == without_times(runs[1].metrics())


@pytest.mark.parametrize("ahead", [0, 1, 2, 99])
def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    from athwe_core.models.athwe import model as model_module

    monkeypatch.setattr(loop, "steps_ahead", lambda _: ahead)

    real = model_module.loss_terms
    calls = []

    def broken(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        terms = real(*args, **kwargs)
        return terms | {"idcl": terms["idcl"] * float("nan")} if len(calls) == steps + 2 else terms

    run = make_run("run")
    listener = Silence()
    train(make_run("count", "training.epochs=1"), prepared, listener=listener)
    steps = len(listener.steps)
    monkeypatch.setattr(model_module, "loss_terms", broken)
    with pytest.raises(NonFiniteLossError, match=r"loss term idcl at epoch 2, step 2 must be finite, got nan"):
        train(run, prepared, listener=Silence())
    state = json.loads((run.last / "state.json").read_text())
    assert state["progress"]["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in load_file(run.last / "weights.safetensors").values())


@pytest.mark.parametrize("ahead", [0, 2])
def test_infinite_gradients_are_left_out_and_stop_the_run_when_they_do_not_end(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    real, calls = step_module.gradient_norm, []

    def broken(model: torch.nn.Module) -> torch.Tensor:
        calls.append(1)
        if len(calls) >= 3 and len(calls) != 4:
            next(weight for weight in model.parameters() if weight.grad is not None).grad.view(-1)[0] = float("inf")
        return real(model)

    monkeypatch.setattr(loop, "steps_ahead", lambda _: ahead)
    monkeypatch.setattr(step_module, "gradient_norm", broken)
    run = make_run("run")
    monkeypatch.setattr(loop, "MOST_LOST_GRADIENTS", 2)
    told: list[str] = []
    with pytest.raises(NonFiniteLossError, match=r"gradient norm at epoch 1, step 6 must be finite, got inf"):
        train(run, prepared, listener=Silence(), checkpoint_minutes=1e-9, notify=told.append)
    assert [text for text in told if "its update is left out" in text] == [
        f"step {step} of epoch 1 has a gradient that is not finite: its update is left out" for step in (3, 5)
    ]
    state = json.loads((run.last / "state.json").read_text())["progress"]
    assert 2 <= state["step"] < 6
    assert all(torch.isfinite(value).all() for value in load_file(run.last / "weights.safetensors").values())


def test_resume_falls_back_past_weights_that_are_not_finite(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, poisoned = make_run("straight", "training.epochs=2"), make_run("poisoned", "training.epochs=2")
    expected = train(straight, prepared, listener=Silence())
    for steps in (2, 2):
        listener = Silence()
        train(poisoned, prepared, listener=listener, should_stop=stop_after(steps, listener))
    setup = build_setup(poisoned.config(), prepared)
    optimizer = make_optimizer(setup.model, lr=0.1)
    progress, _ = restore(poisoned, setup, optimizer, lambda _: None)
    with torch.no_grad():
        next(setup.model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"weight \S+ must be finite to be saved"):
        checkpoint.save_checkpoint(poisoned.last, setup.model, progress.state(), optimizer)
    monkeypatch.setattr(checkpoint, "_require_finite", lambda *_: None)  # as version 0.1.0 saved it
    checkpoint.save_checkpoint(poisoned.last, setup.model, progress.state(), optimizer)
    said: list[str] = []
    found = train(poisoned, prepared, listener=Silence(), notify=said.append)
    assert len(said) == 1
    assert "must hold finite values" in said[0]
    assert found.results["test"] == expected.results["test"]


def test_each_epoch_records_the_mean_gradient_norm(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run = make_run("run", "training.epochs=2")
    train(run, prepared, listener=Silence())
    assert all(0 < record["gradient_norm"] < 100 for record in run.metrics())
    assert all("gradient_norm" not in record["losses"] for record in run.metrics())


def test_a_checkpoint_of_another_network_is_refused(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    run, other = make_run("run", "training.epochs=1"), make_run("other", "model.num_layers=1")
    train(run, prepared, listener=Silence())
    (other.path / "checkpoints").symlink_to(run.path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"it has transformer\.layers\.1\.\S+ too"):
        train(other, prepared, listener=Silence())


def test_per_user_ranks_of_both_splits_give_the_metrics(
    make_run: Callable[..., RunFolder], prepared: PreparedDataset
) -> None:
    import polars as pl

    run = make_run("run", "training.epochs=1")
    results = train(run, prepared, listener=Silence()).results
    frame = pl.read_parquet(run.per_user)
    for split in ("validation", "test"):
        ranks = frame.filter(pl.col("split") == split)["rank"].to_numpy()
        assert len(ranks) == prepared.num_users
        assert np.mean(ranks <= 10) == pytest.approx(results[split]["hit@10"])


class TestFitConfig:
    def test_says_and_switches_off_what_the_data_lacks(
        self, prepared: PreparedDataset, make_config: Callable[..., Config]
    ) -> None:
        from dataclasses import replace

        bare = replace(
            prepared, image_features=None, text_features=None, categories=None, text_clusters=None, image_clusters=None
        )
        config, notes = adapt_to_data(replace_in(make_config("athwe"), ["losses.cluster.weight=1"]), bare)
        assert config.model.modalities == ("id",)
        off = (config.losses.cp.weight, config.losses.cluster.weight, config.losses.pcl.weight)
        assert off == (0, 0, 0)
        assert len(notes) == 5
        assert "demo has no image features: the image modality is off" in notes

    def test_says_how_to_get_cluster_labels(
        self, prepared: PreparedDataset, make_config: Callable[..., Config]
    ) -> None:
        from dataclasses import replace

        _, notes = adapt_to_data(
            make_config("athwe-published"), replace(prepared, text_clusters=None, image_clusters=None)
        )
        command = "athwe prepare --dataset demo --refresh clusters --clusters 100"
        assert notes == [f"demo has no cluster labels: the cluster term is off; to have them: {command}"]

    def test_keeps_what_is_there(self, prepared: PreparedDataset, make_config: Callable[..., Config]) -> None:
        assert adapt_to_data(make_config("hm4sr"), prepared) == (make_config("hm4sr"), [])


@pytest.mark.parametrize("block", [7, 10**6])
def test_time_range_and_counts_are_of_training_interactions_only(
    prepared: PreparedDataset, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_arrays, "BLOCK_ROWS", block)
    counts, occurrences = [0] * prepared.num_item_rows, [0] * prepared.num_item_rows
    first = last = longest = None
    for begin, end in zip(prepared.offsets[:-1], prepared.offsets[1:], strict=True):
        times, items = prepared.timestamps[begin : end - 2].tolist(), prepared.item_ids[begin : end - 2].tolist()
        for place, item in enumerate(items):
            occurrences[item] += 1
            counts[item] += place > 0
        first = min(times) if first is None else min(first, *times)
        last = max(times) if last is None else max(last, *times)
        longest = max([longest or 0, *(b - a for a, b in itertools.pairwise(times))])
    found = training_time_range(prepared)
    assert (found.first, found.last, found.longest_interval) == (first, last, longest)
    assert target_counts(prepared).tolist() == counts
    assert training_popularity(prepared).tolist() == occurrences
