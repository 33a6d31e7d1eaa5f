"""The pages of the service: items with links to pictures, foreign text as text, a description of any interface."""

import analysis_cases as made

from athwe_core.analysis.pages.serve import api_page, explore_page, explore_results, page_item


class Explored:
    """Two runs; one item has a picture."""

    dataset = "<b>demo</b>"
    runs = ("demo/athwe/first", "demo/hm4sr/second")
    latest = 1_500_000_000

    def has_picture(self, item_id: str) -> bool:
        return item_id == made.case()["history"][0]["item_id"]


def test_the_page_names_its_runs_and_escapes_its_data_set() -> None:
    page = explore_page(Explored(), most_items=200)
    assert "<h1>&lt;b&gt;demo&lt;/b&gt;</h1>" in page
    assert "athwe/first</bdi></b> and" in page
    assert '{"latest":1500000000,"mostItems":200}' in page


def test_results_have_every_run_with_links_to_pictures_and_no_dialog() -> None:
    case = made.case()
    html = explore_results(case, Explored())
    assert html.count('<ol class="top-items">') == 2
    assert html.count('data-act="why"') == sum(len(rows) for rows in case["recommendations"].values())
    assert "aria-haspopup" not in html
    assert "data:image" not in html
    assert "What came next has <b>rank 312</b>" in html


def test_titles_stay_text() -> None:
    case = made.case()
    for rows in case["recommendations"].values():
        rows[0]["title"] = '"><script>alert(1)</script>'
    html = explore_results(case, Explored())
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_an_item_has_a_link_to_its_picture_with_its_id_quoted() -> None:
    explored = Explored()
    explored.has_picture = lambda _: True  # type: ignore[method-assign]
    item = page_item({"item_id": "a/b&c ?", "title": " ", "category": "x"}, explored)
    assert item["picture"] == "try/picture?item=a%2Fb%26c+%3F"
    assert item["title"] == "a/b&c ?"


def test_a_description_lists_fields_within_lists_and_refusals() -> None:
    text = {"type": "string"}
    schemas = {
        "Row": {
            "properties": {"ids": {"type": "array", "items": text, "description": "The ids."}},
            "required": ["ids"],
        },
        "Body": {
            "properties": {
                "rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
                "k": {"type": "integer", "minimum": 1, "default": 10},
                "of": {"anyOf": [text, {"type": "null"}], "default": None},
            },
            "required": ["rows"],
        },
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}, "example": {"k": 1}}}
    operation = {
        "summary": "Does <it>",
        "requestBody": {"content": content},
        "responses": {"200": {"description": "ok"}, "429": {"description": "Full."}},
    }
    page = api_page(
        {
            "info": {"title": "Name", "version": "1", "description": "About."},
            "paths": {"/do": {"post": operation}},
            "components": {"schemas": schemas},
        }
    )
    for part in ("POST /do", "Does &lt;it&gt;", "rows[].ids", "list of text", "whole number &gt;= 1", "text or null"):
        assert part in page
    for part in ("<dt>429</dt><dd>Full.</dd>", "The ids.", "{&#34;k&#34;: 1}", '<td class="short">10</td>'):
        assert part in page
