import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import analysis_cases as made
import pytest

from athwe_core.analysis.pages.report import collect_report, draw_figures
from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, DataError
from athwe_core.runs.find import RunFolder

Make = Callable[..., RunFolder]


@pytest.fixture
def run(finished: Make, tiny_config: Callable[..., Config]) -> Make:
    """A finished run under a name, with epochs to draw; runs made later started later."""
    count = 0

    def make(
        name: str, *overrides: str, preset: str = "athwe", command: str = "athwe train", **options: Any
    ) -> RunFolder:
        nonlocal count
        count += 1
        made_run = finished(tiny_config(*overrides, preset=preset), preset=preset, name=name, **options)
        made_run.write_metrics(made.epoch_records(3, count))
        made_run.update_manifest(command=command, started=f"2026-01-01T00:00:{count:02}+00:00")
        return made_run

    return make


def write(folder: Path, name: str, result: object) -> None:
    path = folder / "demo" / "experiments" / name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(result))


def of_demo(result: dict[str, Any], *runs: str) -> dict[str, Any]:
    """The result with its variants' runs replaced, one each."""
    for variant, name in zip(result["variants"], runs, strict=False):
        variant["runs"] = [name]
    return result | {"dataset": "demo"}


def test_facts_of_the_data_before_the_first_run(small: PreparedDataset, tmp_path: Path) -> None:
    found = collect_report(small, tmp_path)
    assert found["dataset"] == "demo"
    assert found["content_hash"] == small.manifest["content_hash"]
    assert found["tie_order"] == small.statistics["tie_order"]
    assert found["statistics"] == small.statistics
    assert sum(found["time_distribution"]["counts"]) == len(small.timestamps)
    assert (found["runs"], found["comparison"], found["groups"], found["experiments"]) == ([], None, {}, [])
    figures = draw_figures(found, small)
    assert (figures["curves"], figures["groups"], figures["experiments"]) == (None, None, [])
    assert "<svg" in figures["time"].svg
    assert [file.file for file in figures["time"].downloads] == ["demo-over-time.svg", "demo-over-time.png"]
    assert (found["verdict"], found["baselines"]) == (None, {})
    json.dumps(found, allow_nan=False)


class TestRuns:
    def test_the_newest_of_each_preset_with_its_other_seeds(
        self, small: PreparedDataset, tmp_path: Path, run: Make
    ) -> None:
        run("old", "training.lr=0.5")
        run("seed-1", "training.seed=1")
        run("seed-0")
        run("other", preset="hm4sr")
        found = collect_report(small, tmp_path)
        assert [each["label"] for each in found["runs"]] == ["athwe/seed-0", "hm4sr/other"]
        assert [row["runs"] for row in found["comparison"]["rows"]] == [
            ["demo/athwe/seed-0", "demo/athwe/seed-1"],
            ["demo/hm4sr/other"],
        ]
        assert found["groups"].keys() == {"athwe", "hm4sr"}
        curves = draw_figures(found, small)["curves"]
        assert curves is not None
        assert curves.svg.startswith("<svg")
        assert found["baselines"].keys() == {"popularity", "last-item transition"}
        assert found["baselines"]["popularity"].keys() == found["comparison"]["rows"][0]["metrics"].keys()
        assert (found["verdict"] or "").startswith("hm4sr and athwe are level in NDCG@10")
        assert "the best baseline without training" in (found["verdict"] or "")
        json.dumps(found, allow_nan=False)

    def test_what_is_kept_of_a_run_and_how_to_do_it_again(
        self, small: PreparedDataset, tmp_path: Path, run: Make
    ) -> None:
        folder = run("first", command="athwe train --dataset demo --lr 0.1")
        (found,) = collect_report(small, tmp_path)["runs"]
        assert found["command"] == "athwe train --dataset demo --lr 0.1"
        again = f"athwe train --dataset demo --version {small.version} --preset athwe --config"
        assert found["again"] == f"{again} {folder.path / 'config.yaml'}"
        assert found["records"] == folder.metrics()
        assert (found["best_epoch"], found["metric"]) == (1, "ndcg@20")
        assert found["best_value"] == folder.metrics()[0]["validation"]["ndcg@20"]
        assert found["versions"]["torch"]

    def test_unfinished_ones_and_those_on_other_data_are_left_out(
        self, small: PreparedDataset, tmp_path: Path, run: Make
    ) -> None:
        run("first")
        run("begun").update_manifest(status="interrupted")
        run("elsewhere").update_manifest(data={"name": "demo", "version": "v", "content_hash": "0" * 64})
        assert [each["label"] for each in collect_report(small, tmp_path)["runs"]] == ["athwe/first"]

    def test_those_asked_for_alone(self, small: PreparedDataset, tmp_path: Path, run: Make) -> None:
        asked, _ = run("first"), run("second", "training.seed=1")
        found = collect_report(small, tmp_path, runs=[asked])
        assert [row["runs"] for row in found["comparison"]["rows"]] == [["demo/athwe/first"]]

    def test_asking_for_an_unfinished_one_is_an_error(self, small: PreparedDataset, tmp_path: Path, run: Make) -> None:
        begun = run("begun")
        begun.update_manifest(status="interrupted")
        with pytest.raises(CheckpointError, match="must be finished, got 'interrupted'"):
            collect_report(small, tmp_path, runs=[begun])

    def test_runs_of_another_rule_are_shown_but_not_ranked(
        self, small: PreparedDataset, tmp_path: Path, run: Make
    ) -> None:
        asked = [run("in"), run("out", "evaluation.exclude_seen=true")]
        comparison = collect_report(small, tmp_path, runs=asked)["comparison"]
        assert comparison["comparable"] is False
        assert comparison["differences"][0]["what"] == "exclude_seen"
        assert collect_report(small, tmp_path, runs=asked)["baselines"] == {}


