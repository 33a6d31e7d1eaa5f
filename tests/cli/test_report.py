"""`athwe report`: the page it leaves, what it prints where."""

import json
import shutil
from pathlib import Path

from cli_runner import call, one_error_line


def test_writes_one_page_with_the_newest_run(world: Path) -> None:
    result = call(world, "report")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    page = world / "runs" / "demo" / "report.html"
    assert f"page {page}" in result.stderr
    html = page.read_text()
    assert html.startswith("<!doctype html>")
    score = json.loads((world / "first.json").read_text())["test"]["ndcg@10"]
    assert f"{score:.4f}" in html
    assert f"athwe reaches NDCG@10 {score:.4f} with one seed" in html
    assert "the best baseline without training" in result.stderr
    assert "Written " in html
    assert "athwe/first" in html


def test_json_is_everything_but_the_figures(world: Path, tmp_path: Path) -> None:
    to = tmp_path / "new" / "page.html"
    result = call(world, "report", "--dataset", "demo", "--run", "first", "--to", str(to), "--json")
    found = json.loads(result.stdout)
    assert found["page"] == str(to)
    assert to.exists()
    assert "figures" not in found
    assert [run["run"] for run in found["runs"]] == ["demo/athwe/first"]
    assert found["comparison"]["rows"][0]["runs"] == ["demo/athwe/first"]
    assert found["statistics"]["users"] == 200


def test_the_command_it_gives_trains_the_same_again(world: Path) -> None:
    found = json.loads(call(world, "report", "--json").stdout)
    again = found["runs"][0]["again"].split()
    result = call(world, *again[1:], "--name", "once-more", "--json")
    shutil.rmtree(world / "runs" / "demo" / "athwe" / "once-more")
    assert json.loads(result.stdout)["test"] == json.loads((world / "first.json").read_text())["test"]


def test_data_alone_before_the_first_run(world: Path, tmp_path: Path) -> None:
    result = call(world, "report", "--dataset", "demo", "--runs", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "no finished run yet" in result.stderr
    html = (tmp_path / "demo" / "report.html").read_text()
    assert "<span>athwe</span> <span>train</span> <span>--dataset demo</span>" in html


def test_unknown_run_and_unprepared_data_are_one_line(world: Path, tmp_path: Path) -> None:
    result = call(world, "report", "--run", "frist")
    assert result.exit_code == 2
    assert "first" in one_error_line(result)
    result = call(tmp_path, "report", "--dataset", "Toys")
    assert result.exit_code == 3
    assert "is not prepared" in one_error_line(result)
