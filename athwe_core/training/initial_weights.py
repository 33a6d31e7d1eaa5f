"""A new run that starts from the weights of another one: what fits is loaded, and what does not is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import CheckpointError, ConfigError, DataError
from athwe_core.messages import listed
from athwe_core.models.protocol import Model
from athwe_core.runs.checkpoint import is_there, read_weight_file, read_weights, save_checkpoint
from athwe_core.runs.find import RunFolder, find_run
from athwe_core.training.build import TrainingSetup, build_setup
from athwe_core.training.optim import make_optimizer
from athwe_core.training.state import TrainingState


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start from."""

    source: str
    """The run or file, as messages name it."""
    weights: dict[str, Tensor]
    """Tensors by name."""
    item_ids: Sequence[str] | None = None
    """Raw id of the item of each row of the item tables, row 0 the padding; None = unknown."""


@dataclass
class Loaded:
    """What became of the weights."""

    whole: list[str] = field(default_factory=list)
    """Weights of the model that were loaded."""
    by_item: list[str] = field(default_factory=list)
    """Weights with a row for each item, of which the rows of known items were loaded."""
    known_items: int = 0
    """Items whose rows were loaded."""
    other_shape: list[str] = field(default_factory=list)
    """Weights that have another shape here."""
    unknown_items: list[str] = field(default_factory=list)
    """Weights with a row for each item whose items are not known."""
    new: list[str] = field(default_factory=list)
    """Weights of the model that the source lacks."""
    unused: list[str] = field(default_factory=list)
    """Weights of the source that the model lacks."""


def find_initial_weights(text: str, runs_dir: Path, prepared_dir: Path) -> InitialWeights:
    """The weights that `--init-from` means.

    Args:
        text: a safetensors file, or a run as `find_run` takes it.
        runs_dir: folder of runs.
        prepared_dir: folder of prepared data sets, where the items of the run are looked up.
    Raises:
        ConfigError: There is no such file or run.
        CheckpointError: The file or the run's best checkpoint cannot be read, or holds a weight that is not finite.
    """
    path = Path(text)
    if path.suffix == ".safetensors":
        return InitialWeights(f"file {text}", read_weight_file(path))
    run = find_run(runs_dir, text)
    try:
        data = run.open_data(prepared_dir)
    except DataError:  # its weights without a row for each item serve all the same
        data = None
    return initial_weights_of(run, data)


def initial_weights_of(run: RunFolder, data: PreparedDataset | None) -> InitialWeights:
    """The best weights of a run.

    Args:
        run: the run.
        data: what it was trained on, which tells the items; None = gone.
    Raises: CheckpointError when the run has no weights yet, or they are damaged.
    """
    if not is_there(run.best):
        remedy = f"Finish one with athwe train --resume {run.name}"
        raise CheckpointError(f"run {run.name}", "must have finished an epoch", remedy=remedy)
    return InitialWeights(f"run {run.name}", read_weights(run.best), None if data is None else data.item_tokens)


def build_from(config: Config, prepared: PreparedDataset, initial: InitialWeights) -> tuple[TrainingSetup, list[str]]:
    """The model of a configuration with the weights that fit; the others are drawn from the run's seed.

    Returns: the model, and sentences on what was loaded and what was not.
    Raises: ConfigError when no weight fits.
    """
    setup = build_setup(config, prepared)
    loaded = load_fitting(setup.model, initial, prepared.item_tokens)
    if not loaded.whole and not loaded.by_item:
        rule = f"must have a weight that fits model {config.model.name}: {initial.source} has none"
        raise ConfigError("--init-from", rule, remedy="Choose a run of the same model and sizes")
    return setup, sentences(loaded, initial, num_items=prepared.num_items)


def save_first_checkpoint(run: RunFolder, setup: TrainingSetup) -> None:
    """Save the weights that a new run starts from; training goes on from them as from any other checkpoint.

    Raises: CheckpointError when the disk refuses, or another process trains the run.
    """
    optimizer = make_optimizer(setup.model, lr=run.config().training.lr)
    with run.locked():
        save_checkpoint(run.last, setup.model, TrainingState().state(), optimizer)


@torch.no_grad()
def load_fitting(model: Model, initial: InitialWeights, item_ids: Sequence[str]) -> Loaded:
    """Put the weights that fit into a model: those of the same name and shape, and rows of the same items.

    A weight has a row for each item if its first axis is as long as the catalogue, in the model and in the source.

    Args:
        model: receives the weights.
        initial: the weights.
        item_ids: raw id of each item of the model, entry 0 the padding.
    Returns: what was loaded and what was not.
    """
    found, own = Loaded(), dict(model.named_parameters())
    names = {name for name, _ in model.named_buffers()}
    found.unused = sorted(initial.weights.keys() - own.keys() - names)
    row_of = {token: row for row, token in enumerate(initial.item_ids or ())}
    rows = torch.tensor([row_of.get(token, -1) for token in item_ids])
    found.known_items = int((rows[1:] >= 0).sum())
    for name, parameter in own.items():
        value = initial.weights.get(name)
        has_items = len(parameter.shape) > 0 and len(parameter) == len(item_ids)
        if value is None:
            found.new.append(name)
        elif value.shape[1:] != parameter.shape[1:] or value.ndim != parameter.ndim:
            found.other_shape.append(name)
        elif has_items and initial.item_ids is None:
            found.unknown_items.append(name)
        elif has_items and initial.item_ids is not None and len(value) == len(initial.item_ids):
            known = rows >= 0
            parameter[known] = value[rows[known]].to(parameter)
            found.by_item.append(name)
        elif value.shape != parameter.shape:
            found.other_shape.append(name)
        else:
            parameter.copy_(value)
            found.whole.append(name)
    return found


def sentences(loaded: Loaded, initial: InitialWeights, *, num_items: int) -> list[str]:
    """What was loaded and what was not, a sentence each."""
    groups = (loaded.whole, loaded.by_item, loaded.other_shape, loaded.unknown_items, loaded.new)
    count, total = len(loaded.whole) + len(loaded.by_item), sum(map(len, groups))
    found = [f"initial weights from {initial.source}: {count} of {total} weights loaded"]
    if loaded.by_item:
        known = f"{loaded.known_items:,} of {num_items:,} items"
        found.append(f"{listed(loaded.by_item)}: loaded for {known}, the others start anew")
    if loaded.unknown_items:
        why = f"{initial.source} does not tell the items of their rows, or its data set is gone"
        found.append(f"{listed(loaded.unknown_items)}: not loaded, {why}")
    for names, why in (
        (loaded.other_shape, "not loaded, the shape is another"),
        (loaded.new, f"not in {initial.source}"),
        (loaded.unused, f"only in {initial.source}"),
    ):
        if names:
            found.append(f"{listed(names)}: {why}")
    return found
