"""What the pictures of the demo items show: a few shapes for each group, on a square of 100 by 100."""

from __future__ import annotations

from typing import Literal, NamedTuple

Ink = Literal["main", "dark", "light"]
"""The colour of the item's topic, a darker shade of it, and nearly white."""


class Shape(NamedTuple):
    """One shape of an icon.

    Attributes:
        kind: `area` (a polygon) and `line` take points x, y, x, y, ...; the others take a box left, top, right, bottom:
            `disc` and `ring` (an ellipse, filled or not), `box` (with round corners), `bow` (the upper half of a ring).
        width: of `line`, `ring` and `bow`.
    """

    kind: Literal["area", "line", "disc", "ring", "box", "bow"]
    ink: Ink
    at: tuple[int, ...]
    width: int = 5


ICONS: dict[str, tuple[Shape, ...]] = {
    "tent": (
        Shape("area", "main", (50, 18, 90, 82, 10, 82)),
        Shape("area", "dark", (50, 44, 66, 82, 34, 82)),
    ),
    "lamp": (
        Shape("line", "dark", (50, 48, 50, 80), 6),
        Shape("disc", "dark", (32, 76, 68, 88)),
        Shape("area", "main", (38, 16, 62, 16, 80, 52, 20, 52)),
    ),
    "kettle": (
        Shape("bow", "dark", (26, 12, 70, 62), 6),
        Shape("area", "main", (66, 50, 88, 38, 93, 43, 74, 70)),
        Shape("disc", "main", (20, 36, 76, 86)),
        Shape("box", "dark", (28, 80, 68, 87)),
    ),
    "drone": (
        Shape("line", "dark", (24, 30, 76, 70), 6),
        Shape("line", "dark", (76, 30, 24, 70), 6),
        *(Shape("ring", "main", (x, y, x + 30, y + 30)) for x in (9, 61) for y in (15, 55)),
        Shape("box", "main", (37, 38, 63, 62)),
        Shape("disc", "light", (45, 45, 55, 55)),
    ),
    "scarf": (
        Shape("area", "dark", (32, 32, 50, 32, 44, 70, 26, 70)),
        Shape("area", "main", (52, 32, 72, 32, 78, 86, 58, 86)),
        Shape("box", "main", (24, 16, 76, 38)),
        Shape("line", "light", (56, 66, 75, 66), 4),
        Shape("line", "light", (57, 75, 76, 75), 4),
    ),
    "puzzle": (
        Shape("box", "main", (18, 36, 66, 84)),
        Shape("disc", "main", (32, 18, 52, 42)),
        Shape("disc", "main", (60, 50, 86, 70)),
        Shape("disc", "dark", (32, 66, 52, 84)),
    ),
    "guitar": (
        Shape("line", "dark", (46, 58, 82, 20), 7),
        Shape("disc", "main", (14, 50, 54, 90)),
        Shape("disc", "main", (30, 38, 62, 70)),
        Shape("disc", "dark", (34, 54, 48, 68)),
        Shape("area", "main", (76, 18, 84, 10, 92, 18, 84, 26)),
    ),
    "bicycle": (
        Shape("ring", "dark", (6, 46, 42, 82)),
        Shape("ring", "dark", (58, 46, 94, 82)),
        Shape("line", "main", (24, 64, 40, 38, 66, 38, 76, 64)),
        Shape("line", "main", (24, 64, 50, 64, 66, 38)),
        Shape("line", "main", (38, 34, 50, 64)),
        Shape("line", "dark", (30, 32, 46, 32), 6),
        Shape("line", "dark", (67, 40, 63, 25, 74, 25)),
    ),
    "candle": (
        Shape("box", "main", (34, 44, 66, 84)),
        Shape("line", "dark", (50, 44, 50, 34), 3),
        Shape("area", "light", (50, 10, 58, 24, 56, 34, 50, 38, 44, 34, 42, 24)),
        Shape("box", "dark", (22, 82, 78, 89)),
    ),
    "camera": (
        Shape("box", "dark", (34, 20, 62, 40)),
        Shape("box", "main", (10, 32, 90, 80)),
        Shape("disc", "dark", (34, 38, 68, 74)),
        Shape("disc", "light", (43, 47, 59, 65)),
        Shape("disc", "light", (76, 38, 83, 45)),
    ),
    "backpack": (
        Shape("bow", "dark", (36, 10, 64, 44), 6),
        Shape("box", "main", (24, 24, 76, 88)),
        Shape("box", "dark", (32, 54, 68, 80)),
        Shape("line", "light", (40, 62, 60, 62), 4),
    ),
    "teapot": (
        Shape("ring", "dark", (8, 42, 40, 76), 6),
        Shape("area", "main", (64, 52, 86, 34, 94, 36, 74, 76)),
        Shape("disc", "main", (22, 38, 76, 84)),
        Shape("disc", "dark", (36, 33, 62, 43)),
        Shape("disc", "dark", (44, 22, 54, 33)),
    ),
    "telescope": (
        *(Shape("line", "dark", (48, 48, x, 88)) for x in (28, 48, 68)),
        Shape("line", "main", (20, 60, 70, 34), 15),
        Shape("line", "dark", (66, 36, 86, 26), 21),
    ),
    "skateboard": (
        Shape("disc", "dark", (22, 56, 40, 74)),
        Shape("disc", "dark", (60, 56, 78, 74)),
        Shape("disc", "light", (28, 62, 34, 68)),
        Shape("disc", "light", (66, 62, 72, 68)),
        Shape("line", "main", (6, 40, 20, 52, 80, 52, 94, 40), 10),
    ),
    "blanket": (
        *(Shape("line", "dark", (x, 74, x, 90), 3) for x in range(20, 81, 10)),
        Shape("box", "main", (14, 20, 86, 82)),
        Shape("line", "light", (15, 38, 85, 38), 6),
        Shape("line", "dark", (15, 52, 85, 52), 6),
        Shape("line", "light", (15, 66, 85, 66), 6),
    ),
    "headset": (
        Shape("bow", "dark", (17, 16, 83, 88), 7),
        Shape("line", "dark", (77, 70, 68, 84, 54, 86), 4),
        Shape("box", "main", (10, 46, 30, 78)),
        Shape("box", "main", (70, 46, 90, 78)),
        Shape("disc", "main", (44, 80, 58, 92)),
    ),
    "racket": (
        Shape("line", "dark", (62, 60, 86, 90), 9),
        *(Shape("line", "dark", (x, 18, x, 58), 2) for x in (34, 44, 54)),
        *(Shape("line", "dark", (24, y, 64, y), 2) for y in (28, 38, 48)),
        Shape("ring", "main", (18, 8, 70, 68), 7),
    ),
    "aquarium": (
        Shape("box", "dark", (8, 24, 92, 84)),
        Shape("box", "light", (13, 34, 87, 79)),
        Shape("disc", "main", (28, 46, 62, 70)),
        Shape("area", "main", (56, 58, 76, 44, 76, 72)),
        Shape("disc", "dark", (35, 53, 40, 58)),
        Shape("ring", "dark", (22, 38, 29, 45), 2),
    ),
}
