"""Strips of values by position: shades on one scale, and an axis that keeps its room."""

import analysis_cases as made
import numpy as np
import pytest

from athwe_core.analysis.case_study.strips import FAINTEST, Strips, strips

COLOURS = {"": "m-time", "id": "m-id", "text": "m-text"}


def made_of(values: dict[str, list[list[float]]], first: int = 0) -> Strips:
    """Strips over the history of a made-up case, from the given position on."""
    length = len(next(iter(values.values()))[0])
    window = made.case(first + length)["history"][first:]
    arrays = {name: np.asarray(rows) for name, rows in values.items()}
    return strips(arrays, window, row_name="expert", colours=COLOURS)


def test_shades_are_relative_to_the_largest_of_all_groups_and_values_as_they_are() -> None:
    found = made_of({"id": [[0.0, 0.2], [0.4, 0.1]], "text": [[0.8, 0.0], [0.0, 0.0]]})
    assert found.largest == 0.8
    cells = [cell for group in found.groups for strip in group.strips for cell in strip.cells]
    assert [cell.value for cell in cells] == [0.0, 0.2, 0.4, 0.1, 0.8, 0.0, 0.0, 0.0]
    assert [cell.shade for cell in cells[:5]] == [
        pytest.approx(FAINTEST + (1 - FAINTEST) * value / 0.8, abs=6e-4) for value in (0, 0.2, 0.4, 0.1, 0.8)
    ]
    assert [[strip.label for strip in group.strips] for group in found.groups] == [["expert 1", "expert 2"]] * 2
    assert [(group.name, group.colour) for group in found.groups] == [("id", "m-id"), ("text", "m-text")]


def test_weights_are_shaded_by_their_distance_from_even() -> None:
    window = made.case(2)["history"]
    weights = {"": np.array([[0.7, 0.25], [0.1, 0.25], [0.1, 0.25], [0.1, 0.25]])}
    found = strips(weights, window, row_name="expert", colours=COLOURS, from_even=True)
    assert (found.even, found.largest, found.is_drawn) == (0.25, pytest.approx(0.45), True)
    cells = [strip.cells for strip in found.groups[0].strips]
    assert [row[0].shade for row in cells[:2]] == [1.0, pytest.approx(FAINTEST + (1 - FAINTEST) / 3, abs=6e-4)]
    assert [row[1].shade for row in cells] == [FAINTEST] * 4
    assert [row[0].is_below for row in cells] == [False, True, True, True]
    assert cells[1][0].hint.endswith("0.100, −0.150 from even")


def test_weights_close_to_even_are_not_drawn() -> None:
    window = made.case(2)["history"]
    weights = {"": np.array([[0.27, 0.25], [0.24, 0.25], [0.24, 0.25], [0.25, 0.25]])}
    assert not strips(weights, window, row_name="expert", colours=COLOURS, from_even=True).is_drawn


def test_values_of_zero_are_faint() -> None:
    assert made_of({"": [[0.0, 0.0]]}).groups[0].strips[0].cells[0].shade == FAINTEST


def test_fifty_positions_have_at_most_ten_numbers_the_last_among_them() -> None:
    axis = made_of({"": [[0.5] * 50]}).axis
    assert [label for label in axis if label] == [str(number) for number in range(5, 51, 5)]


def test_a_window_shorter_than_the_history_keeps_the_numbers_of_the_history() -> None:
    found = made_of({"": [[0.1, 0.2, 0.3, 0.4]]}, first=3)
    date = made.case(7)["history"][3]["date"]
    assert found.axis == ["4", "5", "6", "7"]
    assert found.positions[0] == (4, date)
    assert found.groups[0].strips[0].cells[0].hint == f"item 4, {date}: 0.100"