class TestExperiments:
    def test_those_that_are_there_oldest_first_with_a_figure_each(self, small: PreparedDataset, tmp_path: Path) -> None:
        write(tmp_path, "sweep-b", of_demo(made.sweep()))
        write(tmp_path, "ablation-a", of_demo(made.ablation()))
        os.utime(tmp_path / "demo" / "experiments" / "sweep-b" / "result.json", (1, 1))
        write(tmp_path, "tune-c", {"kind": "tune"})
        found = collect_report(small, tmp_path)
        assert [result["kind"] for result in found["experiments"]] == ["sweep", "ablation"]
        assert ["pcl.weight" in drawn.svg for drawn in draw_figures(found, small)["experiments"]] == [True, False]

    def test_a_damaged_result_names_its_file(self, small: PreparedDataset, tmp_path: Path) -> None:
        write(tmp_path, "sweep-b", {})
        path = tmp_path / "demo" / "experiments" / "sweep-b" / "result.json"
        path.write_text("{")
        with pytest.raises(DataError, match=r"sweep-b/result\.json must be readable JSON"):
            collect_report(small, tmp_path)

    def test_runs_of_changed_variants_do_not_stand_for_the_preset(
        self, small: PreparedDataset, tmp_path: Path, run: Make
    ) -> None:
        run("full", command="athwe ablate --remove PCL")
        run("without", "losses.pcl.weight=0", command="athwe ablate --remove PCL")
        run("trial", "training.lr=0.5", command="athwe tune")
        run("typed-but-reused", "losses.idcl.weight=0")
        variants = ("demo/athwe/full", "demo/athwe/without", "demo/athwe/typed-but-reused")
        write(tmp_path, "ablation-a", of_demo(made.ablation(), *variants))
        assert [each["label"] for each in collect_report(small, tmp_path)["runs"]] == ["athwe/full"]

    def test_nor_does_a_quick_look(self, small: PreparedDataset, tmp_path: Path, run: Make) -> None:
        run("whole")
        run("quick", "training.epochs=1", command="athwe ablate --epochs 1")
        write(tmp_path, "ablation-a", of_demo(made.ablation(quick_epochs=1), "demo/athwe/quick"))
        assert [each["label"] for each in collect_report(small, tmp_path)["runs"]] == ["athwe/whole"]


def test_a_run_of_another_version_of_athwe_is_left_out(small: PreparedDataset, tmp_path: Path, run: Make) -> None:
    run("readable")
    with (run("newest").path / "config.yaml").open("a") as file:
        file.write("gone: true\n")
    rows = collect_report(small, tmp_path)["comparison"]["rows"]
    assert [row["runs"] for row in rows] == [["demo/athwe/readable"]]
