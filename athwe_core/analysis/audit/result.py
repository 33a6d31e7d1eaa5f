"""The shape of an audit: what `athwe audit --json` prints and its page shows. Shares are from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

Grade = Literal["ok", "look", "problem"]


class TimeFacts(TypedDict):
    """When the interactions were; times are unix seconds."""

    first: int
    last: int
    bin_edges: list[int]
    bin_counts: list[int]
    distinct_days: int
    whole_days_share: float
    """Interactions at midnight UTC."""


class CountFacts(TypedDict):
    """How many users, or items, have how many interactions."""

    bins: dict[str, int]
    """By range such as `5-6`, from the fewest to the most; at most 9 ranges."""
    quartiles: list[float]
    most: int


class PairFacts(TypedDict):
    """Repeated items and equal times."""

    repeated: float
    """Share of the interactions that repeat an item of the user."""
    same_time: float
    """Share of the pairs of successive interactions of a user with equal times."""
    same_day: float
    test_same_day: float
    """Share of the test targets on the day of the item before."""


class LeakageFacts(TypedDict):
    """What training holds of the time after the median test target."""

    median_test_time: int
    training_later: float
    items_first_seen_later: float


class ColdFacts(TypedDict):
    """Items that training has never or rarely."""

    test_targets: float
    """Share of the test targets that training does not have."""
    items: float
    test_targets_below_5: float


class PopularityFacts(TypedDict):
    """How far the training interactions concentrate on few items."""

    gini: float
    """0 = equal counts, 1 = one item has all."""
    top_1_percent: float
    top_10_percent: float


class ShuffleFacts(TypedDict):
    """NDCG@10 of the last-item-transition baseline on histories as they are and in random order."""

    ordered: float
    shuffled: float
    """Mean of `values`."""
    values: list[float]


class FeatureFacts(TypedDict):
    """The vectors of one modality."""

    width: int
    coverage: float
    """Share of the items with a vector that is not zero."""
    duplicates: float
    """1 - distinct vectors / vectors."""
    norm_mean: float
    norm_sd: float
    norm_median: float
    mean_cosine: float
    """Of random pairs of items."""


class Finding(TypedDict):
    """What a fact means for somebody who is about to train."""

    grade: Grade
    title: str
    fact: str
    meaning: str
    """Why it matters, for a reader who is new to the subject."""
    advice: str
    """Empty where the grade is `ok`."""
    command: str
    """What to type; empty where the grade is `ok`, and where no command helps."""


class Measures(TypedDict):
    """What an audit measures."""

    dataset: str
    data_version: str
    split_rule: str
    tie_order: str
    statistics: Mapping[str, Any]
    """Of the prepared version's manifest (table 2 of the HM4SR paper)."""
    options: Mapping[str, Any]
    """Of `athwe prepare`, from the manifest."""
    baselines: dict[str, dict[str, float]]
    """Test metrics by baseline."""
    time: TimeFacts
    counts: dict[str, CountFacts]
    """Of `users` and `items`."""
    pairs: PairFacts
    leakage: LeakageFacts
    cold: ColdFacts
    popularity: PopularityFacts
    tie_orders: dict[str, float | None]
    """NDCG@10 of the last-item-transition baseline by tie order; None where the order is not known."""
    shuffle: ShuffleFacts
    features: dict[str, FeatureFacts | None]
    """Of `text` and `image`; None where there are none."""


class Audit(Measures):
    """The measures and what they mean."""

    findings: list[Finding]
    """Worst first."""
