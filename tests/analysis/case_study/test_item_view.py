"""Items as a page shows them: pictures, initials, colours, and the bars of their scores."""

import base64
import io

import analysis_cases as made
import pytest
from PIL import Image

from athwe_core.analysis.case_study.item_view import OTHER_COLOURS, ItemView, part_colours, score_bars

COLOURS = {"id": "m-id", "text": "m-text"}


def test_pictures_are_data_urls_and_initials_stand_in() -> None:
    items = ItemView(made.Pictures(missing=("B",)))
    first, second = items.shown("A", "Floor Puzzle"), items.shown("B", "Floor Puzzle: Animals")
    prefix, encoded = (first.picture or "").split(",")
    assert prefix == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == (112, 112)
    assert (second.picture, second.initials) == (None, "FP")


def test_each_picture_is_read_once() -> None:
    read: list[str] = []

    class Counting(made.Pictures):
        def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
            read.append(item_id)
            return super().thumbnail(item_id, size)

    items = ItemView(Counting(missing=("B",)))
    for item_id in ("A", "B", "A", "B"):
        items.shown(item_id, "")
    assert read == ["A", "B"]


@pytest.mark.parametrize(
    ("title", "initials"), [("wooden blocks", "WB"), ("(3) a", "A"), ("…", "?"), ("שלום עולם", "שע"), ("", "B")]
)
def test_initials(title: str, initials: str) -> None:
    assert ItemView(None).shown("B001", title).initials == initials


def test_an_item_without_title_goes_by_its_id() -> None:
    assert ItemView(None).shown("B001", "  ").title == "B001"


def test_items_of_the_history_have_a_number_and_a_gap_in_words() -> None:
    item = made.case()["history"][1] | {"gap_seconds": 3 * 86_400, "date": "2014-03-01"}
    shown = ItemView(None).dated(item, position=1)
    assert (shown.number, shown.gap, shown.date) == (2, "3 days", "2014-03-01")
    first = ItemView(None).dated(item | {"gap_seconds": None})
    assert (first.number, first.gap) == (None, None)


def test_bars_share_a_scale_and_negative_parts_stand_left_of_zero() -> None:
    first, second = score_bars([{"id": 6.0, "text": 2.0}, {"id": 4.0, "text": -2.0}], COLOURS)
    assert first.zero == second.zero == 20.0
    assert [(part.x, part.width) for part in first.parts] == [(20.0, 60.0), (80.0, 20.0)]
    assert [(part.x, part.width) for part in second.parts] == [(20.0, 40.0), (0.0, 20.0)]
    assert [(part.name, part.colour, part.value) for part in second.parts] == [
        ("id", "m-id", 4.0),
        ("text", "m-text", -2.0),
    ]


def test_bars_of_nothing() -> None:
    assert score_bars([{"id": 0.0}], COLOURS)[0].parts[0].width == 0
    assert [bar.parts for bar in score_bars([{}, {}], COLOURS)] == [[], []]


def test_modalities_keep_their_colours_and_other_parts_take_turns() -> None:
    found = part_colours(["sequence", "text", "sequence", *"abc"])
    assert (found["text"], found["image"]) == ("m-text", "m-image")
    assert [found[name] for name in ("sequence", *"abc")] == [*OTHER_COLOURS, OTHER_COLOURS[0]]
