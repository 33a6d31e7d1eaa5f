"""Ids and columns that a user names."""

import polars as pl
import pytest

import athwe_core as athwe
from athwe_core.errors import ConfigError, DataError
from athwe_core.serving.trained_model import TrainedModel, known_users


def test_ids_become_numbers_and_unknown_ones_are_reported(trained: TrainedModel) -> None:
    tokens = trained.item_tokens
    numbers, note = trained.numbers(pl.Series([tokens[5], "gone", tokens[2]]), "--items")
    assert numbers.tolist() == [5, 2]
    assert note == "--items: 1 of 3 (33.3%) are not items of data set demo and were left out, such as gone"
    assert trained.numbers(pl.Series([tokens[1]]), "--items")[1] == ""
    with pytest.raises(DataError, match=r"^--items must name items of data set demo, and it has none of them, got ''$"):
        trained.numbers(pl.Series([""]), "--items")


def test_users_that_the_data_set_has(run: athwe.Run) -> None:
    tokens = run.data.user_tokens
    assert known_users(run.data, pl.Series([tokens[3], "x", tokens[0]])) == (
        [tokens[3], tokens[0]],
        "--users: 1 of 3 (33.3%) are not users of data set demo and were left out, such as x",
    )


def test_columns_that_the_items_do_not_have_are_an_error_with_a_near_miss(trained: TrainedModel) -> None:
    assert trained.texts(("title",)).columns == ["title"]
    for name in ("titel", "item_id", "score"):
        with pytest.raises(ConfigError, match=rf"^--with must name columns of the items of demo .*, got '{name}'"):
            trained.texts((name,))
