import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import analysis_cases as made
import pytest

from athwe_core.analysis.pages.html import case_study_page, comparison_page, report_page, script_json
from athwe_core.analysis.pages.origin import Link, Origin, Related

RELATED = [
    Related("Audit", [Link("Audit", "audit.html")], 0, "athwe audit --dataset Toys_and_Games"),
    Related("Case studies", [], 0, "athwe case-study --dataset Toys_and_Games --random 1"),
]
ORIGIN = Origin("2026-11-21 10:15", "0.2.0", "athwe report --dataset Toys_and_Games", RELATED)
NASTY = "\"><img src=x onerror=alert(1)></script><script>alert(1)</script>'&amp;"


class Parsed(HTMLParser):
    """Elements with their attributes, and the text outside style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag if tag in self.raw else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        (self.raw[self._within] if self._within else self.words).append(data)

    def of(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return made.report()


@pytest.fixture(scope="module")
def figures(report: dict[str, Any]) -> dict[str, Any]:
    """Drawn once: of pages with other numbers too, as nothing here reads them."""
    return made.figures(report)


@pytest.fixture(scope="module")
def pages(report: dict[str, Any], figures: dict[str, Any]) -> dict[str, str]:
    cases = [made.case(), made.case(1, runs=made.RUNS[:1]) | {"user": None, "picked": None}]
    compared = comparison_page(
        report["comparison"],
        report["baselines"],
        verdict=report["verdict"],
        groups_figure=figures["groups"],
        origin=ORIGIN,
    )
    return {
        "case": case_study_page(cases, made.Pictures()),
        "report": report_page(report, figures, ORIGIN),
        "compare": compared,
    }


@pytest.mark.parametrize("page", ["case", "report", "compare"])
class TestEvery:
    def test_nothing_comes_from_elsewhere(self, pages: dict[str, str], page: str) -> None:
        found = Parsed(pages[page])
        for tag, attributes in found.elements:
            assert tag not in ("link", "iframe", "object", "embed", "base", "form")
            if tag == "a" and "download" in attributes:
                assert re.match(r"data:(image|text)/[\w.+-]+(;charset=utf-8)?;base64,", attributes["href"] or "")
                continue
            for name in ("src", "href", "srcset", "action"):
                known = r"#|data:image/jpeg;base64,|audit\.html$"
                assert re.match(known, attributes.get(name) or "#"), (tag, name)
        assert not re.search(r"@import|url\(", "".join(found.raw["style"]))

    def test_the_policy_allows_this_style_and_this_script_only(self, pages: dict[str, str], page: str) -> None:
        found = Parsed(pages[page])
        (policy,) = [
            meta["content"] for meta in found.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        for kind, content in (("style", found.raw["style"][0]), ("script", found.raw["script"][-1])):
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert not any(
            "style" in attributes or any(name.startswith("on") for name in attributes)
            for _, attributes in found.elements
        )

    def test_ids_are_unique_and_references_met(self, pages: dict[str, str], page: str) -> None:
        found = Parsed(pages[page])
        ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        for _, attributes in found.elements:
            for name in ("aria-labelledby", "aria-describedby", "aria-controls"):
                assert set((attributes.get(name) or "").split()) <= set(ids)
            if (attributes.get("href") or "").startswith("#"):
                assert attributes["href"][1:] in ids

    def test_pictures_and_figures_have_words(self, pages: dict[str, str], page: str) -> None:
        found = Parsed(pages[page])
        assert all(image["alt"] for image in found.of("img"))
        for svg in found.of("svg"):
            hidden_or_named = {"aria-hidden", "aria-label", "aria-labelledby"} & svg.keys()
            within_named = (svg.get("class") or "").split()[:1] in (
                ["m-time"],
                ["m-any"],
                ["m-id"],
                ["m-text"],
                ["m-image"],
                ["m-other-1"],
                ["bar"],
            )
            assert hidden_or_named or within_named, svg


def test_equal_cases_and_reports_are_equal_pages(
    pages: dict[str, str], report: dict[str, Any], figures: dict[str, Any]
) -> None:
    assert report_page(report, figures, ORIGIN) == pages["report"]
    cases = [made.case(), made.case(1, runs=made.RUNS[:1]) | {"user": None, "picked": None}]
    assert case_study_page(cases, made.Pictures()) == pages["case"]


def test_the_footer_tells_when_and_how_and_what_is_missing(pages: dict[str, str]) -> None:
    found = Parsed(pages["report"])
    assert "Written 2026-11-21 10:15 UTC by athwe 0.2.0 with athwe report --dataset Toys_and_Games" in found.text
    assert found.of("a", href="audit.html")
    assert "Case studies: not written yet. athwe case-study --dataset Toys_and_Games --random 1" in found.text
    assert "athwe audit" not in found.text
    assert not Parsed(pages["case"]).of("footer")


class TestScriptJson:
    def test_nothing_that_html_reads_and_the_same_value(self) -> None:
        value = {"title": f"{NASTY}\u2028\u2029<!--", "numbers": [1, 2.5, None, True]}
        text = script_json(value)
        assert not set(text) & set("<>&\u2028\u2029")
        assert json.loads(text) == value

    def test_numbers_keep_five_digits(self) -> None:
        assert json.loads(script_json([0.123456789, 1234.56789, 3])) == [0.12346, 1234.6, 3]

    def test_what_json_does_not_know_is_null(self) -> None:
        assert json.loads(script_json({"a": [float("nan"), float("inf")]})) == {"a": [None, None]}


class TestCaseStudy:
    def test_every_item_is_a_button_that_knows_its_case(self, pages: dict[str, str]) -> None:
        buttons = Parsed(pages["case"]).of("button", **{"data-case": "0"})
        case = made.case()
        shown = [case["target"]["item_id"], *(item["item_id"] for item in case["history"])]
        shown += [row["item_id"] for rows in case["recommendations"].values() for row in rows]
        assert {button["data-item"] for button in buttons} == set(shown)
        timeline = [
            button["data-position"] for button in buttons if "card" in button["class"] and "data-position" in button
        ]
        assert timeline == [str(position) for position in range(7)]

    def test_the_story_comes_first_and_the_circumstances_last(self, pages: dict[str, str]) -> None:
        text = Parsed(pages["case"]).text
        order = [
            text.index(words) for words in ("The next item was", "athwe/first: Leaving out", "History", "b5dfc042f9eb")
        ]
        assert order == sorted(order)

    def test_says_what_was_asked_of_whom(self, pages: dict[str, str]) -> None:
        text = Parsed(pages["case"]).text
        for words in (
            "Toys_and_Games",
            "b5dfc042f9eb",
            "User A1ZT4NG9QX2K7",
            "New user",
            "rank 3 by athwe/first",
            "rank 312",
        ):
            assert words in text
        assert "improved: rank 312 → 3" in text

    def test_several_cases_have_navigation_and_one_has_none(self, pages: dict[str, str]) -> None:
        assert [link["href"] for link in Parsed(pages["case"]).of("a")][1:] == ["#case-1", "#case-2"]
        assert not Parsed(case_study_page([made.case()], None)).of("nav")

    def test_numbers_in_the_tables_are_those_of_the_case(self) -> None:
        case = made.case(runs=made.RUNS[:1])
        html = case_study_page([case], None)
        why = case["why"][made.RUNS[0]]
        cells = re.findall(r"<td>([^<]*)</td>", html)
        for position in range(7):
            for value in (*why["temporal_gates"][position], *why["interactive_gates"]["text"][position]):
                assert f"{value:.4f}" in cells
        for shares in why["wavelet_energy"]["share"].values():
            assert all(f"{share:.4f}" in cells for share in shares)
        for gap in why["gaps"]:
            row = f"<td>{gap['rank']:g}</td><td>{gap['score']:.2f}</td><td>{gap['kept']}</td>"
            assert row in html

    def test_embedded_data_is_the_case(self, pages: dict[str, str]) -> None:
        data = json.loads(Parsed(pages["case"]).raw["script"][0])
        assert data["cases"][0]["history"] == made.case()["history"]
        assert data["short"] == {run: run.split("/", 1)[1] for run in made.RUNS}

    def test_a_model_without_an_inside_view_has_a_page_without_its_parts(self) -> None:
        case = made.case(runs=made.RUNS[:1])
        case["why"][made.RUNS[0]] |= {
            **{"by_modality": {}, "attention": {}},
            **{"temporal_gates": None, "interactive_gates": None, "wavelet_energy": None},
        }
        for row in case["recommendations"][made.RUNS[0]]:
            row["by_modality"] = {}
        found = Parsed(case_study_page([case], None))
        for title in ("Influence of each item", "What another gap would change", "Its score is 8.40."):
            assert title in found.text
        for title in ("gates", "Attention", "Wavelet", "Colours", "parts"):
            assert title not in found.text
        assert found.of("ul", **{"class": "legend"}) == []

    def test_without_a_target_the_first_recommendation_is_explained(self) -> None:
        case = made.case() | {"target": None, "user": None, "picked": None}
        for run, why in case["why"].items():
            first = case["recommendations"][run][0]
            why["subject"] = {"item_id": first["item_id"], "title": first["title"], "is_target": False}
            for row in case["recommendations"][run]:
                row["is_target"] = False
        text = Parsed(case_study_page([case], None)).text
        assert "The first recommendation, rank 3" in text
        assert "came next" not in text

    def test_markup_in_every_text_stays_text(self) -> None:
        case = json.loads(
            json.dumps(made.case())
            .replace("Melody Garden", "MARK")
            .replace("Puzzles", "MARK")
            .replace("A1ZT4NG9QX2K7", "MARK")
        )
        html = case_study_page([_replaced(case)], None)
        found = Parsed(html)
        assert len(found.raw["script"]) == 2
        assert "alert(1)" not in found.raw["script"][1]
        assert found.of("img") == []
        assert NASTY in found.text


def _replaced(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner) for inner in value]
    return value.replace("MARK", NASTY) if isinstance(value, str) else value


class TestReport:
    def test_every_part_and_figure_is_there(self, pages: dict[str, str], report: dict[str, Any]) -> None:
        found = Parsed(pages["report"])
        ids = {attributes.get("id") for _, attributes in found.elements}
        assert ids >= {"comparison", "groups", "learning", "experiments", "data-facts", "provenance"}
        assert len(found.of("svg", **{"class": "figure"})) == 3 + len(report["experiments"])

    def test_the_result_comes_first(self, pages: dict[str, str], report: dict[str, Any]) -> None:
        text = Parsed(pages["report"]).text
        assert text.index(report["verdict"]) < text.index("Every item of the catalogue")
        order = [pages["report"].index(f'id="{part}"') for part in ("comparison", "groups", "learning", "data-facts")]
        assert order == sorted(order)

    def test_tables_have_the_numbers(self, pages: dict[str, str], report: dict[str, Any]) -> None:
        html = pages["report"]
        comparison = html[html.index('id="comparison-table"') : html.index('id="groups"')]
        for row in report["comparison"]["rows"]:
            for metric in ("ndcg@5", "ndcg@10", "mrr@5", "hit@10", "ndcg@20", "hit@50"):
                assert f"{row['metrics'][metric]['mean']:.4f}" in comparison
            assert f"± {row['metrics']['ndcg@10']['sd']:.4f}" in comparison
        assert '<th scope="col" class="figure-column extra">NDCG@20</th>' in comparison
        for words in ("+6.9%", "&lt; 0.001", '<tr class="quiet">', "last-item transition", "0.0472"):
            assert words in comparison
        for result in report["experiments"]:
            for variant in result["variants"]:
                assert f"{variant['metrics'][result['split']][result['metric']]['mean']:.4f}" in html
        groups = html[html.index('id="groups-table"') : html.index('id="learning"')]
        for buckets in report["comparison"]["groups"].values():
            for entry in buckets.values():
                for value in (f"{entry['users']:,}", f"{entry['hm4sr']:.4f}", f"{entry['athwe']:.4f}"):
                    assert f">{value}</td>" in groups

    def test_bold_is_only_what_is_best_beyond_chance(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        def bold(best: dict[str, str | None]) -> list[str]:
            comparison = report["comparison"] | {"best": best}
            html = report_page(report | {"comparison": comparison}, figures)
            return re.findall(r'<td class="(?:extra )?best"[^>]*>([\d.]+)', html)

        athwe = report["comparison"]["rows"][1]["metrics"]
        none = dict.fromkeys(made.METRICS)
        assert bold(none) == []
        assert bold(none | {"ndcg@10": "athwe", "mrr@50": "athwe"}) == [
            f"{athwe['ndcg@10']['mean']:.4f}",
            f"{athwe['mrr@50']['mean']:.4f}",
        ]

    def test_every_table_and_figure_can_be_saved(self, pages: dict[str, str], report: dict[str, Any]) -> None:
        found = Parsed(pages["report"])
        links = [link for link in found.of("a") if "download" in link]
        kinds = [str(link["download"]).rsplit(".", 1)[1] for link in links]
        tables = len(found.of("table"))
        assert [kinds.count(kind) for kind in ("csv", "md", "tex")] == [tables] * 3
        assert [kinds.count(kind) for kind in ("svg", "png")] == [len(found.of("svg", **{"class": "figure"}))] * 2
        (csv,) = [link for link in links if link["download"] == "Toys_and_Games-comparison.csv"]
        text = base64.b64decode(str(csv["href"]).split(",")[1]).decode()
        assert text.startswith("model,seeds,NDCG@5,NDCG@5 sd,NDCG@10")
        assert str(report["comparison"]["rows"][0]["metrics"]["hit@50"]["mean"]) in text

    def test_commands_break_between_options_only(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        command = "athwe train --dataset 'a  b' --set model.hidden_size=16 --json"
        runs = [report["runs"][0] | {"command": command}]
        html = report_page(report | {"runs": runs}, figures)
        parts = re.findall(r"<span>([^<]*)</span>", html[html.index("as typed") :])[:5]
        assert parts == [
            *("athwe", "train", "--dataset &#39;a  b&#39;", "--set model.hidden_size=16", "--json"),
        ]

    def test_commands_versions_and_quick_looks_are_said(self, pages: dict[str, str], report: dict[str, Any]) -> None:
        text = Parsed(pages["report"]).text
        for run in report["runs"]:
            assert run["command"] in text
            assert run["again"] in text
        assert report["content_hash"] in text
        assert report["runs"][0]["versions"]["git_commit"] in text
        assert "quick look: at most 5 epochs" in text
        assert "removing TMoE removes PCL too" in text

    def test_runs_that_must_not_be_ranked_are_not(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        values = {"Toys_and_Games/athwe/s0": "item", "Toys_and_Games/hm4sr/s0": "file"}
        comparison = report["comparison"] | {
            "comparable": False,
            "best": dict.fromkeys(made.METRICS),
            "differences": [{"what": "tie_order", "values": values}],
        }
        html = report_page(report | {"comparison": comparison}, figures)
        assert "Not comparable. These runs differ in tie order (Toys_and_Games/athwe/s0: item" in Parsed(html).text

    def test_experiments_on_other_data_are_marked(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        experiments = [result | {"data_version": "000000000000"} for result in report["experiments"]]
        marked = report_page(report | {"experiments": experiments}, figures)
        assert "On another prepared version, 000000000000" in marked
        assert "On another prepared version" not in report_page(report, figures)

    def test_best_epochs_show_the_metric_that_chose_them(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        runs = [
            run
            | {"metric": "hit@5", "best_value": 0.1234, "test": {"ndcg@10": 0.05, "hit@5": 0.1111}}
            | {"records": [record | {"validation": {"hit@5": 0.1234}} for record in run["records"]]}
            for run in report["runs"]
        ]
        html = report_page(report | {"runs": runs}, figures)
        learning = html[html.index('id="learning"') : html.index('id="experiments"')]
        assert re.search(
            r'>Hit@5</td>\s*<td data-value="0.1234">0.1234</td>\s*<td data-value="0.1111">0.1111', learning
        )
        assert "NDCG@20" not in Parsed(learning[learning.index("Best epochs") :]).text

    def test_before_the_first_run(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        figures = figures | {"curves": None, "groups": None, "experiments": []}
        none: dict[str, Any] = {"runs": [], "comparison": None, "groups": {}, "experiments": []}
        none |= {"verdict": None, "baselines": {}}
        found = Parsed(report_page(report | none, figures))
        assert "athwe train --dataset Toys_and_Games" in found.text
        assert len(found.of("svg", **{"class": "figure"})) == 1

    def test_markup_in_names_stays_text(self, report: dict[str, Any], figures: dict[str, Any]) -> None:
        nasty = report | {"dataset": NASTY, "notes": [NASTY]}
        nasty["experiments"] = [
            report["experiments"][0] | {"command": NASTY, "notes": [NASTY]},
            *report["experiments"][1:],
        ]
        found = Parsed(report_page(nasty, figures))
        assert len(found.raw["script"]) == 1
        assert found.of("img") == []
        assert found.text.count(NASTY) >= 4
