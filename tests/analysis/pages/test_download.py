"""Files as links: their names, types and content."""

import base64

import analysis_cases as made

from athwe_core.analysis.figures.plots import time_distribution
from athwe_core.analysis.pages.download import download, page_figure


def test_text_is_utf8_under_a_plain_name() -> None:
    found = download("CSV", "../a b/ü.x", "csv", "ä,1\n")
    assert found.file == "a-b-.x.csv"
    head, _, content = found.url.partition(",")
    assert head == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(content).decode() == "ä,1\n"


def test_a_figure_is_in_the_page_and_in_two_files() -> None:
    found = page_figure(time_distribution(made.timestamps()), stem="toys-time", title="Time <b>", description="Bins")
    assert found.svg.startswith("<svg")
    assert "Time &lt;b&gt;" in found.svg
    svg, png = (base64.b64decode(each.url.partition(",")[2]) for each in found.downloads)
    assert [each.file for each in found.downloads] == ["toys-time.svg", "toys-time.png"]
    assert b"<svg" in svg
    assert b"var(--" not in svg
    assert png.startswith(b"\x89PNG")
