import re
import xml.etree.ElementTree as ET
from pathlib import Path

import analysis_cases as made
import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from athwe_core.analysis.figures.experiment import ablation_figure, sweep_figure
from athwe_core.analysis.figures.plots import groups_figure, learning_curves, time_distribution
from athwe_core.analysis.figures.save import inline_svg, save_figure


def figures() -> dict[str, Figure]:
    """One of each kind."""
    return {
        "ablation": ablation_figure(made.ablation()),
        "sweep": sweep_figure(made.sweep()),
        "kinds": sweep_figure(made.kinds()),
        "curves": learning_curves({"a": made.epoch_records(4), "b": made.epoch_records(3, 1)}),
        "groups": groups_figure({"athwe": made.groups()}, "ndcg@10"),
        "time": time_distribution(made.timestamps()),
    }


@pytest.fixture(scope="module")
def inline() -> dict[str, str]:
    return {name: inline_svg(figure, title=name, description="<b>") for name, figure in figures().items()}


class TestFiles:
    def test_equal_figures_are_equal_bytes_without_a_date(self, tmp_path: Path) -> None:
        first = save_figure(sweep_figure(made.sweep()), tmp_path / "a")
        again = save_figure(sweep_figure(made.sweep()), tmp_path / "b")
        assert [path.name for path in first] == ["a.svg", "a.png"]
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
        assert b"dc:date" not in first[0].read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]

    def test_print_size_and_resolution(self, tmp_path: Path) -> None:
        figure = ablation_figure(made.ablation())
        svg, png = save_figure(figure, tmp_path / "figure.v2")
        assert (svg.name, png.name) == ("figure.v2.svg", "figure.v2.png")
        with Image.open(png) as image:
            assert image.width == pytest.approx(3.4 * 200, abs=1)
            assert image.getpixel((0, 0))[:3] == (255, 255, 255)
        assert "<text" not in svg.read_text()

    def test_settings_of_the_library_are_as_they_were(self, tmp_path: Path) -> None:
        before = dict(matplotlib.rcParams)
        save_figure(sweep_figure(made.sweep()), tmp_path / "a")
        assert dict(matplotlib.rcParams) == before


class TestInline:
    def test_well_formed_described_and_without_style_or_script(self, inline: dict[str, str]) -> None:
        for name, svg in inline.items():
            root = ET.fromstring(svg)
            assert root.get("role") == "img"
            by_id = {element.get("id"): element for element in root.iter() if element.get("id")}
            assert by_id[root.get("aria-labelledby")].text == name
            assert by_id[root.get("aria-describedby")].text == "<b>"
            assert not re.search(r"style=|<style|<script|<metadata|xmlns|https?:", svg)

    def test_only_colours_of_the_page(self, inline: dict[str, str]) -> None:
        for svg in inline.values():
            found = {value for _, value in re.findall(r' (fill|stroke)="([^"]*)"', svg)}
            assert all(value == "none" or re.fullmatch(r"var\(--[a-z0-9]+\)", value) for value in found), found
            assert len(found) > 2

    def test_ids_are_unique_within_a_page_and_every_reference_is_met(self, inline: dict[str, str]) -> None:
        page = "".join(inline.values())
        ids = re.findall(r' id="([^"]*)"', page)
        assert len(ids) == len(set(ids))
        references = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page))
        assert {name for pair in references for name in pair if name} <= set(ids)

    def test_letters_are_letters_with_their_sizes(self, inline: dict[str, str]) -> None:
        for svg in inline.values():
            drawn = list(ET.fromstring(svg).iter("text"))
            assert drawn
            assert all(5.5 <= float(text.get("font-size").removesuffix("px")) <= 9 for text in drawn)
        assert "losses.pcl.weight" in inline["sweep"]

    def test_deterministic_and_markup_in_labels_is_text(self) -> None:
        records = {"</svg><script>alert(1)</script> & $x$": made.epoch_records(2)}
        first, again = (inline_svg(learning_curves(records), title="t", description="d") for _ in range(2))
        assert first == again
        assert "<script" not in first
        assert "$x$" in first
