"""The items of the demo data: groups, topics, styles, seasons and links, and the vectors and texts that show them.

Text tells group, topic and season; images tell style and, faintly, the group: each carries what the other lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Float32, Float64, Int64

from athwe_core.data.readers.records import ItemTable

GROUPS = (
    *("tent", "lamp", "kettle", "drone", "scarf", "puzzle", "guitar", "bicycle", "candle"),
    *("camera", "backpack", "teapot", "telescope", "skateboard", "blanket", "headset", "racket", "aquarium"),
)
TOPICS = ("classic", "travel", "family", "professional")
STYLES = ("striped", "wooden", "neon", "floral", "metallic", "pastel")
SEASONS = ("winter", "spring", "summer", "autumn")
TASTE_WIDTH = 6  # of the topic half and of the style half of a taste
TEXT_WIDTH = 64
IMAGE_WIDTH = 64
LINK_SHARES = (0.5, 0.3, 0.2)
_NUM_NUISANCE = 12
_MISSING_TEXT, _MISSING_IMAGE = 0.005, 0.02


@dataclass(frozen=True)
class DemoCatalogue:
    """N items, sorted by group; `tokens` numbers them in another order, so that ids tell nothing.

    Attributes:
        tokens: Raw ids, `item-0001` and on.
        groups, topics, styles: (N,) planted labels.
        tastes: (N, 2 * TASTE_WIDTH) position in taste space: topic half, then style half.
        peaks: (N,) day of the year of highest demand, as an angle; peak_strengths: (N,) 0 = all year round.
        links: (N, 3) items often bought next, most often first: a sequel and two complements.
        cumulative: (N + 1,) running sum of popularity; group_starts: (groups + 1,) where each group begins.
    """

    tokens: list[str]
    groups: Int64[np.ndarray, "N"]
    topics: Int64[np.ndarray, "N"]
    styles: Int64[np.ndarray, "N"]
    tastes: Float32[np.ndarray, "N K"]
    peaks: Float64[np.ndarray, "N"]
    peak_strengths: Float64[np.ndarray, "N"]
    links: Int64[np.ndarray, "N 3"]
    cumulative: Float64[np.ndarray, "N_plus_1"]
    group_starts: Int64[np.ndarray, "G_plus_1"]

    def draw(
        self, groups: Int64[np.ndarray, "n"], count: int, rng: np.random.Generator
    ) -> Int64[np.ndarray, "n count"]:
        """Draw `count` items of each given group by popularity, with replacement."""
        low, high = self.cumulative[self.group_starts[groups]], self.cumulative[self.group_starts[groups + 1]]
        points = low[:, None] + (high - low)[:, None] * rng.random((len(groups), count))
        found = np.searchsorted(self.cumulative, points, side="right") - 1
        return np.clip(found, self.group_starts[groups][:, None], self.group_starts[groups + 1][:, None] - 1)


def make_catalogue(num_items: int, rng: np.random.Generator) -> DemoCatalogue:
    """Plant the structure of `num_items` items."""
    num_groups = len(GROUPS)
    shares = (np.arange(num_groups) + 4.0) ** -0.5
    others = rng.choice(num_groups, num_items - num_groups, p=shares / shares.sum())
    groups = np.sort(np.concatenate([np.arange(num_groups), others]))  # no group stays empty
    group_starts = np.searchsorted(groups, np.arange(num_groups + 1))
    topics = rng.integers(len(TOPICS), size=num_items)
    styles = rng.integers(len(STYLES), size=num_items)
    tastes = np.concatenate([_near(rng, len(TOPICS), topics), _near(rng, len(STYLES), styles)], axis=1)
    rank = np.arange(num_items) - group_starts[groups]
    size = np.diff(group_starts)[groups]
    popularity = (rank / size + 0.04) ** -1.0 / size  # the same skew in small and large groups and catalogues
    popularity *= shares[groups]
    return DemoCatalogue(
        tokens=[f"item-{number + 1:04d}" for number in rng.permutation(num_items)],
        groups=groups,
        topics=topics,
        styles=styles,
        tastes=tastes.astype(np.float32),
        peaks=rng.uniform(0, 2 * np.pi, num_items),
        peak_strengths=np.where(rng.random(num_items) < 0.5, 2.5, 0.0),
        links=_make_links(groups, group_starts, tastes, rng),
        cumulative=np.concatenate([[0.0], np.cumsum(popularity)]),
        group_starts=group_starts,
    )


def _near(rng: np.random.Generator, num_centres: int, labels: Int64[np.ndarray, "N"]) -> Float64[np.ndarray, "N K"]:
    """Points around one random centre for each label."""
    centres = rng.normal(size=(num_centres, TASTE_WIDTH))
    return centres[labels] + 0.5 * rng.normal(size=(len(labels), TASTE_WIDTH))


def _make_links(
    groups: Int64[np.ndarray, "N"],
    group_starts: Int64[np.ndarray, "G_plus_1"],
    tastes: Float64[np.ndarray, "N K"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, "N 3"]:
    """A sequel in the same group and complements in the next two, each the nearest of a few in taste."""
    num_items, num_groups = len(groups), len(group_starts) - 1
    columns = []
    for shift in range(3):
        target = (groups + shift) % num_groups
        spread = rng.random((num_items, 30)) * np.diff(group_starts)[target][:, None]
        candidates = group_starts[target][:, None] + spread.astype(np.int64)
        distance = ((tastes[candidates] - tastes[:, None]) ** 2).sum(axis=2)
        distance[candidates == np.arange(num_items)[:, None]] = np.inf
        columns.append(candidates[np.arange(num_items), distance.argmin(axis=1)])
    return np.stack(columns, axis=1)


def text_vectors(catalogue: DemoCatalogue, rng: np.random.Generator) -> Float32[np.ndarray, "N F"]:
    """Group, topic and season under nuisance directions of the same size; a few rows zero (missing)."""
    season = catalogue.peak_strengths[:, None] * np.stack([np.cos(catalogue.peaks), np.sin(catalogue.peaks)], axis=1)
    signal = [_codes(rng, catalogue.groups, len(GROUPS)), 1.5 * catalogue.tastes[:, :TASTE_WIDTH], season]
    return _mix(signal, TEXT_WIDTH, _MISSING_TEXT, rng)


def image_vectors(catalogue: DemoCatalogue, rng: np.random.Generator) -> Float32[np.ndarray, "N F"]:
    """Style and a faint group under nuisance directions of the same size; a few rows zero (missing)."""
    signal = [0.4 * _codes(rng, catalogue.groups, len(GROUPS)), 1.5 * catalogue.tastes[:, TASTE_WIDTH:]]
    return _mix(signal, IMAGE_WIDTH, _MISSING_IMAGE, rng)


def _codes(rng: np.random.Generator, labels: Int64[np.ndarray, "N"], count: int) -> Float64[np.ndarray, "N 8"]:
    return 1.5 * rng.normal(size=(count, 8))[labels]


def _mix(
    signal: list[Float[np.ndarray, "N _"]], width: int, missing: float, rng: np.random.Generator
) -> Float32[np.ndarray, "N F"]:
    """Rotate signal and nuisance into `width` directions, add a little noise, scale elements to about 1."""
    num_items = len(signal[0])
    parts = np.concatenate([*signal, rng.normal(size=(num_items, _NUM_NUISANCE))], axis=1)
    vectors = parts @ rng.normal(size=(parts.shape[1], width)) + rng.normal(size=(num_items, width))
    vectors /= vectors.std()
    vectors[rng.random(num_items) < missing] = 0
    return vectors.astype(np.float32)


def item_table(catalogue: DemoCatalogue) -> ItemTable:
    """Titles, brands and categories in words of the planted structure; styles stay for the images to show."""
    seasons = np.where(catalogue.peak_strengths > 0, (catalogue.peaks / (2 * np.pi) * 4).astype(int), -1)
    rows = list(zip(catalogue.tokens, catalogue.groups, catalogue.topics, seasons.tolist(), strict=True))
    season_of = [*(f"{season} " for season in SEASONS), ""]  # -1 is the last
    frame = pl.DataFrame(
        {
            "item_id": catalogue.tokens,
            "title": [
                f"{TOPICS[topic].title()} {season_of[season]}{GROUPS[group]} {token.removeprefix('item-')}"
                for token, group, topic, season in rows
            ],
            "brand": [f"{GROUPS[group].title()} & {TOPICS[topic].title()}" for _, group, topic, _ in rows],
            "categories": [
                f"{GROUPS[group]} {TOPICS[topic]} {season_of[season]}".strip() for _, group, topic, season in rows
            ],
        }
    )
    types = {"item_id": "token", "title": "token_seq", "brand": "token", "categories": "token_seq"}
    return ItemTable(frame, types, "the demo catalogue")
