"""`athwe audit`: findings in the terminal, facts as JSON, one page."""

import json
import shlex
from pathlib import Path

from cli_runner import call, one_error_line


def test_shows_graded_findings_and_leaves_a_page(world: Path) -> None:
    result = call(world, "audit")
    assert result.exit_code == 0, result.output
    for words in ("Findings", "Equal times", "Time leakage", "last-item transition", "sparsity"):
        assert words in result.stdout
    page = world / "runs" / "demo" / "audit.html"
    assert f"page {page}" in result.stderr
    assert page.read_text().startswith("<!doctype html>")


def test_json_is_one_object_with_every_fact(world: Path, tmp_path: Path) -> None:
    to = tmp_path / "new" / "page.html"
    result = call(world, "audit", "--dataset", "demo", "--shuffles", "1", "--to", str(to), "--json")
    found = json.loads(result.stdout)
    assert found["page"] == str(to)
    assert to.exists()
    assert found.keys() >= {"statistics", "time", "tie_orders", "leakage", "cold", "popularity", "shuffle", "findings"}
    assert len(found["shuffle"]["values"]) == 1
    assert {finding["grade"] for finding in found["findings"]} <= {"ok", "look", "problem"}


def test_commands_of_findings_work_as_typed(world: Path, tmp_path: Path) -> None:
    found = json.loads(call(world, "audit", "--shuffles", "1", "--json").stdout)
    commands = {finding["command"] for finding in found["findings"] if finding["command"]}
    assert any("--split global-time" in command for command in commands)
    for command in commands:
        words = shlex.split(command)
        if words[1] == "prepare":
            result = call(world, *words[1:], "--prepared", str(tmp_path))
            assert result.exit_code == 0, result.output


def test_mistakes_are_one_line(world: Path, tmp_path: Path) -> None:
    absent = call(tmp_path, "audit", "--dataset", "demo")
    assert absent.exit_code == 3
    assert "athwe prepare --dataset demo" in one_error_line(absent)
    assert call(world, "audit", "--shuffles", "0").exit_code == 2
