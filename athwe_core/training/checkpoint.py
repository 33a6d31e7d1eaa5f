"""Checkpoints: weights and optimiser in safetensors, everything else in JSON, replaced whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from athwe_core.errors import CheckpointError

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FORMAT = 1


def save_checkpoint(
    folder: Path, network: nn.Module, state: dict[str, Any], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write a checkpoint beside `folder`, then put it in its place; an interruption leaves the old or the new one.

    Args:
        folder: e.g. `checkpoints/last`.
        state: plain values for `state.json`.
        optimizer: saved too where training may go on from here.
    """
    temporary, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary / WEIGHTS)
    if optimizer is not None:
        save_file(_optimizer_tensors(network, optimizer), temporary / OPTIMIZER)
    (temporary / STATE).write_text(json.dumps({"format": FORMAT, **state}, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


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
    """Put a checkpoint's weights into `network`; CheckpointError when they are unreadable or of another network."""
    path = _present(folder) / WEIGHTS
    _require_same(path, _read(path), network.state_dict())
    network.load_state_dict(_read(path))


def load_optimizer(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimiser state into `optimizer`, whose parameters are those of `network`."""
    path = _present(folder) / OPTIMIZER
    tensors = _read(path)
    index = _parameter_index(network, optimizer)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        if name not in index:
            raise CheckpointError(
                str(path), "must hold the state of this network's weights", name, "Is it another run's?"
            )
        state.setdefault(index[name], {})[part] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _present(folder: Path) -> Path:
    """The folder, or the one set aside for a moment while it was being replaced."""
    old = folder.with_name(folder.name + ".old")
    if folder.is_dir() or not old.is_dir():
        return folder
    return old


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(
            str(path), "must be a file", remedy="Was the run interrupted before its first epoch?"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
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
