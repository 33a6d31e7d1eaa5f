"""A training run as a Python object: metrics, resuming, evaluation, recommendations, vectors, export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from athwe_core.analysis.evaluate_run import evaluate_run
from athwe_core.config import Config
from athwe_core.data.histories import Histories, histories_of_rows, histories_of_users
from athwe_core.data.store.dataset import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError, require
from athwe_core.evaluation.recommend import Recommender
from athwe_core.models.protocol import Model
from athwe_core.runs.find import FINISHED, TRAINED, RunFolder
from athwe_core.runs.schema import EpochRecord
from athwe_core.serving.export import ExportedRun, export_run
from athwe_core.serving.recommendations import SimilarItems, UserRecommendations
from athwe_core.serving.table_parts import write_table
from athwe_core.serving.trained_model import TrainedModel, open_trained
from athwe_core.serving.vectors import item_vectors, user_vectors
from athwe_core.training import loop
from athwe_core.training.log_listener import LogListener, logger
from athwe_core.training.tracking.listener import tracked


class Run:
    """A training run on disk: configuration, metrics and weights.

    Args:
        folder: its files.
        data: what it is trained on.
    """

    def __init__(self, folder: RunFolder, data: PreparedDataset) -> None:
        self.folder = folder
        self.data = data

    def __repr__(self) -> str:
        metric = self.config.training.selection_metric
        value = self.folder.manifest().get("results", {}).get("validation", {}).get(metric)
        reached = "" if value is None else f", validation {metric} {value:.4f}"
        return f"<Run {self.name}: {self.status}{reached}>"

    @property
    def name(self) -> str:
        """`DATASET/PRESET/NAME`, by which `load_run` and every command find the run."""
        return self.folder.name

    @property
    def status(self) -> str:
        """`running`, `interrupted`, `finished`, or `trained`: on all data, to the end."""
        return str(self.folder.manifest()["status"])

    @cached_property
    def config(self) -> Config:
        """The complete configuration."""
        return self.folder.config()

    @property
    def metrics(self) -> dict[str, Any]:
        """Results of the best weights: `validation` and `test` with metrics such as `ndcg@10`, `best_epoch`, `epochs` and
        `seconds_per_epoch`. A run that was refitted has no `validation`.

        Raises: CheckpointError when the run has not finished.
        """
        manifest = self.folder.manifest()
        if manifest["status"] == TRAINED:
            if "test" in manifest["results"]:
                return dict(manifest["results"])
            raise CheckpointError(f"run {self.name}", "was trained on all data, so it has no metrics")
        if manifest["status"] != FINISHED:
            raise CheckpointError(
                f"run {self.name}", "must have finished", manifest["status"], "Call its method resume()"
            )
        return dict(manifest["results"])

    @property
    def history(self) -> list[EpochRecord]:
        """A record for each finished epoch: losses, validation metrics, seconds."""
        return self.folder.metrics()

    @cached_property
    def _trained(self) -> TrainedModel:
        return open_trained(self.folder, self.data)

    @property
    def model(self) -> Model:
        """The model with its best weights, in evaluation mode.

        Raises: CheckpointError when no epoch has finished.
        """
        return self._trained.model

    def resume(
        self,
        *,
        listener: loop.Listener | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        track: Sequence[str] = (),
    ) -> Run:
        """Continue the training from the last checkpoint; the result is that of a training without a break.

        Args:
            listener, should_stop, track: as in `train`.
        Returns: the run itself.
        """
        self.__dict__.pop("_trained", None)  # its weights are about to be replaced
        listener = LogListener() if listener is None else listener
        with tracked(listener, track, self.folder, notify=logger.info) as reports:
            loop.train(self.folder, self.data, listener=reports, should_stop=should_stop, notify=logger.info)
        return self

    def evaluate(
        self, *, split: str = "test", exclude_seen: bool | None = None, ks: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Rank the held-out item of every user among the whole catalogue.

        Args:
            split: `validation` or `test`.
            exclude_seen: leave items of the user's history out of the ranking; None = as configured.
            ks: cut-offs of the metrics, each >= 1; None = as configured.
        Returns: `metrics`, `groups` and `baselines`, `users`, and the rules: `exclude_seen`, `tie_order`, `split_rule`. The
            rank of each user is written to the run's folder.
        Raises:
            ConfigError: The split is unknown, or a cut-off is below 1.
            CheckpointError: No epoch has finished.
        """
        require(ks is None or all(k >= 1 for k in ks), "ks", "must be at least 1 each", ks)
        return evaluate_run(self.folder, self.data, split=split, exclude_seen=exclude_seen, ks=ks, notify=logger.info)

    def recommend(
        self,
        users: Sequence[str] | None = None,
        *,
        histories: object | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        items: Sequence[str] | None = None,
        columns: Sequence[str] = (),
    ) -> pl.DataFrame:
        """The k best items for each user.

        Args:
            users: raw ids of users of the data set, whose whole histories are read, held-out items included; None without
                `histories` = all users.
            histories: a polars frame, or rows or columns as dictionaries, with the columns `user_id`, `item_id` and
                `timestamp` (unix seconds), one row for each interaction in any order; rows of a user with equal times keep
                their order. The users may be new, the items are those of the data set.
            k: items for each user, >= 1.
            exclude_seen: leave out the items of the user's history.
            items: raw ids of the items that may be recommended; None = all. Ids that the data set lacks are left out, with a
                warning in the log.
            columns: of the item table, such as `title`, to add.
        Returns: a frame with the columns user_id, rank (1 = best), item_id and score (float32), users in the given order.
            Items of equal score are in the order of their numbers in the data set. A user has fewer than k rows where fewer
            items are left.
        Raises:
            ConfigError: `users` and `histories` are both given, k is below 1, or a column does not exist.
            DataError: Users or items are unknown, or a row of `histories` is malformed.
            CheckpointError: No epoch has finished.
        """
        table = self._recommendations(users, histories, k, exclude_seen, items, columns)
        return table.rows(0, table.size)

    def recommend_to(
        self,
        path: str | Path,
        users: Sequence[str] | None = None,
        *,
        histories: object | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        items: Sequence[str] | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        """Write what `recommend` returns to a file, in bounded memory; after an interruption the same call continues.

        Args:
            path: ends with .parquet, .csv or .jsonl.
            users, histories, k, exclude_seen, items, columns: as in `recommend`, which also has the errors.
        """
        table = self._recommendations(users, histories, k, exclude_seen, items, columns)
        write_table(table, Path(path), rows_per_entry=k, notify=logger.info)

    def similar_items(self, items: Sequence[str], *, k: int = 10, columns: Sequence[str] = ()) -> pl.DataFrame:
        """The k items whose vectors have the largest cosine with that of each given item.

        Args:
            items: raw ids. Ids that the data set lacks are left out, with a warning in the log.
            k: >= 1.
            columns: of the item table, such as `title`, to add.
        Returns: a frame with the columns like (the given id), rank, item_id and score (the cosine).
        """
        _require_k(k)
        return (table := SimilarItems(self._trained, self._numbers(items), k=k, columns=tuple(columns))).rows(
            0, table.size
        )

    def item_vectors(self) -> np.ndarray:
        """(V, K) float32 vectors by item number, row 0 the padding. Their products with user vectors are the scores."""
        return item_vectors(Recommender(self.model))

    def user_vectors(self, users: Sequence[str] | None = None, *, histories: object | None = None) -> np.ndarray:
        """(n, K) float32 vectors of users, in their order.

        Args:
            users, histories: as in `recommend`.
        """
        return user_vectors(Recommender(self.model), self._histories(users, histories))

    def export(
        self,
        to: str | Path,
        *,
        form: str,
        k: int = 100,
        columns: Sequence[str] = (),
        data_licence: str | None = None,
        overwrite: bool = False,
    ) -> ExportedRun:
        """Write the best weights as a folder for other programs.

        Args:
            to: the new folder.
            form: `vectors`: npy and parquet; `onnx`: a graph from histories to the best items; `hub`: a model of the Hugging
                Face hub.
            k: of `onnx`: items for each history.
            columns: of `hub`: columns of the item table to publish.
            data_licence: of `hub`: for the model card.
            overwrite: replace an earlier export.
        Returns: the folder and its files.
        """
        options: dict[str, Any] = {"k": k, "columns": tuple(columns), "data_licence": data_licence}
        return export_run(self.folder, self.data, Path(to), form=form, overwrite=overwrite, **options)

    def _histories(self, users: Sequence[str] | None, histories: object | None) -> Histories:
        if users is not None and histories is not None:
            raise ConfigError("users, histories", "cannot be given together", remedy="Call recommend twice")
        return histories_of_users(self.data, users) if histories is None else histories_of_rows(self.data, histories)

    def _numbers(self, items: Sequence[str]) -> np.ndarray:
        numbers, note = self._trained.numbers(pl.Series(list(map(str, items)), dtype=pl.String), "items")
        if note:
            logger.warning(note)
        return numbers

    def _recommendations(
        self,
        users: Sequence[str] | None,
        histories: object | None,
        k: int,
        exclude_seen: bool,
        items: Sequence[str] | None,
        columns: Sequence[str],
    ) -> UserRecommendations:
        _require_k(k)
        return UserRecommendations(
            self._trained,
            self._histories(users, histories),
            k=k,
            exclude_seen=exclude_seen,
            allowed=None if items is None else self._numbers(items),
            columns=tuple(columns),
        )


def _require_k(k: int) -> None:
    require(isinstance(k, int) and not isinstance(k, bool) and k >= 1, "k", "must be a whole number >= 1", k)
