import re
from dataclasses import asdict

import pytest

from athwe_core.data.options import PrepareOptions, prepare_command
from athwe_core.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tie_order": "time"}, "--tie-order must be one of file, item, random, got 'time'"),
        ({"min_interactions": 2}, "--min-interactions must be a whole number >= 3, got 2"),
        ({"min_interactions": 5.0}, "--min-interactions must be a whole number >= 3, got 5.0"),
        ({"max_categories": 0}, "--max-categories must be a whole number >= 1, got 0"),
        ({"text_width": 0}, "--text-width must be a whole number >= 1, got 0"),
        ({"seed": -1}, "--seed must be a whole number >= 0, got -1"),
        ({"seed": True}, "--seed must be a whole number >= 0, got True"),
        ({"demo_users": 99}, "--users must be a whole number >= 100, got 99"),
        ({"demo_items": 99}, "--items must be a whole number >= 100, got 99"),
        ({"category_column": ""}, "--category-column must name a column, got ''"),
        ({"image_column": ""}, "--image-column must name a column, got ''"),
        ({"text_encoder": ""}, "--text-encoder must name a model or a folder, got ''"),
        ({"image_encoder": ""}, "--image-encoder must name a model or a folder, got ''"),
        ({"text_pooling": "max"}, "--text-pooling must be one of cls, mean, got 'max'"),
        ({"text_max_tokens": 0}, "--text-max-tokens must be a whole number >= 1, got 0"),
        ({"clusters": -1}, "--clusters must be a whole number >= 0, got -1"),
        ({"clusters": True}, "--clusters must be a whole number >= 0, got True"),
        (
            {"source": "amazon"},
            "--source must be one of auto, atomic, amazon-2014, amazon-2018, amazon-2023, movielens, table, demo, got",
        ),
        (
            {"time_unit": "h"},
            "--time-unit must be one of auto, s, ms, us, ns, minutes, hours, days, excel, year, yyyymmdd, iso",
        ),
        ({"max_bad_lines": -0.1}, "--max-bad-lines must be in [0, 1], got -0.1"),
        ({"item_column": ""}, "--item-column must name a column, got ''"),
        ({"text_columns": ()}, "--text-columns must name at least one column, got ()"),
        ({"text_columns": "title"}, "--text-columns must name at least one column, got 'title'"),
    ],
)
def test_values_out_of_range_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        PrepareOptions(**values)  # type: ignore[arg-type]


def test_text_columns_become_a_tuple() -> None:
    assert PrepareOptions(text_columns=["a", "b"]).text_columns == ("a", "b")  # type: ignore[arg-type]


def test_a_later_option_names_the_version_only_where_it_differs_from_its_default() -> None:
    assert "split" not in PrepareOptions().identity()
    assert PrepareOptions(split="global-time").identity() == {**PrepareOptions().identity(), "split": "global-time"}
    assert PrepareOptions(source="table").identity() == PrepareOptions().identity()  # the kind that is found counts
    assert PrepareOptions(tie_order="item").identity() == {**PrepareOptions().identity(), "tie_order": "item"}


@pytest.mark.parametrize(("option", "value"), [("split", "random"), ("held_out_share", 0.5), ("held_out_share", 0.0)])
def test_unfit_splits_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} must be .*{value}"):
        PrepareOptions(**{option: value})  # type: ignore[arg-type]


def test_the_command_of_options_has_those_that_differ_from_their_defaults() -> None:
    options = PrepareOptions(
        split="global-time",
        demo_users=200,
        text_columns=("title", "my brand"),
        half_features=True,
        max_bad_lines=0.5,
    )
    assert prepare_command("my shop", asdict(options)) == (
        "athwe prepare --dataset 'my shop' --split global-time --text-columns 'title,my brand' "
        "--max-bad-lines 0.5 --half-features"
    )
    assert prepare_command("demo", {"demo_users": 200}) == "athwe prepare --dataset demo --users 200"
    before = {"demo_users": 2000, "demo_items": 1000}  # a version from when these were the defaults
    assert prepare_command("my shop", before) == "athwe prepare --dataset 'my shop'"
    assert prepare_command("demo", asdict(PrepareOptions())) == "athwe prepare --dataset demo"
    assert prepare_command("demo", {"tie_order": "item"}) == "athwe prepare --dataset demo --tie-order item"


def test_versions_keep_their_names_when_the_size_of_the_demo_changes() -> None:
    """The identity that every data set without options had in version 0.1.0; the version's name is a hash of it."""
    first = {
        "tie_order": "file",
        "min_interactions": 5,
        "category_column": None,
        "text_columns": None,
        "max_categories": 300,
        "text_width": 256,
        "seed": 0,
        "demo_users": 2000,
        "demo_items": 1000,
    }
    options = PrepareOptions(split="leave-one-out", demo_users=300)
    assert options.identity(is_demo=False) == first
    assert options.identity(is_demo=True) == first | {"demo_users": 300, "demo_items": 600}
