"""What a Python program needs, in four steps: prepare data, train, evaluate, recommend. `athwe_core` exports these names.

Nothing here changes the process for good: random generators, threads, memory settings, signal handlers and warning filters
are afterwards as before. Folders are those of the command line, so that both find each other's data and runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from athwe_core.config import nested
from athwe_core.data import prepare as preparing
from athwe_core.data.features.build import EncodingSettings
from athwe_core.data.options import DEMO, PrepareOptions
from athwe_core.data.store.dataset import PreparedDataset, open_prepared
from athwe_core.errors import DataError, require
from athwe_core.library_run import Run
from athwe_core.messages import near_miss
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config
from athwe_core.runs.find import create_run, find_run
from athwe_core.training import loop
from athwe_core.training.initial_weights import (
    build_from,
    find_initial_weights,
    initial_weights_of,
    save_first_checkpoint,
)
from athwe_core.training.log_listener import logger
from athwe_core.training.tracking.listener import require_trackers

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
    track: Sequence[str] = (),
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
        track: also record every epoch with `tensorboard`, `mlflow` or `wandb`, each an extra of its own.
    Returns: the run.
    Raises:
        ConfigError: The preset, a key or a tracker is unknown, a value is out of range, or the name is taken.
        NonFiniteLossError: A loss is NaN or infinite.
        NoMemoryError: A step does not fit into memory.
    """
    changes = [] if seed is None else [nested("training.seed", seed)]
    for key, value in (set or {}).items():
        require(isinstance(key, str), "set", "must have keys of text, such as training.epochs", key)
        changes.append(nested(key, value))
    require_trackers(track)
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
    return Run(folder, data).resume(listener=listener, should_stop=should_stop, track=track)


def load_run(
    name: str = "last",
    *,
    dataset: str | None = None,
    runs_dir: Folder | None = None,
    prepared_dir: Folder | None = None,
) -> Run:
    """Open a run and the data it was trained on.

    Args:
        name: a path, `DATASET/PRESET/NAME`, a unique `PRESET/NAME` or name, or `last`: the newest finished run.
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


def _folder(given: Folder | None, name: str) -> Path:
    """A folder of this call, else of the environment, else the command line's default."""
    return Path(given if given is not None else os.environ.get(f"ATHWE_{name.upper()}") or name).expanduser()
