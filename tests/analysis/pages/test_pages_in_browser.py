"""The pages as a person meets them: in Chromium, wide and narrow, light and dark, by mouse and by keyboard."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import analysis_cases as made
import pytest
from browser_harness import CONTRAST, DESKTOP, PHONE, Browser, chromium
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from athwe_core.analysis.audit.page import audit_page
from athwe_core.analysis.pages.html import case_study_page, comparison_page, report_page
from athwe_core.analysis.pages.origin import Link, Origin, Related

ORIGIN = Origin(
    "2026-11-21 10:15",
    "0.2.0",
    "athwe report --dataset Toys_and_Games --to /a/rather/long/path/to/a/folder/of/pages/report.html",
    [
        Related("Audit", [Link("Audit", "audit.html")], 0, "athwe audit --dataset Toys_and_Games"),
        Related("Case studies", [], 0, "athwe case-study --dataset Toys_and_Games --random 1"),
    ],
)
pytestmark = pytest.mark.browser

NASTY = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\"quotes\" & 'apostrophes' `ticks` ${alert(1)}",
    "\u202eספר ילדים \u202e كتاب الأطفال",
    "Rocket 🚀 family 👨‍👩‍👧‍👦 {{ 7 * 7 }}",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    missing = made.Pictures(missing=(made.item(2)["item_id"],))
    cases = [made.case(), made.case(50, seed=1, experts=8), made.case(1, runs=made.RUNS[:1]) | {"user": None}]
    return {
        "case": case_study_page(cases, missing),
        "report": report_page(made.report(), made.figures(made.report()), ORIGIN),
        "audit": audit_page(made.audited(), made.timestamps(), ORIGIN),
        "compare": comparison_page(
            made.report()["comparison"],
            made.report()["baselines"],
            verdict=made.report()["verdict"],
            groups_figure=made.figures(made.report())["groups"],
            origin=ORIGIN,
        ),
    }


@pytest.mark.parametrize("page", ["case", "report", "audit", "compare"])
@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
class TestEveryWidthAndScheme:
    def test_quiet_within_its_width_and_legible(
        self, browser: Browser, pages: dict[str, str], page: str, width: int, scheme: str
    ) -> None:
        browser.show(pages[page], width=width, scheme=scheme)
        assert browser.console() == []
        assert browser.run("return document.scrollingElement.scrollWidth") <= width
        found = browser.run(CONTRAST)
        assert len(found) > 60
        assert [entry for entry in found if entry[0] < 4.5] == []
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(245, 246, 248)", "dark": "rgb(15, 19, 23)"}[scheme]


@pytest.mark.parametrize("page", ["case", "report"])
def test_the_button_turns_the_colours_over_and_back(browser: Browser, pages: dict[str, str], page: str) -> None:
    browser.show(pages[page], scheme="light")
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = browser.run(colour)
    button = browser.one("#theme")
    assert button.text.endswith("Dark")
    browser.click(button)
    assert browser.run(colour) != before
    assert button.text.endswith("Light")
    browser.click(button)
    assert browser.run(colour) == before


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("page", ["case", "report"])
def test_no_text_is_cut_off_within_a_figure(browser: Browser, pages: dict[str, str], page: str, width: int) -> None:
    browser.show(pages[page], width=width)
    outside = browser.run(
        """return [...document.querySelectorAll("svg.figure text")].filter((text) => {
          const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
          return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1
            || inner.bottom > outer.bottom + 1;
        }).map((text) => text.textContent)"""
    )
    assert outside == []


def test_every_finding_of_an_audit_is_shown_with_its_grade(browser: Browser, pages: dict[str, str]) -> None:
    browser.show(pages["audit"])
    assert not browser.one(".in-order .audit").is_displayed()
    browser.click(browser.one(".in-order summary"))
    findings = made.audited()["findings"]
    shown = [(item.find_element(By.CSS_SELECTOR, ".grade").text, item.text) for item in browser.all(".audit li")]
    assert len(shown) == len(findings)
    for finding, (grade, text) in zip(findings, shown, strict=True):
        assert finding["grade"] == grade
        for words in (finding["title"], finding["fact"], finding["meaning"], finding["advice"], finding["command"]):
            assert words.lower() in text.lower()
    assert len(browser.all("svg.figure")) == 1
    assert len(browser.all("table.bars")) == 4


class TestTables:
    def test_a_click_on_a_column_sorts_and_another_turns_it_over(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["report"])
        names = "return [...document.querySelectorAll('#comparison-table tbody th')].map((cell) => cell.textContent)"
        assert browser.run(names) == ["hm4sr", "athwe", "popularity", "last-item transition"]
        head = browser.all("#comparison-table thead th")[3]
        assert head.text.startswith("NDCG@10")
        browser.click(head.find_element(By.TAG_NAME, "button"))
        assert browser.run(names) == ["athwe", "hm4sr", "last-item transition", "popularity"]
        assert head.get_attribute("aria-sort") == "descending"
        browser.press(Keys.ENTER)
        assert browser.run(names) == ["popularity", "last-item transition", "hm4sr", "athwe"]
        assert head.get_attribute("aria-sort") == "ascending"
        change = next(cell for cell in browser.all("#comparison-table thead th") if cell.text.startswith("change"))
        browser.click(change.find_element(By.TAG_NAME, "button"))
        assert browser.run(names)[0] == "athwe"  # what has no number comes last
        assert head.get_attribute("aria-sort") is None

    def test_the_comparison_fits_beside_three_seeds(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["report"])
        assert (
            browser.run("const t = document.querySelector('#comparison .scroll'); return t.scrollWidth - t.clientWidth")
            == 0
        )

    def test_more_cut_offs_are_shown_on_request(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["report"])
        extra = browser.one("#comparison-table .extra")
        assert not extra.is_displayed()
        browser.click(browser.one("#comparison .show-extra"))
        assert extra.is_displayed()
        assert browser.run("return document.scrollingElement.scrollWidth") <= DESKTOP

    def test_links_save_files(self, browser: Browser, pages: dict[str, str], tmp_path: Path) -> None:
        folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
        browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
        browser.show(pages["report"])
        for name in ("Toys_and_Games-comparison.csv", "Toys_and_Games-groups.tex", "time.png"):
            browser.click(browser.one(f'a[download="{name}"]'))
            path = tmp_path / name
            for _ in range(100):
                if path.exists() and path.stat().st_size:
                    break
                time.sleep(0.05)
            assert path.stat().st_size > 100
        assert (tmp_path / "Toys_and_Games-comparison.csv").read_text().startswith("model,seeds,NDCG@5")
        assert browser.console() == []


class TestCommands:
    @pytest.mark.parametrize("width", [DESKTOP, PHONE])
    def test_no_option_is_broken_across_lines(self, browser: Browser, pages: dict[str, str], width: int) -> None:
        browser.show(pages["report"], width=width)
        lines = browser.run(
            "return [...document.querySelectorAll('.command span')].map((span) => span.getClientRects().length)"
        )
        assert len(lines) > 10
        assert set(lines) == {1}

    def test_a_button_copies_the_command(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["report"])
        button = browser.one(".foot .copy")
        copied = "navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); };"
        browser.run(copied)
        browser.click(button)
        assert browser.run("return window.copied") == ORIGIN.command
        assert button.text == "Copied"

    def test_where_copying_is_not_allowed_the_command_is_selected(
        self, browser: Browser, pages: dict[str, str]
    ) -> None:
        browser.show(pages["report"])
        browser.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
        browser.click(browser.one(".foot .copy"))
        assert browser.run("return getSelection().toString()").strip() == ORIGIN.command


class TestReport:
    def test_every_table_and_figure_is_there(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["report"])
        figures = browser.all("svg.figure")
        assert len(figures) == 6
        assert all(figure.is_displayed() and figure.size["height"] > 100 for figure in figures)
        assert {figure.aria_role for figure in figures} <= {"img", "image"}
        assert figures[0].accessible_name == "Groups"
        for table in ("#comparison-table", "#groups-table", *(f"#experiment-{at}-table" for at in (1, 2, 3))):
            assert browser.one(table).is_displayed()

    def test_navigation_leads_to_each_part(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["report"])
        for link in browser.all(".jump a"):
            browser.click(link)
            target = link.get_attribute("href").split("#")[1]
            assert browser.run("return location.hash") == f"#{target}"
            assert browser.one(f"#{target} h2").is_displayed()


class TestCaseStudy:
    def test_every_panel_is_there_and_every_picture_decoded(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["case"])
        pictures = browser.run("return [...document.images].map((image) => [image.naturalWidth, image.alt])")
        assert len(pictures) > 60
        assert all(width == 112 and words.startswith("Picture of ") for width, words in pictures)
        shown = [panel.text.split("\n")[0] for panel in browser.all("#case-1 .why:not([hidden]) .panel")]
        assert shown == [
            *("Influence of each item", "What another gap would change", "Temporal gates", "Wavelet energy"),
            *("Interactive gates", "Attention of the last position"),
        ]
        assert len(browser.all("#case-1 .timeline li")) == 8
        assert [len(list_.find_elements(By.TAG_NAME, "li")) for list_ in browser.all("#case-1 .top-items")] == [10, 10]
        for strip in browser.all("#case-1 .why:not([hidden]) .strip:not(.key) svg"):
            assert strip.size["width"] > 100

    @pytest.mark.parametrize("width", [DESKTOP, PHONE])
    def test_a_click_on_an_item_shows_its_detail_and_escape_brings_the_focus_back(
        self, browser: Browser, pages: dict[str, str], width: int
    ) -> None:
        browser.show(pages["case"], width=width)
        case = made.case()
        for selector, words in (
            ("#case-1 .timeline li:nth-child(4) button", ["Item 4 of the history", "without it", "temporal gates"]),
            ("#case-1 .timeline .target button", ["The true next item", "rank 312"]),
            ("#case-1 .columns > :nth-child(2) li:nth-child(5) button", ["hm4sr/second: recommended", "image"]),
            ("#case-1 .influence button", ["Item 1 of the history"]),
        ):
            button = browser.one(selector)
            browser.click(button)
            assert browser.dialog_is_open
            detail = browser.one("#detail").text
            assert button.get_attribute("data-item") in detail
            assert [each for each in words if each not in detail] == []
            assert browser.run("return document.scrollingElement.scrollWidth") <= width
            browser.press(Keys.ESCAPE)
            assert not browser.dialog_is_open
            assert browser.focused == button
        gates = case["why"][made.RUNS[0]]["temporal_gates"][3]
        browser.run("arguments[0].click()", browser.one("#case-1 .timeline li:nth-child(4) button"))
        values = [each.text for each in browser.all("#detail .measures .value")]
        assert [f"{gate:.3f}" for gate in gates] == values[3:7]
        browser.click(browser.one("#detail-close"))
        assert not browser.dialog_is_open
        assert browser.console() == []

    def test_a_long_history_begins_at_its_first_item_and_walks_on(
        self, browser: Browser, pages: dict[str, str]
    ) -> None:
        browser.show(pages["case"], width=PHONE)
        strip = browser.one("#case-2 .timeline")
        back, on = browser.all("#case-2 .walk button")
        assert browser.run("return arguments[0].scrollLeft", strip) == 0
        assert (back.is_enabled(), on.is_enabled()) == (False, True)
        assert "more-after" in strip.get_attribute("class")
        browser.run("document.documentElement.style.scrollBehavior = arguments[0].style.scrollBehavior = 'auto'", strip)
        browser.click(on)
        browser.until("return !arguments[0].disabled", back)
        assert browser.run("return arguments[0].scrollLeft", strip) > 100
        browser.run("arguments[0].scrollLeft = arguments[0].scrollWidth", strip)
        browser.until("return arguments[0].disabled", on)
        assert "more-after" not in strip.get_attribute("class")
        assert not browser.one("#case-3 .walk").is_displayed()

    def test_by_keyboard_alone(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["case"])
        browser.press(Keys.TAB)
        assert browser.focused.text == "Skip to the content"
        assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
        browser.press(Keys.ENTER)
        for _ in range(20):
            browser.press(Keys.TAB)
            if "item" in (browser.focused.get_attribute("class") or "").split():
                break
        first = browser.focused
        assert first.get_attribute("data-position") == "0"
        browser.press(Keys.ENTER)
        assert browser.dialog_is_open
        assert browser.focused.get_attribute("id") == "detail-close"
        browser.press(Keys.ENTER)
        assert not browser.dialog_is_open
        assert browser.focused == first

    def test_tabs_show_one_run_at_a_time_and_follow_the_arrows(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["case"])
        first, second = browser.all("#case-1 [role=tab]")
        panels = browser.all("#case-1 .why")
        assert [panel.is_displayed() for panel in panels] == [True, False]
        first.send_keys(Keys.ARROW_RIGHT)
        assert browser.focused == second
        assert [panel.is_displayed() for panel in panels] == [False, True]
        assert second.get_attribute("aria-selected") == "true"
        second.send_keys(Keys.ARROW_RIGHT)
        assert browser.focused == first

    def test_numbers_open_under_a_panel(self, browser: Browser, pages: dict[str, str]) -> None:
        browser.show(pages["case"], width=PHONE)
        for summary in browser.all("#case-1 .why:not([hidden]) summary"):
            browser.click(summary)
        tables = browser.all("#case-1 .why:not([hidden]) details table")
        assert len(tables) == 5
        assert all(table.is_displayed() for table in tables)
        assert browser.run("return document.scrollingElement.scrollWidth") <= PHONE

    @pytest.mark.parametrize("width", [DESKTOP, PHONE])
    def test_titles_stay_text(self, browser: Browser, width: int) -> None:
        case = json.loads(json.dumps(made.case()))
        for item, title in zip([*case["history"], case["target"]], NASTY * 2, strict=False):
            item["title"] = item["category"] = title
        for rows in case["recommendations"].values():
            for row, title in zip(rows, NASTY * 2, strict=True):
                row["title"] = row["category"] = title
        for why in case["why"].values():
            why["subject"]["title"] = NASTY[0]
        browser.show(case_study_page([case | {"user": NASTY[1], "dataset": NASTY[0]}], None), width=width)
        assert browser.console() == []
        assert browser.all("img") == []
        assert len(browser.all("script")) == 2
        titles = browser.run(
            "return [...document.querySelectorAll('#case-1 .timeline .title')].map((x) => x.textContent)"
        )
        assert titles == (NASTY * 2)[:8]
        for at, title in enumerate(NASTY):
            button = browser.all("#case-1 .timeline button")[at]
            browser.run("arguments[0].click()", button)
            assert browser.run("return document.getElementById('detail-title').textContent") == title
            browser.press(Keys.ESCAPE)
        assert browser.run("return document.scrollingElement.scrollWidth") <= width
        hebrew = browser.all("#case-1 .timeline .title")[3]
        assert browser.run("return getComputedStyle(arguments[0]).unicodeBidi", hebrew) == "isolate"
        assert browser.console() == []


@pytest.mark.parametrize("page", ["case", "report"])
def test_long_names_do_not_widen_the_screen(browser: Browser, page: str) -> None:
    long = "a_data_set_of_a_long_name_without_any_space_in_it/preset-of-long-name/PCL-weight-0.25-seed-3-0123456789"
    made_of = made.case() if page == "case" else made.report([])
    text = json.dumps(made_of).replace(made.RUNS[0], long).replace("athwe/first", long).replace("A1ZT4NG9QX2K7", long)
    text = text.replace("Wooden Alphabet Blocks", long)
    value = json.loads(text.replace("Toys_and_Games", long.split("/", maxsplit=1)[0]))
    html = case_study_page([value, value], None) if page == "case" else report_page(value, made.figures(made_of))
    browser.show(html, width=PHONE)
    assert long in html
    assert browser.run("return document.scrollingElement.scrollWidth") <= PHONE
    if page == "case":
        browser.run("arguments[0].click()", browser.one("#case-1 .timeline button"))
        assert browser.run("const d = document.getElementById('detail'); return d.scrollWidth - d.clientWidth") == 0


def test_without_script_everything_is_shown(browser: Browser, pages: dict[str, str]) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.show(pages["case"])
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert all(panel.is_displayed() for panel in browser.all("#case-1 .why"))
    assert not browser.one("#theme").is_displayed()
    assert not browser.one("#case-1 [role=tablist]").is_displayed()


@pytest.fixture
def rendered(browser: Browser, pages: dict[str, str]) -> Callable[[str, str], list[Any]]:
    """Left and right edges of the elements of a selector within a page."""

    def edges(page: str, selector: str) -> list[Any]:
        browser.show(pages[page], width=PHONE)
        return browser.run(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.getBoundingClientRect())"
            ".map((box) => [box.left, box.right])",
            selector,
        )

    return edges


@pytest.mark.parametrize(("page", "selector"), [("case", ".surface"), ("report", ".surface"), ("report", "svg.figure")])
def test_on_a_phone_every_block_is_within_the_screen(
    rendered: Callable[[str, str], list[Any]], page: str, selector: str
) -> None:
    found = rendered(page, selector)
    assert found
    assert all(left >= 0 and right <= PHONE for left, right in found)
