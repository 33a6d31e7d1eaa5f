"""The HTML page of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from markupsafe import Markup

from athwe_core.analysis.audit.grade import GRADES
from athwe_core.analysis.audit.result import Audit
from athwe_core.analysis.case_study.study import utc_date
from athwe_core.analysis.figures.plots import inline_svg, time_distribution
from athwe_core.analysis.pages.html import render


def audit_page(facts: Audit, timestamps: Int64[np.ndarray, "I"]) -> str:
    """Self-contained HTML of an audit.

    Args:
        facts: the result of `audit`.
        timestamps: unix seconds of the interactions.
    """
    name = facts["dataset"]
    first, last = utc_date(facts["time"]["first"]), utc_date(facts["time"]["last"])
    figure = inline_svg(
        time_distribution(timestamps, dataset=name),
        title=f"Interactions of {name} over time",
        description=f"{len(timestamps):,} interactions from {first} to {last}.",
    )
    grades = [finding["grade"] for finding in facts["findings"]]
    orders = {order: value for order, value in facts["tie_orders"].items() if value is not None}
    shuffle = {"as they are": facts["shuffle"]["ordered"], "shuffled": facts["shuffle"]["shuffled"]}
    return render(
        "audit.html.j2",
        title=f"Audit: {name}",
        facts=facts,
        statistics=facts["statistics"],
        grades={grade: grades.count(grade) for grade in GRADES},
        time_figure=Markup(figure),
        counts={kind: _bars(found["bins"], "{:,}") for kind, found in facts["counts"].items()},
        tie_orders=_bars(orders, "{:.4f}"),
        shuffle=_bars(shuffle, "{:.4f}"),
    )


@dataclass(frozen=True)
class Bar:
    """A row of a bar table."""

    label: str
    text: str
    width: float
    """Percent of the largest."""


def _bars(values: Mapping[str, float], form: str) -> list[Bar]:
    most = max(values.values()) or 1
    return [Bar(label, form.format(value), round(100 * value / most, 2)) for label, value in values.items()]
