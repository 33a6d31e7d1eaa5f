"""Which runs an experiment reuses, goes on with, or still has to begin."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_cases import experiment_of

from athwe_core.analysis.experiments.plan import Plan, plan_experiment, run_identity, with_seed
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError
from athwe_core.models.registry import replace_in
from athwe_core.runs.find import RunFolder, create_run

MakeConfig = Callable[..., Config]
Finished = Callable[..., RunFolder]


@pytest.fixture
def plan(tmp_path: Path, small: PreparedDataset) -> Callable[..., Plan]:
    return lambda *configs, **settings: plan_experiment(experiment_of(*configs, **settings), small, runs_dir=tmp_path)


def test_variants_of_each_seed_in_turn_under_readable_names_that_stay(
    plan: Callable[..., Plan], tiny_config: MakeConfig
) -> None:
    configs = tiny_config(), tiny_config("model.dropout=0.1")
    runs = plan(*configs, seeds=(0, 3)).runs
    assert [(run.label, run.seed, run.action) for run in runs] == [
        ("v0", 0, "new"),
        ("v1", 0, "new"),
        ("v0", 3, "new"),
        ("v1", 3, "new"),
    ]
    assert re.fullmatch(r"variant-1-s3-[0-9a-f]{8}", runs[3].name)
    assert len({run.name for run in runs}) == 4
    assert runs == plan(*configs, seeds=(0, 3)).runs
    assert [run.config.training.seed for run in runs] == [0, 0, 3, 3]


def test_equal_configurations_share_a_run(plan: Callable[..., Plan], tiny_config: MakeConfig) -> None:
    found = plan(tiny_config(), tiny_config(), seeds=(0, 1))
    assert len(found.runs) == 2
    first, second = found.experiment.variants
    assert found.of_variant(first) == found.of_variant(second) == list(found.runs)


def test_a_finished_run_is_reused_wherever_it_lies(
    plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    run = finished(tiny_config("training.seed=1"), preset="hm4sr", name="elsewhere")
    new, reused = plan(tiny_config(), seeds=(0, 1)).runs
    assert (new.action, reused.action) == ("new", "reused")
    assert reused.existing == run


@pytest.mark.parametrize("other", ["model.dropout=0.3", "training.epochs=5", "evaluation.ks=[10]", "training.seed=7"])
def test_another_configuration_is_not_reused(
    other: str, plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    finished(tiny_config(other), name="other")
    assert plan(tiny_config()).runs[0].action == "new"


def test_the_device_makes_no_difference(plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished) -> None:
    finished(tiny_config(), name="here")
    assert plan(tiny_config("training.device=cuda:1")).runs[0].action == "reused"


def test_a_run_on_other_data_is_not_reused(
    plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    run = finished(tiny_config(), name="old")
    run.update_manifest(data=run.manifest()["data"] | {"content_hash": "0" * 64})
    assert plan(tiny_config()).runs[0].action == "new"


def test_an_unfinished_run_is_gone_on_with_unless_a_finished_one_is_there(
    tmp_path: Path, small: PreparedDataset, plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    begun = create_run(tmp_path, tiny_config(), small, preset="athwe", name="begun", command="test")
    (found,) = plan(tiny_config()).runs
    assert (found.action, found.existing, found.name) == ("resumed", begun, "begun")
    done = finished(tiny_config(), name="done")
    assert plan(tiny_config()).runs[0].existing == done


def test_a_folder_that_is_no_usable_run_does_not_stand_in_the_way(
    plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    name = plan(tiny_config()).runs[0].name
    broken = finished(tiny_config(), name=name)
    config = broken.path / "config.yaml"
    config.write_text(config.read_text().replace("dropout:", "dropped:"))
    (found,) = plan(tiny_config()).runs
    assert (found.action, found.name) == ("new", f"{name}-2")


def test_identity_tells_configuration_and_data_apart(tiny_config: MakeConfig) -> None:
    config = tiny_config()
    sampled = replace_in(config, ["losses.catalogue.kind=sampled"])
    for one, key in ((config, "training.device=auto"), (sampled, "training.shard_tables=true")):
        assert run_identity(one, "a") == run_identity(replace_in(one, [key]), "a")
    others = [run_identity(config, "b"), run_identity(with_seed(config, 1), "a")]
    assert len({run_identity(config, "a"), *others}) == 3


def test_facts_name_every_run_of_every_variant(
    plan: Callable[..., Plan], tiny_config: MakeConfig, finished: Finished
) -> None:
    finished(tiny_config(), name="there")
    facts = plan(tiny_config(), tiny_config("model.dropout=0.1")).facts()
    assert facts["variants"][0]["runs"] == [{"seed": 0, "action": "reused", "run": "demo/athwe/there"}]
    assert facts["variants"][1]["runs"][0]["run"].startswith("demo/athwe/variant-1-s0-")
    assert facts["dataset"] == "demo"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"metric": "ndcg@7"}, r"--metric must be one of ndcg@5, ndcg@10, .*hit@50, got 'ndcg@7'"),
        ({"metric": "recall@10"}, r"got 'recall@10'"),
        ({"split": "train"}, r"--split must be validation or test, got 'train'"),
        ({"seeds": ()}, r"--seeds must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings: dict[str, object], text: str, tiny_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=text):
        replace(experiment_of(tiny_config()), **settings)  # type: ignore[arg-type]
