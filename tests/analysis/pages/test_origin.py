"""Links between pages, and commands cut where a line may break."""

import os
from pathlib import Path

import pytest

import athwe_core
from athwe_core.analysis.pages.origin import MOST_CASES, Link, command_parts, origin


def write(path: Path, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_pages_that_are_there_are_linked_and_those_that_are_not_have_a_command(tmp_path: Path) -> None:
    write(tmp_path / "my shop" / "audit.html")
    write(tmp_path / "my shop" / "case-studies" / "old #1.html", age=10)
    write(tmp_path / "my shop" / "case-studies" / "new.html")
    page = tmp_path / "my shop" / "case-studies" / "new.html"
    found = origin(page, dataset="my shop", runs_dir=tmp_path, command="athwe case-study --user new")
    assert (found.version, found.command) == (athwe_core.__version__, "athwe case-study --user new")
    report, audit, cases = found.related
    assert (report.links, report.command) == ([], "athwe report --dataset 'my shop'")
    assert audit.links == [Link("Audit", "../audit.html")]
    assert cases.links == [Link("old #1", "old%20%231.html")]


def test_a_page_elsewhere_links_to_the_folder_of_runs_and_does_not_name_itself(tmp_path: Path) -> None:
    page = write(tmp_path / "runs" / "demo" / "report.html")
    elsewhere = origin(tmp_path / "out" / "page.html", dataset="demo", runs_dir=tmp_path / "runs", command="x")
    assert elsewhere.related[0].links == [Link("Report", "../runs/demo/report.html")]
    itself = origin(page, dataset="demo", runs_dir=tmp_path / "runs", command="x")
    assert [related.kind for related in itself.related] == ["Audit", "Case studies"]


def test_the_newest_case_studies_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    for number in range(MOST_CASES + 3):
        write(tmp_path / "demo" / "case-studies" / f"{number}.html", age=number)
    cases = origin(tmp_path / "demo" / "report.html", dataset="demo", runs_dir=tmp_path, command="x").related[-1]
    assert [link.label for link in cases.links] == [str(number) for number in range(MOST_CASES)]
    assert cases.more == 3


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("athwe train --dataset demo --json", ["athwe", "train", "--dataset demo", "--json"]),
        ("athwe compare 'demo/*/*' --k=5 x", ["athwe", "compare", "'demo/*/*'", "--k=5", "x"]),
        ("athwe audit --to 'a  b'\"c d\"", ["athwe", "audit", "--to 'a  b'\"c d\""]),
        (r"athwe audit  --to a\ b c", ["athwe", "audit", r"--to a\ b", "c"]),
        ("echo it's", ["echo", "it's"]),
        ("", []),
    ],
)
def test_an_option_stays_with_its_value(command: str, parts: list[str]) -> None:
    assert command_parts(command) == parts
