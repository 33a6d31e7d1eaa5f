"""Pictures of the demo items: the group is the shape, the topic the colour, the style the ground.

They show what the generated vectors hold: images tell the style and, faintly, the group. They are drawn when a page needs
them and stored nowhere.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from athwe_core.data.demo.catalogue import GROUPS, STYLES, TOPICS, make_catalogue
from athwe_core.data.demo.icons import ICONS, Shape
from athwe_core.data.store.dataset import PreparedDataset

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

JPEG_QUALITY = 88
MARGIN = 8
"""Of the icon within the picture, in hundredths of its side."""
_TIMES = 4
"""Pictures are drawn larger by this factor, so that edges become smooth."""
_TOPIC_COLOURS = {"classic": "#b0402c", "travel": "#1d6fa5", "family": "#c98a0b", "professional": "#4a5568"}
_DARK_SHARE = 0.55
_LIGHT = "#fffaf0"
_GROUNDS = {
    "striped": ("#f3ead7", "#e7d8b8"),
    "wooden": ("#e3c9a4", "#cfae80"),
    "neon": ("#d8ff7a", "#7affd4"),
    "floral": ("#fdeef4", "#f4b6cf"),
    "metallic": ("#f2f4f6", "#aab4be"),
    "pastel": ("#e6e9fb", "#d7f0ea"),
}
"""Two colours of each style's ground."""


class DemoPictures:
    """Pictures by raw item id, as an `ImageSource` gives them.

    Args:
        num_items: of the demo data set.
        seed: it was generated with.
    """

    def __init__(self, num_items: int, *, seed: int) -> None:
        catalogue = make_catalogue(num_items, np.random.default_rng(seed))
        labels = zip(catalogue.groups, catalogue.topics, catalogue.styles, strict=True)
        named = ((GROUPS[group], TOPICS[topic], STYLES[style]) for group, topic, style in labels)
        self._looks = dict(zip(catalogue.tokens, named, strict=True))

    def has(self, item_id: str) -> bool:
        """Whether it is an item of the demo data set."""
        return item_id in self._looks

    def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
        """The item's picture as JPEG of `size` pixels a side; None where it is no item of the demo data set."""
        if item_id not in self._looks:
            return None
        buffer = io.BytesIO()
        picture = draw_item(*self._looks[item_id], size=size)
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()


def demo_pictures(prepared: PreparedDataset) -> DemoPictures | None:
    """Pictures of a prepared version's items; None where it is not the demo data set."""
    if prepared.manifest.get("source") != "demo":
        return None
    options = prepared.manifest["options"]
    return DemoPictures(options["demo_items"], seed=options["seed"])


def draw_item(group: str, topic: str, style: str, *, size: int) -> Image:
    """The picture of an item.

    Args:
        group: one of `GROUPS`, the shape.
        topic: one of `TOPICS`, the colour.
        style: one of `STYLES`, the ground.
        size: pixels of a side.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - heavy, and most work needs no picture

    side = _TIMES * size
    picture = Image.new("RGB", (side, side), _GROUNDS[style][0])
    draw = ImageDraw.Draw(picture)
    _draw_ground(draw, style, side)
    main = _TOPIC_COLOURS[topic]
    inks = {"main": main, "dark": _darker(main), "light": _LIGHT}
    for shape in ICONS[group]:
        _draw_shape(draw, shape, inks[shape.ink], side)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def _darker(colour: str) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(_DARK_SHARE * part):02x}" for part in parts)


def _draw_ground(draw: ImageDraw, style: str, side: int) -> None:
    """What tells one style from another, behind the icon."""
    first, second = _GROUNDS[style]
    step = side // 8
    if style == "striped":
        for x in range(-side, side, 2 * step):
            draw.line((x, side, x + side, 0), fill=second, width=round(0.7 * step))
    elif style == "wooden":
        for y in range(step // 2, side, step):
            draw.line((0, y, side // 2, y + step // 4, side, y), fill=second, width=step // 6)
    elif style == "floral":
        for number, x in enumerate(range(step // 2, side, step)):
            for y in range(step // 2 + number % 2 * step // 2, side, step):
                _disc(draw, x, y, step // 5, second)
    elif style == "metallic":
        ends = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in (first, second)]
        for y, shade in enumerate(np.linspace(*ends, side)):  # type: ignore[call-overload]
            draw.line((0, y, side, y), fill=tuple(round(part) for part in shade.tolist()))
    elif style == "neon":
        draw.rectangle((0, 0, side, side), outline=second, width=step // 2)
    else:
        _disc(draw, side / 2, side / 2, 0.46 * side, second)


def _disc(draw: ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _draw_shape(draw: ImageDraw, shape: Shape, colour: str, side: int) -> None:
    scale = (100 - 2 * MARGIN) / 100 * side / 100
    at = [MARGIN / 100 * side + scale * value for value in shape.at]
    width = round(scale * shape.width)
    if shape.kind == "area":
        draw.polygon(at, fill=colour)
    elif shape.kind == "line":
        draw.line(at, fill=colour, width=width, joint="curve")
        for x, y in (at[:2], at[-2:]):
            _disc(draw, x, y, width / 2, colour)
    elif shape.kind == "disc":
        draw.ellipse(at, fill=colour)
    elif shape.kind == "ring":
        draw.ellipse(at, outline=colour, width=width)
    elif shape.kind == "box":
        draw.rounded_rectangle(at, radius=5 * scale, fill=colour)
    else:
        draw.arc(at, 180, 360, fill=colour, width=width)
