"""`athwe table1`: models side by side on the demo data, and mistakes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_runner import call, one_error_line

from athwe_core.analysis.experiments import model_table
from athwe_core.analysis.experiments.model_table import TABLE_1, published_metrics
from athwe_core.data.store.dataset import open_prepared
from athwe_core.models.registry import preset_names

TINY = ["--set", "model.hidden_size=8", "--set", "training.batch_targets=256"]
TINY += ["--precision", "fp32", "--device", "cpu", "--seeds", "1", "--epochs", "1"]
MODELS = ("--preset", "gru4rec", "--preset", "SASRec", "--preset", "gru4rec")


@pytest.fixture(scope="module")
def result(world: Path) -> dict[str, Any]:
    found = call(world, "table1", "--dataset", "demo", *TINY, *MODELS, "--against", "sasrec", "--name", "two", "--json")
    assert found.exit_code == 0, found.output
    assert "2 runs: 2 new" in found.stderr
    assert "gru4rec: ranking without seen items" in found.stderr
    return json.loads(found.stdout)


def test_each_model_is_a_variant_of_its_own_preset(world: Path, result: dict[str, Any]) -> None:
    assert (result["kind"], result["split"]) == ("models", "test")
    assert [variant["label"] for variant in result["variants"]] == ["gru4rec", "sasrec"]
    runs = [variant["runs"][0] for variant in result["variants"]]
    assert [run.split("/")[:2] for run in runs] == [["demo", "gru4rec"], ["demo", "sasrec"]]
    assert result["variants"][0]["p_holm"] is not None
    assert result["variants"][1]["change_percent"] is None
    folder = world / "runs" / "demo" / "experiments" / "models-two"
    assert {path.name for path in folder.iterdir()} == {"result.json", "result.csv", "figure.svg", "figure.png"}


def test_metrics_without_seen_items_are_those_of_evaluate(world: Path, result: dict[str, Any]) -> None:
    for variant in result["variants"]:
        run, unseen = variant["runs"][0], variant["without_seen"]["ndcg@10"]["values"]
        found = call(world, "evaluate", "--run", run, "--split", "test", "--exclude-seen", "--json")
        assert json.loads(found.stdout)["metrics"]["ndcg@10"] == pytest.approx(unseen[0], abs=1e-9)
        assert unseen[0] >= variant["metrics"]["test"]["ndcg@10"]["values"][0]


def test_the_baselines_are_those_of_evaluate(world: Path, result: dict[str, Any]) -> None:
    run = result["variants"][0]["runs"][0]
    rules = (("metrics", "--keep-seen"), ("without_seen", "--exclude-seen"))
    for key, rule in rules:
        found = json.loads(call(world, "evaluate", "--run", run, "--split", "test", rule, "--json").stdout)["baselines"]
        assert {row["label"]: row[key] for row in result["baselines"]} == found


@pytest.mark.usefixtures("result")
def test_numbers_of_the_paper_stand_beside_those_of_the_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_table, "published_metrics", lambda name: {"sasrec": {"ndcg@10": 0.0411}})
    found = call(world, "table1", "--dataset", "demo", *TINY, *MODELS, COLUMNS="80")
    assert "NDCG@10 with seen items taken out, in the paper, and cost" in found.stdout
    assert re.search(r"^ *sasrec +0\.\d{4} +0\.0411 ", found.stdout, re.MULTILINE), found.stdout
    assert all(len(line) <= 80 for line in found.stdout.splitlines()), found.stdout


def test_the_paper_has_each_of_its_models_on_its_four_data_sets() -> None:
    for dataset in ("Toys_and_Games", "Video_Games", "Beauty", "Home_and_Kitchen"):
        assert set(published_metrics(dataset)) == set(TABLE_1) - {"athwe"}
    assert published_metrics("Toys_and_Games")["hm4sr"]["ndcg@10"] == 0.0573
    assert published_metrics("Beauty")["sasrec"]["mrr@5"] == 0.0246
    assert published_metrics("demo") == {}


@pytest.mark.usefixtures("result")
def test_finished_runs_are_reused_and_the_tables_fit_80_columns(world: Path) -> None:
    found = call(world, "table1", "--dataset", "demo", *TINY, *MODELS, COLUMNS="80")
    assert "2 runs: 2 reused" in found.stderr
    assert "models on demo, test, 1 seed" in found.stdout
    assert "NDCG@10 with seen items taken out, and cost" in found.stdout
    assert found.stdout.count("popularity") == 2
    assert all(len(line) <= 80 for line in found.stdout.splitlines()), found.stdout


def test_the_default_table_has_every_model_of_the_paper(world: Path) -> None:
    assert set(TABLE_1) <= set(preset_names())
    assert len(TABLE_1) == 13 + 2
    experiment = model_table.model_table(TABLE_1, open_prepared("demo", prepared_dir=world / "prepared"))
    shown = [variant.preset for variant in experiment.variants]
    left_out = [name for name in TABLE_1 if name not in shown]
    assert all(
        any(note.startswith(f"{name} is left out: data set demo has no") for note in experiment.notes)
        for name in left_out
    )
    assert len(shown) >= 13
    assert experiment.reference is not None
    assert shown[experiment.reference] == "hm4sr"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--preset", "sasreq"), "Did you mean sasrec?"),
        (("--preset", "sasrec", "--against", "hm4sr"), "--against must be one of sasrec"),
        (("--preset", "sasrec", "--set", "training.seed=1"), "Use --seeds instead"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], text: str, world: Path) -> None:
    refused = call(world, "table1", "--dataset", "demo", *TINY, *arguments)
    assert refused.exit_code == 2, refused.output
    assert text in one_error_line(refused)


def test_compare_prints_the_runs_as_text(world: Path, result: dict[str, Any]) -> None:
    runs = [variant["runs"][0] for variant in result["variants"]]
    markdown = call(world, "compare", *runs, "--markdown")
    assert markdown.stdout.startswith("|  | NDCG@5 |")
    assert call(world, "compare", *runs, "--latex").stdout.startswith(r"\begin{tabular}")
    assert call(world, "compare", *runs, "--csv").stdout.startswith("label,preset,seeds,ndcg@5,")
    assert "cannot be given together" in one_error_line(call(world, "compare", *runs, "--csv", "--json"))
