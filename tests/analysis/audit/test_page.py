"""The page of an audit: its numbers, its counts of grades, and text that stays text."""

import re

import analysis_cases as made

from athwe_core.analysis.audit.page import audit_page


def test_every_finding_and_number_is_there() -> None:
    facts = made.audited()
    html = audit_page(facts, made.timestamps())
    for finding in facts["findings"]:
        assert f"grade-{finding['grade']}" in html
        assert f"<h4>{finding['title']} <span" in html
    for number in ("12,673", "0.0472", "0.0107", "46.9%", "7.36 ± 0.66"):
        assert number in html
    grades = [finding["grade"] for finding in facts["findings"]]
    assert grades.count("problem") == 1
    start = f"1 problem: effect of the tie order. {grades.count('look')} worth a look: equal times, "
    assert start in html
    assert f"The other {grades.count('ok')} checks are in order." in html


def test_the_worst_come_first_with_a_command_and_what_is_in_order_is_folded() -> None:
    html = audit_page(made.audited(), made.timestamps())
    places = [html.index(f"surface grade-{grade}") for grade in ("problem", "look", "ok")]
    assert places == sorted(places)
    assert places[1] < html.index('<details class="in-order">') < places[2]
    assert "<span>--dataset Toys_and_Games</span> <span>--tie-order random</span>" in html
    assert "<span>--split global-time</span>" in html


def test_bars_are_relative_to_the_largest_of_their_table() -> None:
    html = audit_page(made.audited(), made.timestamps())
    table = html[
        html.rindex("Users by number", 0, html.index("12,673")) : html.rindex("Items by number", 0, html.index("5,035"))
    ]
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="8"', table)]
    assert widths == [100.0, round(100 * 5184 / 12673, 2), round(100 * 1193 / 12673, 2)]


def test_a_tie_order_that_is_not_known_has_no_bar() -> None:
    html = audit_page(made.audited(), made.timestamps())
    assert '<th scope="row">item</th>' in html
    assert '<th scope="row">random</th>' not in html


def test_every_table_and_the_figure_can_be_saved() -> None:
    html = audit_page(made.audited(), made.timestamps())
    for name in ("measures.csv", "features.tex", "tie-orders.md", "users-by-interactions.csv", "over-time.png"):
        assert f'download="Toys_and_Games-{name}"' in html


def test_markup_in_names_stays_text() -> None:
    facts = made.audited() | {"dataset": "<script>alert(1)</script>"}
    html = audit_page(facts, made.timestamps())
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
