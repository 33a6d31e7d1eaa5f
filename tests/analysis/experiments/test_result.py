"""The result of an experiment: means, spreads, changes and tests by hand arithmetic."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from experiment_cases import experiment_of
from safetensors.torch import load_file
from scipy import stats

from athwe_core.analysis.experiments.plan import plan_experiment
from athwe_core.analysis.experiments.result import (
    aggregate,
    change_percent,
    describe_test,
    num_parameters,
    spread,
    user_values,
)
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError
from athwe_core.evaluation.significance import paired_test_over_seeds
from athwe_core.runs.find import RunFolder

MakeConfig = Callable[..., Config]
Finished = Callable[..., RunFolder]
HITS = {("v0", 0): range(0, 40), ("v0", 1): range(0, 60), ("v1", 0): range(10, 40), ("v1", 1): range(0, 30)}
"""Users among 100 whose target is first; the others' is at 60."""
MISSES = {("v2", seed): range(0) for seed in (0, 1)}


def ranks_of(users: range) -> list[float]:
    return [1.0 if user in users else 60.0 for user in range(100)]


@pytest.fixture
def result(tmp_path: Path, small: PreparedDataset, tiny_config: MakeConfig, finished: Finished) -> Callable[..., Any]:
    """The result of an experiment whose variants and seeds have the given hits."""

    def make(hits: dict[tuple[str, int], range] = HITS, **settings: object) -> dict[str, Any]:
        labels, seeds = sorted({label for label, _ in hits}), tuple(sorted({seed for _, seed in hits}))
        changes = {label: (f"losses.pcl.weight=0.{int(label[1:]) + 1}",) for label in labels}
        for (label, seed), users in hits.items():
            config = tiny_config(*changes[label], f"training.seed={seed}")
            finished(config, ranks=ranks_of(users), name=f"{label}-{seed}", epochs=3 + seed, seconds=2.0 + seed)
        experiment = experiment_of(
            *(tiny_config(*changes[label]) for label in labels), seeds=seeds, **{"metric": "hit@10", **settings}
        )
        plan = plan_experiment(experiment, small, runs_dir=tmp_path)
        assert plan.to_train() == []
        runs = {planned.identity: planned.existing for planned in plan.runs if planned.existing is not None}
        return aggregate(plan, runs, command="athwe ablate")

    return make


def test_means_spreads_and_change_by_hand(result: Callable[..., Any]) -> None:
    full, other = result()["variants"]
    assert full["runs"] == ["demo/athwe/v0-0", "demo/athwe/v0-1"]
    for split in ("validation", "test"):
        assert full["metrics"][split]["hit@10"]["values"] == [0.4, 0.6]
        assert full["metrics"][split]["ndcg@5"]["mean"] == pytest.approx(0.5)
    assert full["metrics"]["test"]["hit@10"]["sd"] == pytest.approx(math.sqrt(0.02))
    assert other["metrics"]["test"]["hit@10"] == {"mean": 0.3, "sd": 0.0, "values": [0.3, 0.3]}
    assert other["change_percent"] == pytest.approx(-40)
    assert (full["epochs"], full["seconds_per_epoch"]) == ([3, 4], 2.5)


def test_p_value_with_several_seeds_is_over_users_and_seeds(result: Callable[..., Any]) -> None:
    """The variant hits 30 of 100 users with both seeds, the reference 40 and 60."""
    found = result()
    full, other = found["variants"]
    seeds = [[float(user in HITS[label, seed]) for user in range(100)] for label in ("v1", "v0") for seed in (0, 1)]
    expected = paired_test_over_seeds(np.array(seeds[:2]), np.array(seeds[2:]))
    over_users = stats.ttest_rel(np.mean(seeds[:2], axis=0), np.mean(seeds[2:], axis=0)).pvalue
    assert other["p_value"] == pytest.approx(expected)
    assert expected > 0.1
    assert over_users < 0.001
    assert other["p_holm"] == other["p_value"]
    assert (full["change_percent"], full["p_value"], full["p_holm"], full["p_over"]) == (None, None, None, None)
    assert other["p_over"] == "users and seeds"
    assert found["test"] == "p is of a paired t-test over users and seeds, after Holm's correction"


