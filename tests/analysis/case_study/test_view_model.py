"""A case as its page shows it."""

from typing import Any

import analysis_cases as made

from athwe_core.analysis.case_study.item_view import ItemView
from athwe_core.analysis.case_study.view_model import CaseView, case_view, page_colours, short_names


def view(case: dict[str, Any]) -> CaseView:
    return case_view(case, ItemView(None), number=0, colours=page_colours([case]))


def without_inside_view(why: dict[str, Any]) -> dict[str, Any]:
    """What a model gives that tells nothing of its inside."""
    return why | {
        **{"by_modality": {}, "attention": {}},
        **{"temporal_gates": None, "interactive_gates": None, "wavelet_energy": None},
    }


def test_history_target_and_headline() -> None:
    found = view(made.case())
    assert [item.number for item in found.history] == list(range(1, 8))
    assert found.target is not None
    assert found.target.ranks == [("athwe/first", "3"), ("hm4sr/second", "312")]
    assert found.headline.startswith("The next item was “")
    assert found.headline.endswith(": rank 3 by athwe/first, rank 312 by hm4sr/second.")
    assert found.picked == "improved: rank 312 → 3 against Toys_and_Games/hm4sr/second"


def test_the_story_is_of_the_first_run() -> None:
    (story,) = view(made.case()).story
    assert story.startswith("athwe/first: Leaving out ")
    assert " of the top 10 would stay." in story
    assert view(made.case(1)).story == []


def test_without_a_target_the_headline_counts_the_history() -> None:
    found = view(made.case() | {"target": None})
    assert found.target is None
    assert found.headline == "A history of 7 items, and what each run recommends next."


def test_recommendations_keep_their_order_with_a_bar_each() -> None:
    case = made.case()
    found = view(case)
    assert [run.label for run in found.recommendations] == ["athwe/first", "hm4sr/second"]
    for run, rows in zip(found.recommendations, case["recommendations"].values(), strict=True):
        assert [row.item.item_id for row in run.rows] == [row["item_id"] for row in rows]
        for shown, row in zip(run.rows, rows, strict=True):
            assert {part.name: part.value for part in shown.bar.parts} == row["by_modality"]


def test_the_why_has_a_subject_a_sentence_and_panels_for_each_run() -> None:
    first, second = view(made.case()).why
    assert (first.run, first.label, first.rank, first.is_target) == (made.RUNS[0], "athwe/first", "3", True)
    assert first.subject.item_id == made.item(7)["item_id"]
    assert first.score_sentence.endswith("; id contributes most.")
    titles = [[panel.title for column in why.columns for panel in column] for why in (first, second)]
    assert set(titles[0]) - set(titles[1]) == {"Wavelet energy"}


def test_the_legend_has_the_parts_of_every_run() -> None:
    case = made.case()
    case["why"][made.RUNS[0]] = without_inside_view(case["why"][made.RUNS[0]])
    case["why"][made.RUNS[1]]["by_modality"] = {"id": 2.0, "brand": 1.0}
    parts = [("id", "m-id"), ("brand", "m-other-1"), ("text", "m-text"), ("image", "m-image")]
    assert view(case).legend == parts, "those of the recommendations too"


def test_models_without_an_inside_view_have_no_legend_and_no_bars() -> None:
    case = made.case()
    case["why"] = {run: without_inside_view(why) for run, why in case["why"].items()}
    case["recommendations"] = {
        run: [row | {"by_modality": {}} for row in rows] for run, rows in case["recommendations"].items()
    }
    found = view(case)
    assert found.legend == []
    assert all(row.bar.parts == [] for run in found.recommendations for row in run.rows)
    assert found.why[0].score_sentence == "Its score is 8.40."


def test_colours_are_those_of_all_cases_of_a_page() -> None:
    cases = [made.case(), made.case(3, runs=made.RUNS[:1])]
    cases[1]["why"][made.RUNS[0]]["attention"] = {"sequence": [[0.2, 0.3, 0.5]]}
    assert page_colours(cases) == {"id": "m-id", "text": "m-text", "image": "m-image", "sequence": "m-other-1"}


def test_short_names_leave_the_data_set_out() -> None:
    assert short_names(["Toys/athwe/a", "Toys/hm4sr/a"]) == {"Toys/athwe/a": "athwe/a", "Toys/hm4sr/a": "hm4sr/a"}
