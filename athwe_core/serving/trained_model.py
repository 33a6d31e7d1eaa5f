"""A trained model with the ids and texts of its items: what recommends, is exported and is served."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from athwe_core.data.histories import item_numbers
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import ConfigError, DataError
from athwe_core.messages import listed, near_miss
from athwe_core.models.protocol import Model
from athwe_core.runs.checkpoint import load_state
from athwe_core.runs.run import RunFolder
from athwe_core.training.build import build_best

ITEM_ID = "item_id"
OWN_COLUMNS = ("user_id", "like", "rank", ITEM_ID, "score")
"""Columns of recommendations, which columns of the item table cannot be called."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with its best weights.

    Attributes:
        model: In evaluation mode.
        name: Of the data set it was trained on.
        identity: Changes with the weights.
        items: Text columns of the items, `item_id` first; row k is item number k, row 0 the padding.
    """

    model: Model
    name: str
    identity: str
    items: pl.DataFrame

    @cached_property
    def item_tokens(self) -> list[str]:
        """Raw ids by item number."""
        return self.items[ITEM_ID].to_list()

    def numbers(self, ids: pl.Series, option: str) -> tuple[NDArray[np.int64], str]:
        """Item numbers of raw ids; ids that the data set does not have are left out.

        Args:
            ids: raw ids.
            option: that they were given with, for messages.
        Returns: the numbers, and one sentence on the ids that were left out; empty where none was.
        Raises: DataError where no id is left.
        """
        found = item_numbers(self, ids)
        numbers = found.drop_nulls().to_numpy().astype(np.int64)
        unknown = ids.filter(found.is_null())
        return numbers, left_out(option, "items", self.name, unknown, len(ids))

    def texts(self, columns: tuple[str, ...]) -> pl.DataFrame:
        """Columns of the item table. Raises ConfigError where one does not exist."""
        possible = [name for name in self.items.columns if name not in OWN_COLUMNS]
        for name in columns:
            if name not in possible:
                rule = f"must name columns of the items of {self.name}{near_miss(name, possible)}"
                raise ConfigError("--with", rule, name, "" if possible else "Its items have ids only")
        return self.items.select(columns)


def open_trained(run: RunFolder, data: PreparedDataset) -> TrainedModel:
    """The model of a run with its best weights.

    Raises: CheckpointError when the run has none yet, or they are damaged.
    """
    return as_trained(build_best(run, data).model, run, data)


def as_trained(model: Model, run: RunFolder, data: PreparedDataset) -> TrainedModel:
    """A model with the best weights of a run, with its items."""
    return TrainedModel(model, data.name, f"{run.name} {load_state(run.best)['files']}", data.item_table())


def known_users(data: PreparedDataset, ids: pl.Series) -> tuple[list[str], str]:
    """The ids that are users of a data set, and one sentence on the others; empty where there are none.

    Raises: DataError where no id is a user.
    """
    is_known = ids.is_in(data.user_tokens)
    return ids.filter(is_known).to_list(), left_out("--users", "users", data.name, ids.filter(~is_known), len(ids))


def left_out(option: str, what: str, name: str, unknown: pl.Series, num_given: int) -> str:
    """One sentence on ids that a data set does not have; empty where there are none.

    Args:
        option: that the ids were given with.
        what: `users` or `items`.
        name: of the data set.
        unknown: the ids that it does not have.
        num_given: number of all ids.
    Raises: DataError where it has none of the ids.
    """
    if not len(unknown):
        return ""
    share = f"{len(unknown):,} of {num_given:,} ({len(unknown) / num_given:.1%})"
    if len(unknown) == num_given:
        raise DataError(
            option, f"must name {what} of data set {name}, and it has none of them", listed(unknown[:3].to_list())
        )
    return f"{option}: {share} are not {what} of data set {name} and were left out, such as {unknown[0]}"