def test_p_value_with_one_seed_is_over_users_and_says_so(result: Callable[..., Any]) -> None:
    """Of 100 users the reference hits 0-39, the variant 10-39: ten users differ, by 1."""
    found = result({key: users for key, users in HITS.items() if key[1] == 0})
    other = found["variants"][1]
    a, b = np.repeat([0, 1, 0], [10, 30, 60]), np.repeat([1, 0], [40, 60])
    assert other["p_value"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert other["p_over"] == "users"
    assert "It leaves out the spread over seeds" in found["test"]


def test_every_kind_of_test_is_described() -> None:
    assert describe_test([None, None]) is None
    both = describe_test(["users and seeds", None, "users"])
    assert both is not None
    assert "over users only where a side has one seed" in both


def test_holm_counts_every_variant_but_the_reference(result: Callable[..., Any]) -> None:
    _, one, two = result(HITS | MISSES)["variants"]
    assert two["change_percent"] == pytest.approx(-100)
    small, large = sorted((one, two), key=lambda variant: variant["p_value"])
    assert small["p_holm"] == pytest.approx(2 * small["p_value"])
    assert large["p_holm"] == pytest.approx(max(small["p_holm"], large["p_value"]))


def test_another_reference_or_none(result: Callable[..., Any], tmp_path: Path) -> None:
    first, second = result(reference=1)["variants"]
    assert first["change_percent"] == pytest.approx(100 * (0.5 / 0.3 - 1))
    assert second["p_holm"] is None


def test_without_a_reference_nothing_is_compared(result: Callable[..., Any]) -> None:
    for variant in result(reference=None)["variants"]:
        assert (variant["change_percent"], variant["p_value"], variant["p_holm"]) == (None, None, None)


def test_one_seed_has_no_spread_and_a_reference_of_zero_no_change() -> None:
    assert spread([0.25]) == {"mean": 0.25, "sd": None, "values": [0.25]}
    assert change_percent(0.1, 0.0) is None
    assert change_percent(0.3, 0.2) == pytest.approx(50)


def test_what_the_result_rests_on(result: Callable[..., Any], small: PreparedDataset) -> None:
    found = result(quick_epochs=2, notes=("so",))
    expected = {
        "kind": "ablation",
        "dataset": "demo",
        "preset": "athwe",
        "data_version": small.version,
        "tie_order": "file",
        "split_rule": "leave-one-out",
        "exclude_seen": False,
        "seeds": [0, 1],
        "quick_epochs": 2,
        "metric": "hit@10",
        "split": "test",
        "varied": [],
        "notes": ["so"],
        "command": "athwe ablate",
    }
    assert {name: found[name] for name in expected} == expected
    assert found.keys() == {*expected, "variants", "test", "athwe"}
    assert found["athwe"].keys() == {"version", "git_commit"}
    assert found["variants"][0].keys() == {
        *("label", "values", "changes", "runs", "metrics", "change_percent", "p_value", "p_holm", "p_over"),
        *("epochs", "seconds_per_epoch", "parameters"),
    }


def test_users_are_paired_by_id_whatever_their_order(tiny_config: MakeConfig, finished: Finished) -> None:
    runs = [finished(tiny_config(), ranks=ranks_of(range(5)), name=name) for name in ("a", "b")]
    frame = pl.read_parquet(runs[1].per_user)
    frame.reverse().write_parquet(runs[1].per_user)
    together = user_values(runs, metric="mrr@5", split="test")
    assert together.columns == ["user_id", "run_0", "run_1"]
    assert together["run_0"].equals(together["run_1"])
    assert together["run_0"].sum() == 5


class TestParameters:
    def test_counts_every_trained_number(self, tiny_config: MakeConfig, finished: Finished) -> None:
        run = finished(tiny_config(), name="a")
        weights = load_file(run.best / "weights.safetensors")
        assert any(not value.is_floating_point() for value in weights.values())
        assert num_parameters(run) == sum(value.numel() for value in weights.values() if value.is_floating_point())

    def test_a_damaged_file_is_named(self, tiny_config: MakeConfig, finished: Finished) -> None:
        run = finished(tiny_config(), name="a")
        (run.best / "weights.safetensors").write_bytes(b"no")
        with pytest.raises(CheckpointError, match=r"weights\.safetensors must be a readable safetensors file"):
            num_parameters(run)
