"""Self-contained HTML pages: no network, no file beside them, light and dark, for screens of every width and for print.

Every value is escaped by the templates; scripts build what they show from text. A content security policy allows the page's
own style and script by their hashes, pictures from `data:` URLs, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from athwe_core.analysis.case_study.item_view import ItemView, Thumbnails
from athwe_core.analysis.case_study.result import CaseStudy
from athwe_core.analysis.case_study.sentences import rank_words
from athwe_core.analysis.case_study.view_model import case_view, page_colours, short_names
from athwe_core.analysis.experiments.comparison import Comparison
from athwe_core.analysis.pages.download import PageFigure
from athwe_core.analysis.pages.origin import Origin, command_parts
from athwe_core.analysis.pages.report_tables import (
    best_epochs_table,
    comparison_table,
    epochs_table,
    experiment_table,
    groups_table,
    time_table,
)
from athwe_core.analysis.pages.result import Figures, Report
from athwe_core.evaluation.metrics import metric_name

TEMPLATES = Path(__file__).parent / "templates"
_SIGNIFICANT_DIGITS = 5
_HIDDEN_IN_JSON = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def case_study_page(cases: Sequence[CaseStudy], images: Thumbnails | None, origin: Origin | None = None) -> str:
    """HTML of one or more case studies of a data set.

    Args:
        cases: results of `case_study`, at least one.
        images: pictures of items; the initials of an item stand in where there is none.
        origin: of the page; None = it has no footer.
    """
    first, colours, items = cases[0], page_colours(cases), ItemView(images)
    runs = {run: facts for case in cases for run, facts in case["runs"].items()}
    return render(
        "case_study.html.j2",
        title=f"Case study: {first['dataset']}",
        origin=origin,
        dataset=first["dataset"],
        facts={
            "prepared version": first["data_version"],
            "split": f"{first['split']}, {first['split_rule']}",
            "tie order": first["tie_order"],
            "seen items": "left out of the ranking" if first["exclude_seen"] else "in the ranking",
        },
        runs=[(short, runs[run]) for run, short in short_names(runs).items()],
        cases=[case_view(case, items, number=number, colours=colours) for number, case in enumerate(cases)],
        data=script_json({"cases": cases, "short": short_names(runs), "colours": colours}),
    )


def report_page(report: Report, figures: Figures, origin: Origin | None = None) -> str:
    """HTML of a report.

    Args:
        report: from `collect_report`.
        figures: from `draw_figures`; their SVG is trusted.
        origin: of the page; None = it has no footer.
    """
    name, comparison = report["dataset"], report["comparison"]
    return render(
        "report.html.j2",
        title=f"Report: {name}",
        origin=origin,
        report=report,
        figures=figures,
        time_table=time_table(report["time_distribution"], stem=name),
        comparison_table=None if comparison is None else comparison_table(comparison, report["baselines"], stem=name),
        groups_table=None if comparison is None else groups_table(comparison, stem=name),
        best_epochs=best_epochs_table(report, stem=name),
        epochs=[epochs_table(run, at=at, stem=name) for at, run in enumerate(report["runs"], 1)],
        experiment_tables=[
            experiment_table(result, at=at, stem=name) for at, result in enumerate(report["experiments"], 1)
        ],
    )


def comparison_page(
    comparison: Comparison,
    baselines: Mapping[str, Mapping[str, float]],
    *,
    verdict: str,
    groups_figure: PageFigure,
    origin: Origin | None = None,
) -> str:
    """HTML of a comparison of runs.

    Args:
        comparison: of `compare_runs`.
        baselines: metrics by name of the baseline; may be empty.
        verdict: the result in a sentence or two.
        groups_figure: of `draw_groups`.
        origin: of the page; None = it has no footer.
    """
    name = comparison["dataset"]
    return render(
        "compare.html.j2",
        title=f"Comparison: {name}",
        origin=origin,
        found=comparison,
        verdict=verdict,
        comparison_table=comparison_table(comparison, baselines, stem=name),
        groups_table=groups_table(comparison, stem=name),
        groups_figure=groups_figure,
    )


def script_json(value: object) -> Markup:
    """JSON that is safe within a script element; numbers to five significant digits, null where they are not finite."""
    text = json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup("".join(_HIDDEN_IN_JSON.get(character, character) for character in text))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def render(
    template: str,
    *,
    title: str,
    origin: Origin | None = None,
    data: Markup | None = None,
    own: str | None = None,
    sources: str = "img-src data:",
    **values: Any,
) -> str:
    """A page from one of `TEMPLATES` that extends `base.html.j2`.

    Args:
        template: its file name.
        title: of the page.
        origin: when and how the page was written; None = it has no footer.
        data: of `script_json`, what its script reads.
        own: name of a style sheet and of a script of this page, besides those of all pages; None = it has none.
        sources: what the page may load.
        values: of the template.
    """
    style, script = (_own_file(f"page.{kind}") + (_own_file(f"{own}.{kind}") if own else "") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; {sources}; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return fragment(
        template, title=title, origin=origin, data=data, style=style, script=script, policy=policy, **values
    )


def fragment(template: str, **values: Any) -> str:
    """One of `TEMPLATES` with values, which are escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "command_parts": command_parts,
        "count": "{:,}".format,
        "metric_name": metric_name,
        "number": _number,
        "rank": rank_words,
        "whole_p": lambda text: re.sub(r"\bp ([<=]) ", "p\u00a0\\1\u00a0", text),  # never broken across lines
    }
    return environment


def _number(value: float | None, digits: int = 4) -> str:
    """A number with fixed digits and a real minus sign; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


@cache
def _own_file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
