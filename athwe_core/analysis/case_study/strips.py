"""Values by position of the history as strips of cells, darker where larger or farther from even."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from athwe_core.analysis.case_study import sentences
from athwe_core.analysis.case_study.result import HistoryItem

MOST_AXIS_LABELS = 10
FAINTEST = 0.05
"""Opacity of a value of 0."""


@dataclass(frozen=True)
class Cell:
    """One position of a strip."""

    value: float
    shade: float
    """Opacity, from 0 to 1."""
    hint: str
    is_below: bool = False
    """Whether a weight is below its even share."""


@dataclass(frozen=True)
class Strip:
    """The values of one expert or layer at each position."""

    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class StripGroup:
    """The strips of one modality or encoder; the name is empty where there is only one group."""

    name: str
    colour: str
    strips: list[Strip]


@dataclass(frozen=True)
class Strips:
    """Groups of strips on one scale, above a common axis."""

    kind: ClassVar[str] = "strips"
    groups: list[StripGroup]
    largest: float
    """What the darkest cell stands for."""
    even: float | None
    """The even share of the weights, from which cells show departures; None where they show the values themselves."""
    is_drawn: bool
    """False where every weight is close to even: then only the table of numbers is shown."""
    axis: list[str]
    """A label for each position, empty where there is no room."""
    positions: list[tuple[int, str]]
    """Number and date of each item."""


def strips(
    values: Mapping[str, Float[np.ndarray, "R n"]],
    window: Sequence[HistoryItem],
    *,
    row_name: str,
    colours: Mapping[str, str],
    from_even: bool = False,
) -> Strips:
    """Strips of some rows of values for each group.

    Args:
        values: by name of the group, R rows (experts or layers) of a value >= 0 for each of the n items of `window`.
        window: the items that the model reads.
        row_name: what a row is, such as `expert`; rows are numbered from 1.
        colours: CSS class by name of the group.
        from_even: shade each weight by how far it is from the even share 1 / R. Nothing is drawn where all are close to it.
    """
    even = 1 / len(next(iter(values.values()))) if from_even else None
    departures = {name: np.abs(rows - (even or 0.0)) for name, rows in values.items()}
    largest = max(float(np.max(rows)) for rows in departures.values()) or 1.0
    step = -(-len(window) // MOST_AXIS_LABELS)
    numbers = [sentences.item_number(item) for item in window]
    groups = []
    for name, rows in values.items():
        found = []
        for number, row in enumerate(rows.tolist(), 1):
            cells = [_cell(item, value, largest, even) for item, value in zip(window, row, strict=True)]
            found.append(Strip(f"{row_name} {number}", cells))
        groups.append(StripGroup(name, colours[name], found))
    return Strips(
        groups=groups,
        largest=largest,
        even=even,
        is_drawn=even is None or any(sentences.stands_out(np.transpose(rows)) for rows in values.values()),
        axis=[str(number) if (len(window) - 1 - at) % step == 0 else "" for at, number in enumerate(numbers)],
        positions=[(number, item["date"]) for number, item in zip(numbers, window, strict=True)],
    )


def _cell(item: HistoryItem, value: float, largest: float, even: float | None) -> Cell:
    shown = max(0.0, value) if even is None else abs(value - even)
    shade = round(FAINTEST + (1 - FAINTEST) * shown / largest, 3)
    hint = f"item {sentences.item_number(item)}, {item['date']}: {value:.3f}"
    if even is None:
        return Cell(value, shade, hint)
    return Cell(value, shade, f"{hint}, {value - even:+.3f} from even".replace("-0.", "−0."), value < even)
