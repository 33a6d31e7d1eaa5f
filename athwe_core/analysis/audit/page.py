"""The HTML page of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from athwe_core.analysis.audit.grade import GRADES
from athwe_core.analysis.audit.result import Audit, Finding, Grade
from athwe_core.analysis.case_study.study import utc_date
from athwe_core.analysis.figures.plots import time_distribution
from athwe_core.analysis.pages.download import Download, page_figure
from athwe_core.analysis.pages.html import render
from athwe_core.analysis.pages.origin import Origin
from athwe_core.analysis.pages.table import Cell, Column, PageTable, Row, count, number, share, words

GRADE_WORDS: dict[Grade, tuple[str, str]] = {
    "problem": ("Problems", "Results on this data mean little before these are dealt with."),
    "look": ("Worth a look", "Know these before you compare models, and name them where you report results."),
    "ok": ("In order", "Nothing to do."),
}
"""Heading of each grade, and what it asks of the reader."""


def audit_page(facts: Audit, timestamps: Int64[np.ndarray, "I"], origin: Origin | None = None) -> str:
    """Self-contained HTML of an audit.

    Args:
        facts: the result of `audit`.
        timestamps: unix seconds of the interactions.
        origin: of the page; None = it has no footer.
    """
    name = facts["dataset"]
    first, last = utc_date(facts["time"]["first"]), utc_date(facts["time"]["last"])
    figure = page_figure(
        time_distribution(timestamps, dataset=name),
        stem=f"{name}-over-time",
        title=f"Interactions of {name} over time",
        description=f"{len(timestamps):,} interactions from {first} to {last}.",
    )
    return render(
        "audit.html.j2",
        title=f"Audit: {name}",
        origin=origin,
        facts=facts,
        statistics=facts["statistics"],
        headline=_headline(facts),
        graded=[
            (grade, *GRADE_WORDS[grade], found)
            for grade in GRADES
            if (found := [finding for finding in facts["findings"] if finding["grade"] == grade])
        ],
        time_figure=figure,
        sizes=[_count_bars(facts, kind) for kind in ("users", "items")],
        orders=[_tie_bars(facts), _shuffle_bars(facts)],
        shares=_shares_table(facts),
        features=_features_table(facts),
    )


@dataclass(frozen=True)
class Bar:
    """A row of a bar table."""

    label: str
    text: str
    width: float
    """Percent of the largest."""


@dataclass(frozen=True)
class Bars:
    """A bar table, and the same as files."""

    caption: str
    rows: list[Bar]
    downloads: list[Download]


def _headline(facts: Audit) -> str:
    """How many findings of each grade, and the titles of the worst ones."""
    findings = facts["findings"]
    problems = _titles(findings, "problem")
    looks = _titles(findings, "look")
    parts = []
    if problems:
        parts.append(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}: {', '.join(problems)}.")
    if looks:
        parts.append(f"{len(looks)} worth a look: {', '.join(looks)}.")
    rest = len(findings) - len(problems) - len(looks)
    parts.append(f"{'All' if not parts else 'The other'} {rest} checks are in order.")
    return " ".join(parts)


def _titles(findings: Sequence[Finding], grade: Grade) -> list[str]:
    return [finding["title"].lower() for finding in findings if finding["grade"] == grade]


def _count_bars(facts: Audit, kind: str) -> Bars:
    found = facts["counts"][kind]
    low, middle, high = found["quartiles"]
    caption = (
        f"{kind.capitalize()} by number of interactions. Half of them have {middle:.0f} or fewer, "
        f"a quarter {low:.0f} or fewer, a quarter {high:.0f} or more"
    )
    cells = {label: count(value) for label, value in found["bins"].items()}
    return _bars(facts, f"{kind}-by-interactions", ("interactions", kind), caption, cells)


def _tie_bars(facts: Audit) -> Bars:
    cells = {order: number(value) for order, value in facts["tie_orders"].items() if value is not None}
    caption = "NDCG@10 of the last-item-transition baseline by tie order"
    return _bars(facts, "tie-orders", ("tie order", "NDCG@10"), caption, cells)


def _shuffle_bars(facts: Audit) -> Bars:
    shuffle = facts["shuffle"]
    cells = {"as they are": number(shuffle["ordered"]), "shuffled": number(shuffle["shuffled"])}
    caption = "The same baseline on histories as they are, and shuffled"
    return _bars(facts, "shuffle", ("histories", "NDCG@10"), caption, cells)


def _bars(facts: Audit, name: str, heading: tuple[str, str], caption: str, cells: Mapping[str, Cell]) -> Bars:
    columns = [Column(heading[0], is_text=True), Column(heading[1])]
    table = PageTable(name, caption, columns, [Row([words(k), cell]) for k, cell in cells.items()], facts["dataset"])
    most = max(cell.value or 0 for cell in cells.values()) or 1
    rows = [Bar(label, cell.text, round(100 * (cell.value or 0) / most, 2)) for label, cell in cells.items()]
    return Bars(caption, rows, table.downloads)


def _shares_table(facts: Audit) -> PageTable:
    pairs, leakage, popularity = facts["pairs"], facts["leakage"], facts["popularity"]
    shares = {
        "interactions that repeat an item of the user": pairs["repeated"],
        "interactions at the time of the user's interaction before": pairs["same_time"],
        "interactions on the day of the user's interaction before": pairs["same_day"],
        "training interactions later than half of the test interactions": leakage["training_later"],
        "items that first appear after that moment": leakage["items_first_seen_later"],
        "test targets that training does not have": facts["cold"]["test_targets"],
        "training interactions of the most popular 1% of the items": popularity["top_1_percent"],
        "training interactions of the most popular 10% of the items": popularity["top_10_percent"],
    }
    rows = [Row([words(label), share(value)]) for label, value in shares.items()]
    rows += [
        Row([words(f"{name} baseline, test NDCG@10"), number(found["ndcg@10"])])
        for name, found in facts["baselines"].items()
    ]
    return PageTable("measures", "Measures", [Column("measure", is_text=True), Column("value")], rows, facts["dataset"])


def _features_table(facts: Audit) -> PageTable:
    names = ("width", "items with a vector", "equal to another item's", "length", "mean cosine similarity")
    rows = []
    for kind, found in facts["features"].items():
        cells = [words(kind)]
        if found is None:
            cells += [words("none"), *[words("")] * (len(names) - 1)]
        else:
            cells += [count(found["width"]), share(found["coverage"]), share(found["duplicates"])]
            length = f"{found['norm_mean']:.2f} ± {found['norm_sd']:.2f}"
            cells += [Cell(length, found["norm_mean"]), number(found["mean_cosine"], 2)]
        rows.append(Row(cells))
    return PageTable(
        "features", "Features", [Column("modality", is_text=True), *map(Column, names)], rows, facts["dataset"]
    )
