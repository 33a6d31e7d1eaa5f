"""What a Python program needs, in four steps: prepare data, train, evaluate, recommend. `athwe_core` exports these names.

Nothing here changes the process for good: random generators, threads, memory settings, signal handlers and warning filters
are afterwards as before. Folders are those of the command line, so that both find each other's data and runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athwe_core.analysis.evaluate_run import evaluate_run
from athwe_core.config import Config, nested
from athwe_core.data import prepare as preparing
from athwe_core.data.features.build import EncodingSettings
from athwe_core.data.histories import histories_of_rows, histories_of_users
from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.detect import DEMO
from athwe_core.data.store.dataset import PreparedDataset, open_prepared
from athwe_core.errors import CheckpointError, ConfigError, DataError, require
from athwe_core.evaluation.recommend import recommend_items
from athwe_core.messages import near_miss
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.protocol import Model
from athwe_core.models.registry import build_config
from athwe_core.runs.find import FINISHED, RunFolder, create_run, find_run
from athwe_core.runs.schema import EpochRecord
from athwe_core.training import loop
from athwe_core.training.build import build_best
from athwe_core.training.initial_weights import (
    build_from,
    find_initial_weights,
    initial_weights_of,
    save_first_checkpoint,
)
from athwe_core.training.log_listener import LogListener, logger

if TYPE_CHECKING:
    import polars as pl

Folder = str | Path


def prepare(
    source: Folder,
    *,
    name: str | None = None,
    prepared_dir: Folder | None = None,
    options: PrepareOptions | None = None,
    item_file: Folder | None = None,
    encoding: EncodingSettings | None = None,
) -> PreparedDataset:
    """Prepare a data set: read and filter it, order it in time, split it, add features, and write it to disk.

    The same files with the same options are the same version, which is then only opened.

    Args:
        source: a folder with the files of one data set, one file of interactions, or `demo`, which is generated.
        name: of the data set; None = the name of the folder, or of the file without its suffixes.
        prepared_dir: folder of prepared versions; None = `ATHWE_PREPARED`, else `prepared`.
        options: columns, split, tie order, features; None = the defaults.
        item_file: table of the items, where the interactions are a table too.
        encoding: where images are and how encoders run; None = the defaults.
    Returns: the prepared data set. Its notes go to the logger `athwe`.
    Raises:
        ConfigError: The name or the options are invalid.
        DataError: The source is missing, malformed, or too small after filtering.
    """
    path = Path(source).expanduser().resolve()
    raw: list[Path] = []
    if path.is_file():
        name, raw = name or path.name.split(".")[0], [path]
    elif path.is_dir():
        raw = [] if name in (None, path.name) else [path]
    elif str(source) != DEMO:
        near = near_miss(path.name, sorted(each.name for each in path.parent.glob("*")))
        raise DataError("source", f"must be a folder, a file or demo{near}", str(source))
    return preparing.prepare(
        name or path.name,
        data_dir=path.parent,
        prepared_dir=_folder(prepared_dir, "prepared"),
        options=options,
        raw=raw,
        item_file=None if item_file is None else Path(item_file),
        encoding=encoding,
        notify=logger.info,
    )


def load_dataset(
    name: str, *, version: str | None = None, prepared_dir: Folder | None = None, check_all: bool = False
) -> PreparedDataset:
    """Open a data set that was prepared before.

    Args:
        name: of the data set.
        version: 12 hex digits; None = the current one.
        prepared_dir: folder of prepared versions; None = `ATHWE_PREPARED`, else `prepared`.
        check_all: read every file and compare it with its checksum.
    Raises: DataError when there is no such version, or it is damaged.
    """
    return open_prepared(name, prepared_dir=_folder(prepared_dir, "prepared"), version=version, check_all=check_all)


def train(
    data: PreparedDataset,
    *,
    preset: str = "athwe",
    seed: int | None = None,
    set: Mapping[str, object] | None = None,
    name: str | None = None,
    runs_dir: Folder | None = None,
    init_from: Folder | Run | None = None,
    listener: loop.Listener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a model until its validation metric stops improving, and rank both held-out splits with the best weights.

    Ctrl-C raises KeyboardInterrupt as usual; `load_run(NAME).resume()` continues from the last checkpoint.

    Args:
        data: what to train on. Parts of the model that need features it lacks are disabled, with a warning in the log.
        preset: one of `preset_names()`.
        seed: of all random draws, >= 0; None = the preset's.
        set: changes to the preset, by key, such as `{"training.epochs": 3}`.
        name: of the run; None = date and time.
        runs_dir: folder of runs; None = `ATHWE_RUNS`, else `runs`.
        init_from: start from the weights of a run (itself, or a name as `load_run` takes it) or of a safetensors file. What
            fits is loaded; the log tells what does not. Item vectors are matched by item id.
        listener: receives the progress; None = `LogListener()`.
        should_stop: called after every step; True saves the state and returns an interrupted run, which can be resumed.
    Returns: the run.
    Raises:
        ConfigError: The preset or a key is unknown, a value is out of range, or the name is taken.
        NonFiniteLossError: A loss is NaN or infinite.
        NoMemoryError: A step does not fit into memory.
    """
    changes = [] if seed is None else [nested("training.seed", seed)]
    for key, value in (set or {}).items():
        require(isinstance(key, str), "set", "must have keys of text, such as training.epochs", key)
        changes.append(nested(key, value))
    config, notes = adapt_to_data(build_config(preset, changes), data)
    for note in notes:
        logger.warning(note)
    runs = _folder(runs_dir, "runs")
    initial = None
    if isinstance(init_from, Run):
        initial = initial_weights_of(init_from.folder, init_from.data)
    elif init_from is not None:
        initial = find_initial_weights(str(init_from), runs, data.path.parents[1])
    start, source = None, None
    if initial is not None:
        source = initial.source
        start, notes = build_from(config, data, initial)
        for note in notes:
            logger.info(note)
    command = "athwe_core.train"
    folder = create_run(runs, config, data, preset=preset.lower(), name=name, command=command, init_from=source)
    if start is not None:
        save_first_checkpoint(folder, start)
    return Run(folder, data).resume(listener=listener, should_stop=should_stop)


