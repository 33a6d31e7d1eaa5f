"""Checkpoints: weights and optimiser in safetensors, everything else in JSON with a checksum of each file.

A checkpoint is written beside its place, forced to the disk and renamed: a kill or a full disk leaves the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from athwe_core.durable import sync
from athwe_core.errors import CheckpointError

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FORMAT = 1
STALE = (".new", ".old")
"""Endings of what an interrupted replacement leaves beside a checkpoint."""


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    state: dict[str, Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    keep: Path | None = None,
) -> None:
    """Write a checkpoint beside `folder`, then put it in its place; an interruption leaves the old or the new one.

    Args:
        folder: e.g. `checkpoints/last`.
        state: plain values for `state.json`.
        optimizer: saved too where training may go on from here.
        keep: where the checkpoint that is replaced goes; None = it is deleted.
    Raises: CheckpointError when the disk refuses; what was there stays.
    """
    temporary, old = (folder.with_name(folder.name + ending) for ending in STALE)
    try:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, network, state, optimizer)
        if folder.exists():
            if keep is not None:
                shutil.rmtree(keep, ignore_errors=True)
            os.rename(folder, keep or old)
        os.rename(temporary, folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        remedy = "The state before it is kept: mend that, then go on with athwe train --resume"
        raise CheckpointError(str(folder), f"could not be written ({error})", remedy=remedy) from None
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, network: nn.Module, state: dict[str, Any], optimizer: torch.optim.Optimizer | None) -> None:
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS)
    if optimizer is not None:
        save_file(_optimizer_tensors(network, optimizer), folder / OPTIMIZER)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    text = json.dumps({"format": FORMAT, **state, "files": files}, indent=2)
    (folder / STATE).write_text(text + "\n", encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def load_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint; CheckpointError when it is missing, unreadable or of another format."""
    folder = _present(folder)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(folder / STATE), f"must be readable JSON ({error})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else state
        raise CheckpointError(str(folder / STATE), f"must have format {FORMAT}", found, "Train again with this version")
    return state


def load_weights(folder: Path, network: nn.Module) -> None:
    """Put a checkpoint's weights into `network`; CheckpointError when they are damaged or of another network."""
    tensors = _read(folder, WEIGHTS)
    _require_same(folder / WEIGHTS, tensors, network.state_dict())
    network.load_state_dict(tensors)


def load_optimizer(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimiser state into `optimizer`, whose parameters are those of `network`."""
    index = _parameter_index(network, optimizer)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _read(folder, OPTIMIZER).items():
        name, _, part = key.rpartition("/")
        if name not in index:
            rule = "must hold the state of this network's weights"
            raise CheckpointError(str(folder / OPTIMIZER), rule, name, "Is it another run's?")
        state.setdefault(index[name], {})[part] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _present(folder: Path) -> Path:
    """The folder, or the one set aside for a moment while it was being replaced."""
    old = folder.with_name(folder.name + ".old")
    if folder.is_dir() or not old.is_dir():
        return folder
    return old


def _read(folder: Path, name: str) -> dict[str, Tensor]:
    """Tensors of a file of the checkpoint whose content is the one that was written."""
    path = _present(folder) / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        remedy = "Was the run interrupted before its first epoch?"
        raise CheckpointError(str(path), "must be a file", remedy=remedy) from None
    except OSError as error:
        raise CheckpointError(str(path), f"must be readable ({error.strerror})") from None
    expected = load_state(folder).get("files", {}).get(name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        rule = "is damaged: its content is not the one that was written"
        raise CheckpointError(str(path), rule, remedy="Restore the folder from a copy, or train again")
    try:
        return load(content)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(str(path), f"must be a readable safetensors file ({error})") from None


def _require_same(path: Path, found: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    missing, foreign = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or foreign:
        difference = f"lacks {missing[0]}" if missing else f"has {foreign[0]} too"
        raise CheckpointError(
            str(path), f"must hold this network's weights: it {difference}", remedy="Is it another run's?"
        )
    for name, value in own.items():
        if found[name].shape != value.shape:
            rule = f"must hold {name} of shape {tuple(value.shape)}"
            raise CheckpointError(
                str(path), rule, tuple(found[name].shape), "Has the data set or the configuration changed?"
            )


def _parameter_index(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    order = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    return {name: order[id(p)] for name, p in network.named_parameters() if id(p) in order}


def _optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    states = optimizer.state_dict()["state"]
    index = _parameter_index(network, optimizer)
    return {
        f"{name}/{part}": value.contiguous()
        for name, position in index.items()
        for part, value in states.get(position, {}).items()
    }
