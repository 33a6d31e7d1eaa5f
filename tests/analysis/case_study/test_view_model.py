import base64
import io
from typing import Any

import analysis_cases as made
import pytest
from PIL import Image

from athwe_core.analysis.case_study.view_model import MOST_INFLUENCES, case_view, score_bars, short_names


def panels(view: dict[str, Any], run: int = 0) -> dict[str, dict[str, Any]]:
    """Panels of a run by title."""
    return {panel["title"]: panel for column in view["why"][run]["columns"] for panel in column}


def test_pictures_are_data_urls_and_initials_stand_in() -> None:
    missing = made.item(2)["item_id"]
    view = case_view(made.case(), made.Pictures(missing=(missing,)), number=0)
    first, third = view["history"][0], view["history"][2]
    prefix, encoded = first["picture"].split(",")
    assert prefix == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == (112, 112)
    assert third["picture"] is None
    assert third["initials"] == "FP"


def test_each_picture_is_read_once() -> None:
    asked: list[str] = []

    class Counting(made.Pictures):
        def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
            asked.append(item_id)
            return super().thumbnail(item_id, size)

    case_view(made.case(), Counting(), number=0)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("title", "initials"), [("wooden blocks", "WB"), ("(3) a", "A"), ("…", "?"), ("שלום עולם", "שע"), ("", "B")]
)
def test_initials(title: str, initials: str) -> None:
    case = made.case()
    case["history"][0]["title"] = title
    assert case_view(case, None, number=0)["history"][0]["initials"] == initials


def test_an_item_without_title_goes_by_its_id() -> None:
    case = made.case()
    case["target"]["title"] = "  "
    view = case_view(case, None, number=0)
    assert view["target"]["title"] == case["target"]["item_id"]
    assert case["target"]["item_id"] in view["headline"]


def test_bars_share_a_scale_and_negative_parts_stand_left_of_zero() -> None:
    rows = [{"by_modality": {"id": 6.0, "text": 2.0}}, {"by_modality": {"id": 4.0, "text": -2.0}}]
    first, second = score_bars(rows)
    assert first["zero"] == second["zero"] == 20.0
    assert [(part["x"], part["width"]) for part in first["parts"]] == [(20.0, 60.0), (80.0, 20.0)]
    assert [(part["x"], part["width"]) for part in second["parts"]] == [(20.0, 40.0), (0.0, 20.0)]


def test_bars_of_nothing() -> None:
    assert score_bars([{"by_modality": {"id": 0.0}}])[0]["parts"][0]["width"] == 0


def test_shades_are_relative_to_the_largest_of_the_panel_and_values_as_they_are() -> None:
    case = made.case()
    why = case["why"][made.RUNS[0]]
    panel = panels(case_view(case, None, number=0))["Temporal gates"]
    rows = panel["groups"][0]["rows"]
    assert [[cell["value"] for cell in row["cells"]] for row in rows] == [
        list(row) for row in zip(*why["temporal_gates"], strict=True)
    ]
    assert max(cell["shade"] for row in rows for cell in row["cells"]) == 1
    assert panel["largest"] == max(map(max, why["temporal_gates"]))


def test_influence_grows_with_the_factor_and_keeps_the_side() -> None:
    case = made.case(3)
    why = case["why"][made.RUNS[0]] | {"rank": 8.0}
    for entry, rank in zip(why["influence"], (16.0, 2.0, 8.0), strict=True):
        entry["rank_without"] = rank
    case["why"] = {made.RUNS[0]: why}
    rows = panels(case_view(case, None, number=0))["Influence of each item"]["rows"]
    assert [(row["x"], row["width"]) for row in rows] == [(50.0, 25.0), (0.0, 50.0), (50.0, 0.0)]


def test_a_long_history_shows_the_strongest_influences_in_order_and_all_in_the_table() -> None:
    panel = panels(case_view(made.case(50), None, number=0))["Influence of each item"]
    shown = [row["at"] for row in panel["rows"]]
    assert len(shown) == MOST_INFLUENCES
    assert shown == sorted(shown)
    weakest = min(abs(row["weight"]) for row in panel["rows"])
    rest = [abs(row["weight"]) for row in panel["all_rows"] if row["at"] not in shown]
    assert max(rest) <= weakest
    assert len(panel["all_rows"]) == 50


def test_a_strip_of_fifty_has_at_most_ten_numbers_the_last_among_them() -> None:
    axis = panels(case_view(made.case(50), None, number=0))["Temporal gates"]["axis"]
    assert [label for label in axis if label] == list(range(5, 51, 5))


def test_only_the_panels_that_a_run_has() -> None:
    case = made.case(1, runs=made.RUNS[:1])
    why = case["why"][made.RUNS[0]]
    why |= {"temporal_gates": None, "interactive_gates": None, "wavelet_energy": None}
    assert panels(case_view(case, None, number=0)).keys() == {"Attention of the last position"}


def test_a_window_shorter_than_the_history_keeps_its_numbers() -> None:
    case = made.case()
    why = case["why"][made.RUNS[0]]
    why["first_position"] = 3
    why["temporal_gates"] = why["temporal_gates"][3:]
    for name in ("interactive_gates", "attention"):
        cut = (lambda rows: rows[3:]) if name == "interactive_gates" else (lambda rows: [row[3:] for row in rows])
        why[name] = {modality: cut(rows) for modality, rows in why[name].items()}
    found = panels(case_view(case, None, number=0))
    assert found["Temporal gates"]["axis"] == [4, 5, 6, 7]
    assert found["Attention of the last position"]["items"][0] == (4, case["history"][3]["date"])


def test_a_modality_without_energy_has_no_bar() -> None:
    case = made.case()
    case["why"][made.RUNS[0]]["wavelet_energy"]["share"]["image"] = [float("nan")] * 4
    rows = panels(case_view(case, None, number=0))["Wavelet energy"]["rows"]
    assert [part["width"] for part in rows[2]["parts"]] == [0] * 4


def test_short_names_leave_the_data_set_out() -> None:
    assert short_names(["Toys/athwe/a", "Toys/hm4sr/a"]) == {"Toys/athwe/a": "athwe/a", "Toys/hm4sr/a": "hm4sr/a"}