def load_run(
    name: str = "last",
    *,
    dataset: str | None = None,
    runs_dir: Folder | None = None,
    prepared_dir: Folder | None = None,
) -> Run:
    """Open a run and the data it was trained on.

    Args:
        name: a path, `DATASET/PRESET/NAME`, a unique name, or `last`: the newest finished run.
        dataset: where `last` looks; None = everywhere.
        runs_dir: folder of runs; None = `ATHWE_RUNS`, else `runs`.
        prepared_dir: folder of prepared versions; None = `ATHWE_PREPARED`, else `prepared`.
    Raises:
        ConfigError: There is no such run, or more than one.
        CheckpointError: The run is damaged.
        DataError: Its data is not there any more.
    """
    folder = find_run(_folder(runs_dir, "runs"), name, dataset=dataset, notify=logger.warning)
    return Run(folder, folder.open_data(_folder(prepared_dir, "prepared")))


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
        """`running`, `interrupted` or `finished`."""
        return str(self.folder.manifest()["status"])

    @cached_property
    def config(self) -> Config:
        """The complete configuration."""
        return self.folder.config()

    @property
    def metrics(self) -> dict[str, Any]:
        """Results of the best weights: `validation` and `test` with metrics such as `ndcg@10`, `best_epoch`, `epochs` and
        `seconds_per_epoch`.

        Raises: CheckpointError when the run has not finished.
        """
        manifest = self.folder.manifest()
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
    def model(self) -> Model:
        """The model with its best weights, in evaluation mode.

        Raises: CheckpointError when no epoch has finished.
        """
        return build_best(self.folder, self.data).model

    def resume(self, *, listener: loop.Listener | None = None, should_stop: Callable[[], bool] = lambda: False) -> Run:
        """Continue the training from the last checkpoint; the result is that of a training without a break.

        Args:
            listener, should_stop: as in `train`.
        Returns: the run itself.
        """
        self.__dict__.pop("model", None)  # its weights are about to be replaced
        listener = LogListener() if listener is None else listener
        loop.train(self.folder, self.data, listener=listener, should_stop=should_stop, notify=logger.info)
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
    ) -> pl.DataFrame:
        """The k best items of the whole catalogue for each user.

        Args:
            users: raw ids of users of the data set, whose whole histories are read, held-out items included; None without
                `histories` = all users.
            histories: a polars frame, or rows or columns as dictionaries, with the columns `user_id`, `item_id` and
                `timestamp` (unix seconds), one row for each interaction in any order; rows of a user with equal times keep
                their order. The users may be new, the items are those of the data set.
            k: items for each user, >= 1.
            exclude_seen: leave out the items of the user's history.
        Returns: a frame with the columns user_id, rank (1 = best), item_id and score (float32), users in the given order.
            Items of equal score are in the order of their numbers in the data set. A user has fewer than k rows where fewer
            items are left.
        Raises:
            ConfigError: `users` and `histories` are both given, or k is below 1.
            DataError: Users or items are unknown, or a row of `histories` is malformed.
            CheckpointError: No epoch has finished.
        """
        import polars as pl  # noqa: PLC0415 - training does without

        if users is not None and histories is not None:
            raise ConfigError("users, histories", "cannot be given together", remedy="Call recommend twice")
        require(isinstance(k, int) and not isinstance(k, bool) and k >= 1, "k", "must be a whole number >= 1", k)
        chosen = histories_of_users(self.data, users) if histories is None else histories_of_rows(self.data, histories)
        items, scores = recommend_items(self.model, chosen, k=k, exclude_seen=exclude_seen)
        user, column = items.nonzero()
        tokens = {"user_id": pl.Series(chosen.user_ids, dtype=pl.String), "item_id": pl.Series(self.data.item_tokens)}
        found = items[user, column]
        return pl.DataFrame(
            {
                "user_id": tokens["user_id"].gather(user),
                "rank": pl.Series(column + 1, dtype=pl.Int64),
                "item_id": tokens["item_id"].gather(found),
                "score": pl.Series(scores[user, column], dtype=pl.Float32),
            }
        )


def _folder(given: Folder | None, name: str) -> Path:
    """A folder of this call, else of the environment, else the command line's default."""
    return Path(given if given is not None else os.environ.get(f"ATHWE_{name.upper()}") or name).expanduser()
