"""Pictures of the demo items: each shows its own group, topic and style, and always the same way."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from athwe_core.data.demo.catalogue import GROUPS, STYLES, TOPICS, make_catalogue
from athwe_core.data.demo.icons import ICONS
from athwe_core.data.demo.pictures import DemoPictures, demo_pictures, draw_item
from athwe_core.data.prepare import PreparedDataset


def test_every_group_has_an_icon_within_its_square() -> None:
    assert ICONS.keys() == set(GROUPS)
    for shapes in ICONS.values():
        for shape in shapes:
            assert all(0 <= value <= 100 for value in shape.at)
            assert len(shape.at) == 4 if shape.kind not in ("area", "line") else len(shape.at) % 2 == 0


def test_groups_topics_and_styles_look_different() -> None:
    looks = [(group, "travel", "pastel") for group in GROUPS]
    looks += [("tent", topic, "pastel") for topic in TOPICS if topic != "travel"]
    looks += [("tent", "travel", style) for style in STYLES if style != "pastel"]
    drawn = [np.asarray(draw_item(*look, size=48), float) for look in looks]
    for at, picture in enumerate(drawn):
        assert picture.shape == (48, 48, 3)
        assert all(np.abs(picture - other).mean() > 2 for other in drawn[at + 1 :])


def test_an_item_has_the_picture_of_its_labels() -> None:
    catalogue = make_catalogue(150, np.random.default_rng(3))
    pictures = DemoPictures(150, seed=3)
    for at in (0, 70, 149):
        content = pictures.thumbnail(catalogue.tokens[at], size=32)
        with Image.open(io.BytesIO(content)) as file:
            assert (file.format, file.size) == ("JPEG", (32, 32))
            found = np.asarray(file, float)
        labels = GROUPS[catalogue.groups[at]], TOPICS[catalogue.topics[at]], STYLES[catalogue.styles[at]]
        assert np.abs(found - np.asarray(draw_item(*labels, size=32), float)).mean() < 6
        assert content == DemoPictures(150, seed=3).thumbnail(catalogue.tokens[at], size=32)


def test_other_items_have_none() -> None:
    pictures = DemoPictures(150, seed=0)
    assert pictures.has("item-0001")
    assert not pictures.has("item-0151")
    assert pictures.thumbnail("item-0151") is None


@pytest.mark.parametrize("item", ["item-0001", "item-0100"])
def test_of_a_prepared_version(prepare_toy: Callable[..., PreparedDataset], item: str) -> None:
    prepared = prepare_toy(name="demo", demo_users=200, demo_items=100, seed=7)
    pictures = demo_pictures(prepared)
    assert pictures is not None
    assert pictures.thumbnail(item) == DemoPictures(100, seed=7).thumbnail(item)
    assert demo_pictures(replace(prepared, manifest=prepared.manifest | {"source": "table"})) is None
