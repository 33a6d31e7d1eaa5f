"""A case study as its page shows it: texts written out, bars and strips measured, pictures encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from athwe_core.analysis.case_study import sentences
from athwe_core.analysis.case_study.item_view import (
    ItemView,
    ScoreBar,
    ShownItem,
    part_colours,
    score_bars,
)
from athwe_core.analysis.case_study.panels import Panel, panel_columns
from athwe_core.analysis.case_study.result import CaseStudy, Recommendation, Why


@dataclass(frozen=True)
class TargetView:
    """The true next item, with its rank in words by label of the run."""

    item: ShownItem
    ranks: list[tuple[str, str]]


@dataclass(frozen=True)
class RecommendationView:
    """One line of a run's recommendations."""

    item: ShownItem
    rank: float
    score: float
    bar: ScoreBar
    in_history: bool
    is_target: bool


@dataclass(frozen=True)
class RunView:
    """What one run recommends."""

    label: str
    rows: list[RecommendationView]


@dataclass(frozen=True)
class WhyView:
    """Why one run ranks the subject where it does."""

    run: str
    label: str
    subject: ShownItem
    is_target: bool
    is_chosen: bool
    rank: str
    score_sentence: str
    score_bar: ScoreBar
    columns: list[list[Panel]]


@dataclass(frozen=True)
class CaseView:
    """One user on a page."""

    number: int
    """From 0, within the page."""
    anchor: str
    user: str | None
    picked: str | None
    k: int
    earlier_items: int
    headline: str
    story: list[str]
    """What mattered for the first run, in sentences."""
    history: list[ShownItem]
    target: TargetView | None
    recommendations: list[RunView]
    legend: list[tuple[str, str]]
    """Parts of the scores and their CSS classes; empty where no model has parts."""
    why: list[WhyView]


def case_view(case: CaseStudy, items: ItemView, *, number: int, colours: Mapping[str, str]) -> CaseView:
    """Everything the template of one case needs.

    Args:
        case: the result of a case study.
        items: gives items their pictures.
        number: from 0, of the case within its page.
        colours: CSS class by name of a part, as `page_colours` gives it.
    """
    history = [items.dated(item, position=item["position"]) for item in case["history"]]
    target = case["target"]
    return CaseView(
        number=number,
        anchor=f"case-{number + 1}",
        user=case["user"],
        picked=case["picked"] and case["picked"].replace("->", "→"),
        k=case["k"],
        earlier_items=case["earlier_items"],
        headline=_headline(case),
        story=_story(case),
        history=history,
        target=None
        if target is None
        else TargetView(
            items.dated(target),
            [(sentences.run_label(run), sentences.rank_words(rank)) for run, rank in target["ranks"].items()],
        ),
        recommendations=[
            RunView(sentences.run_label(run), _rows(rows, items, colours))
            for run, rows in case["recommendations"].items()
        ],
        legend=[(name, colours[name]) for name in _score_parts([case])],
        why=[_why(run, why, case, history, items, colours) for run, why in case["why"].items()],
    )


def page_colours(cases: Iterable[CaseStudy]) -> dict[str, str]:
    """CSS class by name of every part of a score, encoder and modality on a page."""
    cases = list(cases)
    names = list(_score_parts(cases))
    for case in cases:
        for why in case["why"].values():
            names += [*why["attention"], *why["attention_parts"], *(why["interactive_gates"] or ())]
            for energy in (why["wavelet_energy"], why["frequency_energy"]):
                names += energy["share"] if energy else ()
    return part_colours(names)


def short_names(runs: Iterable[str]) -> dict[str, str]:
    """Run to its name without the data set, which all share."""
    return {run: sentences.run_label(run) for run in runs}


def _score_parts(cases: Iterable[CaseStudy]) -> Iterable[str]:
    """Names of the parts of the scores, each once."""
    every = (one for case in cases for one in (*case["why"].values(), *chain(*case["recommendations"].values())))
    return dict.fromkeys(name for scored in every for name in scored["by_modality"])


def _headline(case: CaseStudy) -> str:
    target = case["target"]
    if target is None:
        return f"A history of {sentences.counted(len(case['history']), 'item')}, and what each run recommends next."
    return f"The next item was {sentences.name_of(target)}: {sentences.ranks_by_run(target['ranks'])}."


def _story(case: CaseStudy) -> list[str]:
    """What the first run's rank depends on most: an item of the history, and the time before the last one."""
    run, why = next(iter(case["why"].items()))
    found = [sentences.influence(why, case["history"])] if why["influence"] else []
    found += [sentences.gaps(why, k=case["k"])] if why["gaps"] else []
    return [f"{sentences.run_label(run)}: {' '.join(found)}"] if found else []


def _rows(rows: list[Recommendation], items: ItemView, colours: Mapping[str, str]) -> list[RecommendationView]:
    bars = score_bars([row["by_modality"] for row in rows], colours)
    return [
        RecommendationView(
            item=items.shown(row["item_id"], row["title"], row["category"]),
            rank=row["rank"],
            score=row["score"],
            bar=bar,
            in_history=row["in_history"],
            is_target=row["is_target"],
        )
        for row, bar in zip(rows, bars, strict=True)
    ]


def _why(
    run: str, why: Why, case: CaseStudy, history: list[ShownItem], items: ItemView, colours: Mapping[str, str]
) -> WhyView:
    subject = why["subject"]
    return WhyView(
        run=run,
        label=sentences.run_label(run),
        subject=items.shown(subject["item_id"], subject["title"]),
        is_target=subject["is_target"],
        is_chosen=subject.get("is_chosen", False),
        rank=sentences.rank_words(why["rank"]),
        score_sentence=sentences.score(why),
        score_bar=score_bars([why["by_modality"]], colours)[0],
        columns=panel_columns(why, case["history"], history, k=case["k"], colours=colours),
    )
