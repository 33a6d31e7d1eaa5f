"""The shape of a case study: what `athwe case-study --json` prints and the pages and the terminal show.

Titles and categories are as the source has them, so escape them where they are shown. Ranks are whole numbers, or halves
where items tie.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Named(TypedDict):
    """An item by its raw id and its title, which is empty where the source has none."""

    item_id: str
    title: str


class ItemText(Named):
    """What readers see of an item; the category is empty where the source has none."""

    category: str


class HistoryItem(ItemText):
    """An item of the history, from 0 for the oldest one that is shown."""

    position: int
    date: str
    """UTC, `2014-03-01`."""
    timestamp: int
    """Unix seconds."""
    gap_seconds: int | None
    """Since the item before; None for a user's first item."""


class Target(ItemText):
    """The held-out item that the user chose next."""

    date: str
    timestamp: int
    gap_seconds: int
    rank: float
    """By the first run."""
    ranks: dict[str, float]
    """By run."""


class Recommendation(ItemText):
    """One of the k best items of a run."""

    rank: float
    score: float
    by_modality: dict[str, float]
    """Parts of the score, which sum to it; empty for a model without such parts."""
    in_history: bool
    is_target: bool


class Subject(Named):
    """The item whose rank is explained."""

    is_target: bool
    """Whether it is the target; else it is the first recommendation, unless it was chosen."""
    is_chosen: NotRequired[bool]
    """Whether the reader chose this item."""


class Influence(TypedDict):
    """What leaving one item out of the history changes."""

    position: int
    item_id: str
    rank_without: float
    rank_change: float
    score_change: float


class OtherGap(TypedDict):
    """What another time between the last two items changes; the first of a list is the time as it was."""

    label: str
    gap_seconds: int
    rank: float
    score: float
    kept: int
    """How many of the k best items stay among the k best."""
    top: list[str]
    """Ids of the k best items."""


class BandEnergy(TypedDict):
    """Where the energy of the history's signal is."""

    bands: list[str]
    """From slow to fast."""
    share: dict[str, list[float]]
    """By modality or layer, the share of each band."""


class Why(TypedDict):
    """Why a run ranks an item where it does. n = items that the model reads."""

    subject: Subject
    first_position: int
    """Position in the history of the first item that the model reads. Lists by position begin there."""
    score: float
    rank: float
    by_modality: dict[str, float]
    """Parts of the score, which sum to it; empty for a model without such parts."""
    temporal_gates: list[list[float]] | None
    """(n, E) weights of the temporal experts; None without."""
    interactive_gates: dict[str, list[list[float]]] | None
    """By modality, (n, E) weights of the interactive experts; None without."""
    wavelet_energy: BandEnergy | None
    """By modality; None without."""
    frequency_energy: BandEnergy | None
    """By layer, the share of each range of frequencies in the energy of its input; None without."""
    attention: dict[str, list[list[float]]]
    """By encoder, for each layer the n weights of the last position, mean over heads; empty without attention."""
    attention_parts: dict[str, list[list[float]]]
    """By part of the attention, such as ids or an attribute, the weights that this part alone gives; empty without parts."""
    influence: list[Influence]
    """In the order of positions; empty for a history of one item."""
    gaps: list[OtherGap]
    """Empty for a history of one item."""


RunFacts = TypedDict(
    "RunFacts",
    {
        "preset": str,
        "metric": str,
        "best_value": float | None,
        "best_epoch": int,
        "validation_ndcg@20": NotRequired[float | None],
    },
)
"""A run, and the validation metric that chose its best epoch with its value there.

`validation_ndcg@20` repeats the value where that is the metric: it is the key of version 0.1.
"""


class CaseStudy(TypedDict):
    """One user looked at closely. `recommendations`, `why` and `runs` are by name of the run."""

    dataset: str
    data_version: str
    tie_order: str
    split_rule: str
    split: str
    user: str | None
    """None for a history that is not in the data."""
    picked: str | None
    """Why this user was chosen; None where the reader named the user."""
    history: list[HistoryItem]
    """The longest window of the runs, oldest first."""
    earlier_items: int
    """Items before the window."""
    target: Target | None
    """None where it is not known."""
    recommendations: dict[str, list[Recommendation]]
    why: dict[str, Why]
    runs: dict[str, RunFacts]
    k: int
    exclude_seen: bool
