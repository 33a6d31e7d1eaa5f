"""Items and their scores as a page shows them: pictures encoded, bars measured.

Lengths of bars are percent of their row's width.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from athwe_core.analysis.case_study import sentences
from athwe_core.analysis.case_study.result import HistoryItem, Target

MODALITY_COLOURS = {"id": "m-id", "text": "m-text", "image": "m-image"}
OTHER_COLOURS = ("m-other-1", "m-other-2", "m-other-3")
PICTURE_SIZE = 112


class Thumbnails(Protocol):
    """Pictures by item id; `athwe_core.data.features.image_files.ImageSource` is one."""

    def thumbnail(self, item_id: str, size: int = PICTURE_SIZE) -> bytes | None:
        """JPEG of at most `size` pixels a side, None where there is no picture."""


@dataclass(frozen=True)
class ShownItem:
    """An item with its picture, and its place in the history where it has one."""

    item_id: str
    title: str
    """Its id where the source has no title."""
    category: str
    picture: str | None
    """A `data:` URL."""
    initials: str
    """Shown where there is no picture."""
    position: int | None = None
    date: str = ""
    gap: str | None = None
    """The time since the item before, in words."""

    @property
    def number(self) -> int | None:
        """The number that readers know an item of the history by, from 1."""
        return None if self.position is None else self.position + 1


@dataclass(frozen=True)
class ScorePart:
    """A part of a score as a piece of a bar."""

    name: str
    colour: str
    x: float
    width: float
    value: float


@dataclass(frozen=True)
class ScoreBar:
    """Parts that add to a score lie right of `zero`, parts that take from it lie left of `zero`."""

    zero: float
    parts: list[ScorePart]


class ItemView:
    """Makes `ShownItem`s, and reads each picture once."""

    def __init__(self, images: Thumbnails | None) -> None:
        self._images = images
        self._known: dict[str, str | None] = {}

    def shown(self, item_id: str, title: str, category: str = "") -> ShownItem:
        """An item that is in no history."""
        title = title.strip() or item_id
        return ShownItem(item_id, title, category, self.picture(item_id), _initials(title))

    def dated(self, item: HistoryItem | Target, *, position: int | None = None) -> ShownItem:
        """An item of the history with its position, or the target."""
        found = self.shown(item["item_id"], item["title"], item["category"])
        gap = item["gap_seconds"]
        return ShownItem(
            found.item_id,
            found.title,
            found.category,
            found.picture,
            found.initials,
            position=position,
            date=item["date"],
            gap=None if gap is None else sentences.gap_words(gap),
        )

    def picture(self, item_id: str) -> str | None:
        """URL of an item's picture; None where it has none."""
        if item_id not in self._known:
            content = None if self._images is None else self._images.thumbnail(item_id, size=PICTURE_SIZE)
            encoded = None if content is None else base64.b64encode(content).decode()
            self._known[item_id] = None if encoded is None else f"data:image/jpeg;base64,{encoded}"
        return self._known[item_id]


def part_colours(names: Iterable[str]) -> dict[str, str]:
    """CSS class by name of a modality, encoder or other part; names beside the modalities take turns."""
    others = [name for name in dict.fromkeys(names) if name not in MODALITY_COLOURS]
    turns = {name: OTHER_COLOURS[at % len(OTHER_COLOURS)] for at, name in enumerate(others)}
    return MODALITY_COLOURS | turns


def score_bars(scores: Sequence[Mapping[str, float]], colours: Mapping[str, str]) -> list[ScoreBar]:
    """Parts of several scores on one scale.

    Args:
        scores: parts of each score by name; a score without parts has a bar without parts.
        colours: CSS class by name of a part.
    """
    low = min([0.0, *(sum(min(x, 0.0) for x in parts.values()) for parts in scores)])
    high = max([0.0, *(sum(max(x, 0.0) for x in parts.values()) for parts in scores)])
    scale = 100 / ((high - low) or 1)
    bars = []
    for parts in scores:
        left = right = -low * scale
        pieces = []
        for name, value in parts.items():
            width = abs(value) * scale
            left, start, right = (left, right, right + width) if value >= 0 else (left - width, left - width, right)
            pieces.append(ScorePart(name, colours[name], round(start, 2), round(width, 2), value))
        bars.append(ScoreBar(round(-low * scale, 2), pieces))
    return bars


def _initials(title: str) -> str:
    """First letters of the first two words that begin with a letter or digit."""
    letters = [word[0] for word in title.split() if word[0].isalnum()]
    return "".join(letters[:2]).upper() or "?"
