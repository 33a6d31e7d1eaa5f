"""The demo data set: generated users with planted tastes, drift, seasons and baskets: each stage has something to find.

* identity: each item has three links that buyers follow now and then (a Markov chain);
* text and image: tastes live in topics (shown by text) and styles (shown by images);
* intervals: a long gap changes taste and interest, so older items count less behind it;
* absolute time: half of the items sell around one day of the year;
* order: baskets hold several items at one time; each may lead to a linked item or to a group that goes with its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int64

from athwe_core.data.demo.catalogue import (
    LINK_SHARES,
    TOPICS,
    DemoCatalogue,
    image_vectors,
    item_table,
    make_catalogue,
    text_vectors,
)
from athwe_core.data.features.build import FeatureWork
from athwe_core.data.features.categories import category_table
from athwe_core.data.features.collect import ItemFeatures
from athwe_core.data.features.from_files import ItemVectors
from athwe_core.data.features.row_order import rows_by_order
from athwe_core.data.readers.records import RawIds, Records

FORMAT = 1  # raise when the same seed gives other data
DAY = 86_400  # seconds
_FIRST_DAY = 14_610  # 2010-01-01, in days since 1970
_BASKET, _NEAR, _FAR = 0, 1, 2
_STEP_SHARES = (0.3, 0.4, 0.3)
_FOLLOW_SHARES = np.array([0.14, 0.08, 0.0])  # how often a link decides, for basket, near and far
_MIN_LENGTH, _MEAN_EXTRA, _MAX_LENGTH = 6, 4.0, 60
_COMPLEMENT_SHARE = 0.5  # of the other basket steps: an item of the next group, which goes with this one
_NUM_INTERESTS = 3
_NUM_CANDIDATES = 24
_INTEREST_DAYS, _TASTE_DAYS = 60.0, 300.0  # time scales of changing interest and drifting taste


@dataclass(frozen=True)
class DemoData:
    """Generated records and item features; `order` gives the raw item id of each feature row."""

    records: Records
    order: list[str]
    text: Float32[np.ndarray, "N F_text"]
    image: Float32[np.ndarray, "N F_image"]
    text_clusters: Int64[np.ndarray, "N"]
    image_clusters: Int64[np.ndarray, "N"]

    def features(self, item_tokens: list[str], work: FeatureWork) -> ItemFeatures:
        """Align the planted features with (V,) internal ids, `item_tokens[0]` the padding.

        Columns named in the options are honoured as for any other data set.
        """
        options = work.options
        rows = rows_by_order(item_tokens, self.order)
        items = self.records.items
        column, text_columns = options.category_column, options.text_columns
        text: ItemVectors | None = ItemVectors(_take(self.text, rows, 0), "generated")
        if text_columns is not None:
            text = work.text(items, item_tokens)
        return ItemFeatures(
            text=text,
            image=ItemVectors(_take(self.image, rows, 0), "generated"),
            categories=category_table(items, item_tokens, column=column, max_categories=options.max_categories),
            text_clusters=_take(self.text_clusters, rows, -1).astype(np.int32),
            image_clusters=_take(self.image_clusters, rows, -1).astype(np.int32),
        )


def generate(num_users: int, num_items: int, *, seed: int) -> DemoData:
    """Generate the demo data; the same arguments give the same data.

    Args:
        num_users: Users `1`..`num_users` with 6 to 60 interactions, 10 on average.
        num_items: Items, at least 100.
        seed: >= 0.
    """
    rng = np.random.default_rng(seed)
    catalogue = make_catalogue(num_items, rng)
    users, items, timestamps = _simulate(catalogue, num_users, rng)
    tokens = pl.Series(catalogue.tokens)
    records = Records(
        user_tokens=RawIds.of(pl.Series(users + 1).cast(pl.String)),
        item_tokens=RawIds.of(tokens.gather(items)),
        timestamps=timestamps,
        items=item_table(catalogue),
    )
    return DemoData(
        records=records,
        order=catalogue.tokens,
        text=text_vectors(catalogue, rng),
        image=image_vectors(catalogue, rng),
        text_clusters=catalogue.groups * len(TOPICS) + catalogue.topics,
        image_clusters=catalogue.styles,
    )


def _simulate(
    catalogue: DemoCatalogue, num_users: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "I"], Int64[np.ndarray, "I"], Int64[np.ndarray, "I"]]:
    """Let all users buy step by step; return users, items and timestamps, by user and time."""
    lengths = np.minimum(_MIN_LENGTH + rng.geometric(1 / (1 + _MEAN_EXTRA), num_users) - 1, _MAX_LENGTH)
    group_shares = np.diff(catalogue.cumulative[catalogue.group_starts])
    interests = rng.choice(len(group_shares), (num_users, _NUM_INTERESTS), p=group_shares / group_shares.sum())
    interest = interests[:, 0].copy()
    tastes = rng.normal(size=(num_users, catalogue.tastes.shape[1])).astype(np.float32)
    days = rng.uniform(_FIRST_DAY, _FIRST_DAY + 2 * 365, num_users)
    history = np.full((num_users, int(lengths.max())), -1, dtype=np.int64)
    times = np.zeros_like(history)
    for step in range(history.shape[1]):
        active = np.flatnonzero(lengths > step)
        kinds = rng.choice(3, len(active), p=_STEP_SHARES) if step else np.full(len(active), _FAR)
        gaps = _gaps_in_days(kinds, rng)
        days[active] += gaps
        kept = np.exp(-gaps / _TASTE_DAYS).astype(np.float32)[:, None]
        change = rng.normal(size=(len(active), tastes.shape[1])).astype(np.float32)
        tastes[active] = kept * tastes[active] + np.sqrt(1 - kept**2) * change
        is_new = rng.random(len(active)) < 1 - np.exp(-gaps / _INTEREST_DAYS)
        drawn = interests[active, rng.integers(_NUM_INTERESTS, size=len(active))]
        interest[active] = np.where(is_new, drawn, interest[active])
        complements = (kinds == _BASKET) & (rng.random(len(active)) < _COMPLEMENT_SHARE)
        groups = (interest[active] + complements) % len(group_shares)
        history[active, step] = _choose(
            catalogue,
            history=history[active, :step],
            kinds=kinds,
            groups=groups,
            tastes=tastes[active],
            days=days[active],
            rng=rng,
        )
        times[active, step] = (days[active] * DAY).astype(np.int64)
    is_real = np.arange(history.shape[1]) < lengths[:, None]
    return np.nonzero(is_real)[0], history[is_real], times[is_real]


def _gaps_in_days(kinds: Int64[np.ndarray, "n"], rng: np.random.Generator) -> Float64[np.ndarray, "n"]:
    near = 0.5 + rng.exponential(10.0, len(kinds))
    far = 45.0 + rng.exponential(120.0, len(kinds))
    return np.select([kinds == _BASKET, kinds == _NEAR], [np.zeros(len(kinds)), near], far)


def _choose(
    catalogue: DemoCatalogue,
    *,
    history: Int64[np.ndarray, "n t"],
    kinds: Int64[np.ndarray, "n"],
    groups: Int64[np.ndarray, "n"],
    tastes: Float32[np.ndarray, "n K"],
    days: Float64[np.ndarray, "n"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, "n"]:
    """One item a user: a link of the item before, or a group's best candidate by taste, season and chance."""
    candidates = catalogue.draw(groups, _NUM_CANDIDATES, rng)
    angle = 2 * np.pi * (days % 365.25) / 365.25
    scores = 0.9 * np.einsum("nk,nck->nc", tastes, catalogue.tastes[candidates]).astype(np.float64)
    scores += catalogue.peak_strengths[candidates] * np.cos(angle[:, None] - catalogue.peaks[candidates])
    scores += rng.gumbel(size=scores.shape)
    if history.shape[1]:
        links = catalogue.links[history[:, -1]]
        follows = rng.random(len(kinds)) < _FOLLOW_SHARES[kinds]
        link_scores = np.log(LINK_SHARES) + rng.gumbel(size=links.shape)
        candidates = np.concatenate([links, candidates], axis=1)
        scores = np.concatenate([link_scores + np.where(follows, 100.0, -100.0)[:, None], scores], axis=1)
        for past in history.T:  # nobody buys the same item twice while there is another candidate
            scores[candidates == past[:, None]] -= 1000.0
    return candidates[np.arange(len(candidates)), scores.argmax(axis=1)]


def _take(array: Any, rows: Int64[np.ndarray, "V"], missing: int) -> Any:
    taken = array[rows]
    taken[rows < 0] = missing
    return taken
