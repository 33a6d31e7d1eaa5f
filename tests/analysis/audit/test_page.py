"""The page of an audit: its numbers, its counts of grades, and text that stays text."""

import re

import analysis_cases as made

from athwe_core.analysis.audit.page import audit_page


def test_every_finding_and_number_is_there() -> None:
    facts = made.audited()
    html = audit_page(facts, made.timestamps())
    for finding in facts["findings"]:
        assert f"grade-{finding['grade']}" in html
        assert f"<h3>{finding['title']}</h3>" in html
    for number in ("12,673", "0.0472", "0.0107", "46.9%", "7.36 ± 0.66"):
        assert number in html
    grades = [finding["grade"] for finding in facts["findings"]]
    assert grades.count("problem") == 1
    assert f"1 problem, {grades.count('look')} to look at, {grades.count('ok')} ok." in html


def test_bars_are_relative_to_the_largest_of_their_table() -> None:
    html = audit_page(made.audited(), made.timestamps())
    table = html[html.index("Users by number of interactions") : html.index("Items by number of interactions")]
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="8"', table)]
    assert widths == [100.0, round(100 * 5184 / 12673, 2), round(100 * 1193 / 12673, 2)]


def test_a_tie_order_that_is_not_known_has_no_bar() -> None:
    html = audit_page(made.audited(), made.timestamps())
    assert '<th scope="row">item</th>' in html
    assert '<th scope="row">random</th>' not in html


def test_markup_in_names_stays_text() -> None:
    facts = made.audited() | {"dataset": "<script>alert(1)</script>"}
    html = audit_page(facts, made.timestamps())
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
