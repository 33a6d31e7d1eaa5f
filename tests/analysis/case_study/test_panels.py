"""The panels of the why: their numbers, and which are there."""

from typing import Any

import analysis_cases as made

from athwe_core.analysis.case_study.item_view import ItemView
from athwe_core.analysis.case_study.panels import MOST_INFLUENCES, Panel, panel_columns
from athwe_core.analysis.case_study.view_model import page_colours


def panels(case: dict[str, Any], run: str = made.RUNS[0]) -> dict[str, Panel]:
    """Panels of a run by title."""
    items = ItemView(None)
    shown = [items.dated(item, position=item["position"]) for item in case["history"]]
    columns = panel_columns(case["why"][run], case["history"], shown, k=case["k"], colours=page_colours([case]))
    return {panel.title: panel for column in columns for panel in column}


def test_temporal_gates_are_a_strip_for_each_expert() -> None:
    case = made.case()
    gates = case["why"][made.RUNS[0]]["temporal_gates"]
    content: Any = panels(case)["Temporal gates"].content
    (group,) = content.groups
    assert (group.name, group.colour) == ("", "m-time")
    assert [[cell.value for cell in strip.cells] for strip in group.strips] == [
        list(row) for row in zip(*gates, strict=True)
    ]


def test_gates_close_to_even_are_not_drawn() -> None:
    case = made.case()
    case["why"][made.RUNS[0]]["temporal_gates"] = [[0.25, 0.26, 0.24, 0.25]] * 7
    found = panels(case)
    content: Any = found["Temporal gates"].content
    assert not content.is_drawn
    assert found["Temporal gates"].finding.startswith("No expert stands out")
    drawn: Any = found["Interactive gates"].content
    assert drawn.is_drawn


def test_attention_is_a_strip_for_each_layer_of_each_encoder() -> None:
    case = made.case()
    weights = case["why"][made.RUNS[0]]["attention"] = {"sequence": [[0.1] * 7, [0.2] * 7]}
    content: Any = panels(case)["Attention of the last position"].content
    (group,) = content.groups
    assert (group.name, group.colour) == ("sequence", "m-other-1")
    assert [strip.label for strip in group.strips] == ["layer 1", "layer 2"]
    assert [[cell.value for cell in strip.cells] for strip in group.strips] == weights["sequence"]


def test_influence_is_the_change_of_the_score_and_keeps_the_side() -> None:
    case = made.case(3)
    why = case["why"][made.RUNS[0]]
    why["rank"] = 1.0
    for entry, change in zip(why["influence"], (-0.5, 1.0, 0.0), strict=True):
        entry |= {"rank_without": 1.0, "rank_change": 0.0, "score_change": change}
    content: Any = panels(case)["Influence of each item"].content
    assert [(row.x, row.width) for row in content.rows] == [(50.0, 25.0), (0.0, 50.0), (50.0, 0.0)]
    assert (content.rank, content.rows[0].rank_without) == ("1", "1")


def test_a_long_history_shows_the_strongest_influences_in_order_and_all_in_the_table() -> None:
    content: Any = panels(made.case(50))["Influence of each item"].content
    shown = [row.item.number for row in content.rows]
    assert len(shown) == MOST_INFLUENCES
    assert shown == sorted(shown)
    weakest = min(abs(row.score_change) for row in content.rows)
    rest = [abs(row.score_change) for row in content.all_rows if row.item.number not in shown]
    assert max(rest) <= weakest
    assert len(content.all_rows) == 50


def test_gaps_are_in_words() -> None:
    content: Any = panels(made.case())["What another gap would change"].content
    assert [(row.label, row.words, row.kept) for row in content.rows[1:]] == [
        ("one day", "1 day", 9),
        ("one week", "7 days", 8),
        ("one year", "1 year", 4),
    ]


def test_bands_lie_end_to_end_and_a_modality_without_energy_has_no_bar() -> None:
    case = made.case()
    share = case["why"][made.RUNS[0]]["wavelet_energy"]["share"]
    share |= {"id": [0.5, 0.25, 0.25, 0.0], "image": [float("nan")] * 4}
    content: Any = panels(case)["Wavelet energy"].content
    rows = {row.name: row for row in content.rows}
    assert [(band.x, band.width) for band in rows["id"].bands] == [(0, 50), (50, 25), (75, 25), (100, 0)]
    assert [band.width for band in rows["image"].bands] == [0] * 4
    assert [name for name, _ in content.legend] == ["low", "high 3", "high 2", "high 1"]


def test_parts_of_the_attention_are_groups_of_strips() -> None:
    case = made.case(3)
    parts = case["why"][made.RUNS[0]]["attention_parts"] = {"id": [[0.5, 0.5, 0]], "brand": [[0.2, 0.2, 0.6]]}
    panel = panels(case)["Attention by part"]
    content: Any = panel.content
    assert [(group.name, group.strips[0].label) for group in content.groups] == [
        ("id", "layer 1"),
        ("brand", "layer 1"),
    ]
    assert [[cell.value for cell in group.strips[0].cells] for group in content.groups] == [
        rows[0] for rows in parts.values()
    ]
    assert panel.finding.startswith("Each part alone: id attends most to item 1 (50%)")
    assert "Attention by part" not in panels(made.case(3))


def test_frequencies_are_bands_by_layer() -> None:
    case = made.case()
    share = {"layer 1": [0.75, 0.25], "layer 2": [0.5, 0.5]}
    case["why"][made.RUNS[0]]["frequency_energy"] = {"bands": ["0-9 (layer 2)", "10-25 (layer 1)"], "share": share}
    panel = panels(case)["Frequency energy"]
    content: Any = panel.content
    assert content.row_name == "layer"
    assert {row.name: [(band.x, band.width) for band in row.bands] for row in content.rows} == {
        "layer 1": [(0, 75), (75, 25)],
        "layer 2": [(0, 50), (50, 50)],
    }
    assert panel.finding.startswith("The 0-9 (layer 2) band holds 75% of the energy of layer 1 and 50%")
    assert "Frequency energy" not in panels(made.case())


def test_a_model_without_an_inside_view_has_influence_and_gaps_only() -> None:
    case = made.case()
    case["why"][made.RUNS[0]] |= {
        **{"temporal_gates": None, "interactive_gates": None, "wavelet_energy": None},
        "attention": {},
    }
    assert list(panels(case)) == ["Influence of each item", "What another gap would change"]


def test_one_item_and_no_gates_leave_the_attention() -> None:
    case = made.case(1, runs=made.RUNS[:1])
    case["why"][made.RUNS[0]] |= {"temporal_gates": None, "interactive_gates": None, "wavelet_energy": None}
    assert list(panels(case)) == ["Attention of the last position"]
