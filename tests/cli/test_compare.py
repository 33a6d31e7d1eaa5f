"""`athwe compare` on copies of one trained run, told apart by seed, configuration or rules."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from cli_runner import call, one_error_line

from athwe_core.runs.find import RunFolder

Copy = Callable[..., Path]


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Copy:
    """A copy of the finished run `first` in a world of the test's own, with other keys or another manifest."""

    def make(name: str, *, preset: str = "athwe", data: dict[str, Any] | None = None, **facts: Any) -> Path:
        folder = tmp_path / "runs" / "demo" / preset / name
        shutil.copytree(world / "runs" / "demo" / "athwe" / "first", folder)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["training"] |= {key: facts.pop(key) for key in ("seed", "lr") if key in facts}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        path.write_text(json.dumps(manifest | {"preset": preset} | facts | {"data": manifest["data"] | (data or {})}))
        return folder

    return make


def worsen(run: Path) -> None:
    """Every user's target five places lower: none is among the first five."""
    frame = pl.read_parquet(run / "per_user.parquet")
    RunFolder(run).write_ranks(frame.with_columns(pl.col("rank") + 5))


def test_json_has_a_row_per_configuration(copy: Copy, tmp_path: Path) -> None:
    copy("s0")
    copy("s1", seed=1)
    worsen(copy("slow", lr=0.1, preset="hm4sr"))
    result = call(tmp_path, "compare", "s0", "demo/athwe/s1", "slow", "--metric", "hit@5", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() >= {"dataset", "split", "comparable", "differences", "metric", "rows", "groups"}
    first, second = found["rows"]
    assert (first["label"], first["runs"]) == ("athwe", ["demo/athwe/s0", "demo/athwe/s1"])
    assert (second["label"], second["runs"]) == ("hm4sr", ["demo/hm4sr/slow"])
    assert first["metrics"]["hit@5"]["sd"] == 0
    assert second["change_percent"] < 0
    assert second["p_holm"] == second["p_value"] < 0.05
    assert first["parameters"] > 1000
    assert set(found["groups"]) == {"history_length", "target_popularity", "same_day"}


def test_tables_fit_80_columns(copy: Copy, tmp_path: Path) -> None:
    copy("s0")
    copy("s1", seed=1)
    worsen(copy("a_rather_long_name_of_a_run", lr=0.1))
    copy("x", preset="athwe-published")
    copy("y", preset="hm4sr")
    names = ("s0", "s1", "a_rather_long_name_of_a_run", "x", "y")
    result = call(tmp_path, "compare", *names, COLUMNS="80")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "NDCG@10" in result.stdout
    assert "history length" in result.stdout
    assert "p (Holm)" in result.stdout
    assert not any("…" in line for line in lines)
    assert "seen items in, leave-one-out split, ties in file order" in " ".join(result.stdout.split())
    assert "athwe s0: demo/athwe/s0, demo/athwe/s1" in result.stderr
    assert "by group" not in call(tmp_path, "compare", *names, "--no-groups").stdout


def test_one_run_alone_is_shown_by_itself_the_newest_by_default(copy: Copy, tmp_path: Path) -> None:
    copy("s0")
    copy("s1", seed=1, started="2999-01-01T00:00:00")
    result = call(tmp_path, "compare", "--json")
    assert "data set demo (the newest finished run)" in result.stderr
    row = json.loads(result.stdout)["rows"][0]
    assert row["runs"] == ["demo/athwe/s1"]
    assert row["change_percent"] is None
    assert "p (Holm)" not in call(tmp_path, "compare", "s0").stdout


def test_a_pattern_takes_finished_runs(copy: Copy, tmp_path: Path) -> None:
    copy("s0")
    copy("s1", seed=1)
    copy("s2", seed=2, status="interrupted")
    result = call(tmp_path, "compare", "demo/athwe/s*", "--json")
    assert json.loads(result.stdout)["rows"][0]["seeds"] == [0, 1]
    assert "demo/athwe/s*: left out, as not finished: 1 of 3 runs" in result.stderr
    result = call(tmp_path, "compare", "demo/*/s2*")
    assert result.exit_code == 2
    assert "must match a finished run" in one_error_line(result)
    assert "'demo/*/s2*'. Unfinished runs that match: 1" in one_error_line(result)


def test_other_rules_are_refused_and_marked_with_force(copy: Copy, tmp_path: Path) -> None:
    copy("mine")
    copy("theirs", lr=0.1, data={"tie_order": "random"})
    result = call(tmp_path, "compare", "mine", "theirs")
    assert result.exit_code == 2
    line = one_error_line(result)
    assert "tie_order is 'file' in demo/athwe/mine and 'random' in demo/athwe/theirs" in line
    assert "--force" in line
    forced = call(tmp_path, "compare", "mine", "theirs", "--force")
    assert forced.exit_code == 0
    assert "NOT COMPARABLE" in forced.stdout
    assert "tie order" in forced.stdout
    found = json.loads(call(tmp_path, "compare", "mine", "theirs", "--force", "--json").stdout)
    assert found["comparable"] is False
    assert found["differences"][0]["values"] == {"demo/athwe/mine": "file", "demo/athwe/theirs": "random"}


def test_an_unfinished_run_names_the_line_to_type(copy: Copy, tmp_path: Path) -> None:
    copy("broken", status="interrupted")
    result = call(tmp_path, "compare", "broken")
    assert result.exit_code == 3
    assert "athwe train --resume demo/athwe/broken" in one_error_line(result)


def test_no_run_prints_the_line_to_type(tmp_path: Path) -> None:
    result = call(tmp_path, "compare", "--dataset", "demo")
    assert result.exit_code == 2
    assert "athwe train --dataset demo" in one_error_line(result)


@pytest.mark.parametrize(("option", "value"), [("--split", "dev"), ("--metric", "recall@10"), ("--split", "")])
def test_mistakes_are_one_line(option: str, value: str, copy: Copy, tmp_path: Path) -> None:
    copy("mine")
    result = call(tmp_path, "compare", "mine", option, value)
    assert result.exit_code == 2
    assert f"got {value!r}" in one_error_line(result)


def test_markup_in_a_name_stays_text(copy: Copy, tmp_path: Path) -> None:
    copy("[red]a")
    copy("b", lr=0.1)
    result = call(tmp_path, "compare", str(tmp_path / "runs" / "demo" / "athwe" / "[red]a"), "b")
    assert result.exit_code == 0, result.output
    assert "athwe [red]a" in result.stdout


class TestRanksOfAnotherProgram:
    """The run's own ranks as the file of another program, in a copy of the run with the world's prepared data."""

    @pytest.fixture
    def ranks(self, copy: Copy, world: Path, tmp_path: Path) -> Path:
        run = copy("mine")
        shutil.copytree(world / "prepared", tmp_path / "prepared")
        frame = pl.read_parquet(run / "per_user.parquet").filter(pl.col("split") == "test")
        path = tmp_path / "recbole.csv"
        frame.select(user="user_id", target="target_item_id", rank="rank").write_csv(path)
        return path

    def test_the_same_ranks_are_level_with_the_run(self, ranks: Path, tmp_path: Path) -> None:
        result = call(tmp_path, "compare", "mine", "--ranks", str(ranks), "--json")
        assert result.exit_code == 0, result.output
        mine, other = json.loads(result.stdout)["rows"]
        assert (other["label"], other["files"]) == ("recbole", [str(ranks)])
        assert other["metrics"] == mine["metrics"]
        assert (other["change_percent"], other["p_value"]) == (0, 1)
        assert f"recbole: {ranks}" in result.stderr
        assert "its targets are those of the data set" in result.stderr

    def test_the_row_is_in_every_table(self, ranks: Path, tmp_path: Path) -> None:
        arguments = ("compare", "mine", "--ranks", f"their SASRec={ranks}")
        shown = call(tmp_path, *arguments)
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.count("their SASRec") == 4  # change, @5, @10, groups; a file has no costs
        for form in ("--latex", "--markdown", "--csv"):
            assert "their SASRec" in call(tmp_path, *arguments, form).stdout

    def test_the_row_is_in_the_page(self, ranks: Path, tmp_path: Path) -> None:
        page = tmp_path / "page.html"
        result = call(tmp_path, "compare", "mine", "--ranks", f"their SASRec={ranks}", "--html", str(page))
        assert result.exit_code == 0, result.output
        html = page.read_text()
        assert "their SASRec and athwe are level in NDCG@10" in html
        assert f"{ranks}, ranks of another program" in html

    def test_lists_of_recommendations(self, ranks: Path, tmp_path: Path) -> None:
        lists = tmp_path / "lists.csv"
        pl.read_csv(ranks).select("user", item="target", score=pl.lit(1.0)).write_csv(lists)
        arguments = ("compare", "mine", "--ranks", str(lists))
        result = call(tmp_path, *arguments, "--metric", "hit@1", "--json")
        assert json.loads(result.stdout)["rows"][1]["metrics"] == {
            f"{name}@1": {"mean": 1, "sd": None, "values": [1]} for name in ("ndcg", "mrr", "hit")
        }
        assert "metrics @5, @10, @20, @50 are left out: lists.csv knows ranks to 1 only" in result.stderr
        result = call(tmp_path, *arguments)
        assert result.exit_code == 2
        assert "--metric must have a cut-off of at most 1" in one_error_line(result)

    def test_labels_make_seeds_of_one_row(self, ranks: Path, tmp_path: Path) -> None:
        second = tmp_path / "second" / ranks.name
        second.parent.mkdir()
        shutil.copy(ranks, second)
        result = call(tmp_path, "compare", "mine", "--ranks", str(ranks), "--ranks", str(second))
        assert result.exit_code == 2
        assert f"--ranks LABEL={second}" in one_error_line(result)
        both = [argument for path in (ranks, second) for argument in ("--ranks", f"a={path}")]
        row = json.loads(call(tmp_path, "compare", "mine", *both, "--json").stdout)["rows"][1]
        assert (row["label"], row["files"]) == ("a", [str(ranks), str(second)])

    def test_a_path_with_an_equals_sign_is_a_path(self, ranks: Path, tmp_path: Path) -> None:
        path = ranks.rename(tmp_path / "a=b.csv")
        result = call(tmp_path, "compare", "mine", "--ranks", str(path), "--json")
        assert json.loads(result.stdout)["rows"][1]["label"] == "a=b"

    def test_mistakes_are_one_line(self, ranks: Path, tmp_path: Path) -> None:
        result = call(tmp_path, "compare", "mine", "--ranks", "none.csv")
        assert (result.exit_code, "none.csv must be a file that exists" in one_error_line(result)) == (3, True)
        other_split = call(tmp_path, "compare", "mine", "--ranks", str(ranks), "--split", "validation")
        assert other_split.exit_code == 3
        assert "target must be the held-out item of the validation split" in one_error_line(other_split)


def test_a_page_has_the_verdict_baselines_and_every_metric(copy: Copy, world: Path, tmp_path: Path) -> None:
    copy("s0")
    worsen(copy("slow", lr=0.1, preset="hm4sr"))
    page = tmp_path / "new" / "page.html"
    prepared = ("--prepared", str(world / "prepared"))
    result = call(tmp_path, "compare", "s0", "slow", "--html", str(page), *prepared)
    assert result.exit_code == 0, result.output
    assert f"page {page}" in result.stderr
    html = page.read_text()
    for words in ("athwe is ahead of hm4sr in NDCG@10 by", "last-item transition", "NDCG@50", "demo-comparison.tex"):
        assert words in html
    assert "athwe is ahead of hm4sr in NDCG@10 by" in result.stderr


def test_a_page_without_the_data_has_no_baselines_and_says_so(copy: Copy, tmp_path: Path) -> None:
    copy("s0")
    page = tmp_path / "page.html"
    result = call(tmp_path, "compare", "s0", "--html", str(page), "--markdown")
    assert result.exit_code == 0, result.output
    assert "the page has no baselines: " in result.stderr
    assert "last-item transition" not in page.read_text()
    assert result.stdout.startswith("|  | NDCG@5")


def test_bold_is_beyond_chance_only(copy: Copy, tmp_path: Path) -> None:
    copy("s0")
    copy("same", lr=0.1)
    level = call(tmp_path, "compare", "s0", "same", "--markdown")
    assert "**" not in level.stdout
    worsen(copy("slow", lr=0.2))
    ahead = call(tmp_path, "compare", "s0", "slow", "--markdown").stdout.splitlines()
    assert "**" in ahead[2]
    assert "**" not in ahead[3]
