"""The panels that explain a rank on a case study's page: influence, other gaps, gates, attention and wavelet bands.

Lengths of bars are percent of their row's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from athwe_core.analysis.case_study import sentences
from athwe_core.analysis.case_study.item_view import ShownItem
from athwe_core.analysis.case_study.result import BandEnergy, HistoryItem, Why
from athwe_core.analysis.case_study.strips import Strips, strips

MOST_INFLUENCES = 12
"""Bars in the panel of influence; its table has all items."""
TIME_COLOUR = "m-time"
_BAND_SHADES = (1.0, 0.68, 0.44, 0.26, 0.16)


@dataclass(frozen=True)
class InfluenceRow:
    """One item of the history and what leaving it out changes."""

    item: ShownItem
    rank_without: str
    rank_change: float
    score_change: float
    """Below 0 where the item adds to the score."""
    x: float
    width: float


@dataclass(frozen=True)
class InfluenceBars:
    """The strongest influences in the order of the history, and all of them."""

    kind: ClassVar[str] = "influence"
    rank: str
    rows: list[InfluenceRow]
    all_rows: list[InfluenceRow]


@dataclass(frozen=True)
class GapRow:
    """Rank and score with another time between the last two items."""

    label: str
    words: str
    rank: str
    score: float
    kept: int


@dataclass(frozen=True)
class GapTable:
    """The gap as it was first, then the others."""

    kind: ClassVar[str] = "gaps"
    k: int
    rows: list[GapRow]


@dataclass(frozen=True)
class Band:
    """The share of a band in the energy of a modality or layer."""

    name: str
    share: float
    shade: float
    """Opacity, from 0 to 1."""
    x: float
    width: float


@dataclass(frozen=True)
class BandRow:
    """The bands of one modality or layer, slow ones first."""

    name: str
    colour: str
    bands: list[Band]


@dataclass(frozen=True)
class BandBars:
    """Bars that are divided into bands."""

    kind: ClassVar[str] = "bands"
    legend: list[tuple[str, float]]
    """Bands and their shades."""
    rows: list[BandRow]
    row_name: str
    """What a row is: a modality or a layer."""


@dataclass(frozen=True)
class Panel:
    """A heading, what is shown below it, and the main thing to see there."""

    title: str
    explanation: str
    finding: str
    content: Strips | InfluenceBars | GapTable | BandBars


def panel_columns(
    why: Why,
    history: Sequence[HistoryItem],
    shown: Sequence[ShownItem],
    *,
    k: int,
    colours: Mapping[str, str],
) -> list[list[Panel]]:
    """The panels of one run in at most two columns; a panel is left out where the model does not give its numbers.

    Args:
        why: of the run.
        history, shown: the items of the history, and the same with their pictures.
        k: recommendations of each run.
        colours: CSS class by name of a modality or encoder.
    """
    window = history[why["first_position"] :]
    left: list[Panel] = []
    right: list[Panel] = []
    if why["influence"]:
        left.append(_influence(why, history, shown))
    if why["gaps"]:
        left.append(_gaps(why, k))
    if why["temporal_gates"]:
        left.append(_temporal_gates(why["temporal_gates"], window))
    if why["wavelet_energy"]:
        left.append(_wavelet(why["wavelet_energy"], colours))
    if why["frequency_energy"]:
        left.append(_frequencies(why["frequency_energy"], colours))
    if why["interactive_gates"]:
        right.append(_interactive_gates(why["interactive_gates"], window, colours))
    if why["attention"]:
        right.append(_attention(why["attention"], window, colours))
    if why["attention_parts"]:
        right.append(_attention_parts(why["attention_parts"], window, colours))
    return [column for column in (left, right) if column]


def _influence(why: Why, history: Sequence[HistoryItem], shown: Sequence[ShownItem]) -> Panel:
    """Bars of how much each item adds to the score; the score changes also where the rank does not."""
    changes = [entry["score_change"] for entry in why["influence"]]
    largest = max(map(abs, changes)) or 1.0
    rows = []
    for entry in why["influence"]:
        width = round(50 * abs(entry["score_change"]) / largest, 2)
        rows.append(
            InfluenceRow(
                item=shown[entry["position"]],
                rank_without=sentences.rank_words(entry["rank_without"]),
                rank_change=entry["rank_change"],
                score_change=entry["score_change"],
                x=50.0 if entry["score_change"] <= 0 else 50 - width,
                width=width,
            )
        )
    strongest = sorted(range(len(rows)), key=lambda at: -abs(changes[at]))[:MOST_INFLUENCES]
    return Panel(
        title="Influence of each item",
        explanation="What changes when one item of the history is left out: the score, and the rank where it moves. "
        "A bar to the right: the item adds to the score. A bar to the left: the score is higher without it.",
        finding=sentences.influence(why, history),
        content=InfluenceBars(sentences.rank_words(why["rank"]), [rows[at] for at in sorted(strongest)], rows),
    )


def _gaps(why: Why, k: int) -> Panel:
    rows = [
        GapRow(
            label=gap["label"],
            words=sentences.gap_words(gap["gap_seconds"]),
            rank=sentences.rank_words(gap["rank"]),
            score=gap["score"],
            kept=gap["kept"],
        )
        for gap in why["gaps"]
    ]
    return Panel(
        title="What another gap would change",
        explanation="The same history with another time between its last two items. "
        f"The last column counts how many of the top {k} stay.",
        finding=sentences.gaps(why, k=k),
        content=GapTable(k, rows),
    )


def _temporal_gates(gates: list[list[float]], window: Sequence[HistoryItem]) -> Panel:
    return Panel(
        title="Temporal gates",
        explanation="How far the weight of each expert of the Temporal MoE is from an even share at each item. "
        "It depends on the times alone.",
        finding=sentences.temporal_gates(gates, window),
        content=strips({"": np.transpose(gates)}, window, row_name="expert", colours={"": TIME_COLOUR}, from_even=True),
    )


def _interactive_gates(
    gates: Mapping[str, list[list[float]]], window: Sequence[HistoryItem], colours: Mapping[str, str]
) -> Panel:
    values = {name: np.transpose(rows) for name, rows in gates.items()}
    return Panel(
        title="Interactive gates",
        explanation="How far the weight of each expert of the Interactive MoE is from an even share at each item, for each "
        "modality.",
        finding=sentences.interactive_gates(gates),
        content=strips(values, window, row_name="expert", colours=colours, from_even=True),
    )


def _attention(
    weights: Mapping[str, list[list[float]]], window: Sequence[HistoryItem], colours: Mapping[str, str]
) -> Panel:
    values = {name: np.asarray(layers) for name, layers in weights.items()}
    return Panel(
        title="Attention of the last position",
        explanation="How much the prediction attends to each item, in each layer, mean over heads.",
        finding=sentences.attention(weights, window),
        content=strips(values, window, row_name="layer", colours=colours),
    )


def _attention_parts(
    weights: Mapping[str, list[list[float]]], window: Sequence[HistoryItem], colours: Mapping[str, str]
) -> Panel:
    values = {name: np.asarray(layers) for name, layers in weights.items()}
    return Panel(
        title="Attention by part",
        explanation="How much the prediction would attend to each item if one part alone decided it: the ids, an attribute, "
        "the positions, or a branch of the attention.",
        finding=sentences.attention_parts(weights, window),
        content=strips(values, window, row_name="layer", colours=colours),
    )


def _wavelet(energy: BandEnergy, colours: Mapping[str, str]) -> Panel:
    return Panel(
        title="Wavelet energy",
        explanation="The share of each band in the energy of the history's signal. The low band holds what stays the same; "
        "high 1 holds the fastest changes.",
        finding=sentences.band_energy(energy),
        content=_bands(energy, colours, row_name="modality"),
    )


def _frequencies(energy: BandEnergy, colours: Mapping[str, str]) -> Panel:
    return Panel(
        title="Frequency energy",
        explanation="The share of each range of frequencies in the energy of each layer's input. Frequency f has f cycles in "
        "the window that the model reads; 0 is the mean. In brackets: the layers that attend by them.",
        finding=sentences.band_energy(energy),
        content=_bands(energy, colours, row_name="layer"),
    )


def _bands(energy: BandEnergy, colours: Mapping[str, str], *, row_name: str) -> BandBars:
    """The share of each band in the energy of each modality or layer."""
    names = energy["bands"]
    shades = [_BAND_SHADES[min(at, len(_BAND_SHADES) - 1)] for at in range(len(names))]
    rows = []
    for modality, given in energy["share"].items():
        shares = np.nan_to_num(given).tolist()  # a signal of zeros has no shares
        starts = np.cumsum([0.0, *shares[:-1]]).tolist()
        bands = [
            Band(name, share, shade, x=round(100 * start, 2), width=round(100 * share, 2))
            for name, share, shade, start in zip(names, shares, shades, starts, strict=True)
        ]
        rows.append(BandRow(modality, colours[modality], bands))
    return BandBars(list(zip(names, shades, strict=True)), rows, row_name)
