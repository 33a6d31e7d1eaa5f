"""Checkpoints: weights and optimiser in safetensors, everything else in JSON with a checksum of each file.

A checkpoint is written beside its place, forced to the disk and renamed: a kill or a full disk leaves the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from athwe_core.errors import CheckpointError, NonFiniteLossError
from athwe_core.row_shard import RowShard
from athwe_core.runs.divided_tables import group_of, is_finite, read_own, shards_in_files, write_whole
from athwe_core.runs.json_files import read_object
from athwe_core.safe_write import reason, sync

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of each weight beside the number of steps."""
RESTORE = "Restore the folder from a copy, or train again"
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

    Where the network's item tables are divided over processes, all call this together, and rank 0 writes them whole.

    Args:
        folder: e.g. `checkpoints/last`; its parent is made where it is missing, but not what that lies in.
        state: plain values for `state.json`.
        optimizer: saved too where training may go on from here.
        keep: where the checkpoint that is replaced goes; None = it is deleted.
    Raises: NonFiniteLossError when a weight or a moment is NaN or infinite, CheckpointError when the disk refuses; the
        checkpoint that was there stays.
    """
    files = {WEIGHTS: network.state_dict()}
    if optimizer is not None:
        files[OPTIMIZER] = _optimizer_tensors(network, optimizer)
    shards = shards_in_files(network, MOMENTS)
    _require_finite(files, shards)
    if shards and not group_of(shards).is_first:
        for name, tensors in files.items():
            write_whole(folder / name, tensors, shards)
        return
    temporary, old = (folder.with_name(folder.name + ending) for ending in STALE)
    try:
        settle(folder)
        if not folder.parent.is_dir():
            folder.parent.mkdir()
            sync(folder.parent.parent)
        temporary.mkdir()
        _write(temporary, files, shards, state)
        _put_in_place(temporary, folder, old, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise not_written(folder, error) from None
    shutil.rmtree(old, ignore_errors=True)


def settle(folder: Path) -> None:
    """Tidy what an interrupted replacement left beside a checkpoint: a half-written one goes, the old one comes back."""
    temporary, old = (folder.with_name(folder.name + ending) for ending in STALE)
    shutil.rmtree(temporary, ignore_errors=True)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def not_written(path: Path, error: Exception) -> CheckpointError:
    """What to say when the disk refuses a file or folder of a run."""
    remedy = "The state before it is kept: mend that, then go on with athwe train --resume"
    return CheckpointError(str(path), f"could not be written ({reason(error)})", remedy=remedy)


def _require_finite(files: dict[str, dict[str, Tensor]], shards: dict[str, RowShard]) -> None:
    name = next((bad for tensors in files.values() if (bad := _first_not_finite(tensors)) is not None), None)
    if group_of(shards).any(name is not None):
        what = "a weight of another process" if name is None else f"weight {name}"
        remedy = "Start a new run with a lower --lr; the last checkpoint is kept"
        raise NonFiniteLossError(what, "must be finite to be saved", remedy=remedy)


def _first_not_finite(tensors: dict[str, Tensor]) -> str | None:
    """Name of the first tensor with a NaN or infinite value."""
    return next((name for name, value in tensors.items() if not is_finite(value)), None)


def _put_in_place(temporary: Path, folder: Path, old: Path, keep: Path | None) -> None:
    aside = keep or old
    has_old = folder.exists()
    if has_old:
        if keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
        os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except OSError:
        if has_old:
            os.rename(aside, folder)
        raise
    sync(folder.parent)


def _write(
    folder: Path, contents: dict[str, dict[str, Tensor]], shards: dict[str, RowShard], state: dict[str, Any]
) -> None:
    for name, tensors in contents.items():
        if shards:
            write_whole(folder / name, tensors, shards)
        else:
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    facts = {"format": FORMAT, **state, "files": files}
    facts["files"] = files | {STATE: _own_sha256(facts)}
    (folder / STATE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_sha256(facts: dict[str, Any]) -> str:
    """Of what `state.json` says beside this checksum itself."""
    files = {name: digest for name, digest in facts["files"].items() if name != STATE}
    return hashlib.sha256(json.dumps(facts | {"files": files}, sort_keys=True).encode()).hexdigest()


def is_there(folder: Path) -> bool:
    """Whether there is a checkpoint, also in the moment in which it is being replaced."""
    return _present(folder).is_dir()


def load_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint; CheckpointError when it is missing, unreadable or of another format."""
    folder = _present(folder)
    state = read_object(folder / STATE, remedy=RESTORE)
    if state.get("format") != FORMAT:
        found, remedy = state.get("format"), "Train again with this version"
        raise CheckpointError(str(folder / STATE), f"must have format {FORMAT}", found, remedy)
    files = state.get("files")
    if not isinstance(files, dict) or not {WEIGHTS} <= files.keys() <= {WEIGHTS, OPTIMIZER, STATE}:
        raise _damaged(folder / STATE)
    try:
        is_own = STATE not in files or files[STATE] == _own_sha256(state)
    except RecursionError:
        is_own = False
    if not is_own:
        raise _damaged(folder / STATE)
    return state


def load_weights(folder: Path, network: nn.Module) -> None:
    """Put a checkpoint's weights into `network`.

    Raises: CheckpointError when they are damaged, not finite, or of another network; `network` is then unchanged, but for
        tables that are divided over processes: each reads its rows into their place.
    """
    own = network.state_dict()
    tensors = _read_finite(folder, WEIGHTS, shards_in_files(network, MOMENTS), into=own)
    require_same(folder / WEIGHTS, tensors, own)
    network.load_state_dict(tensors)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by name.

    Raises: CheckpointError when they are damaged or not finite.
    """
    return _read_finite(folder, WEIGHTS)


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file that belongs to no checkpoint.

    Raises: CheckpointError when the file is missing or unreadable, or a tensor is not finite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        rule = f"must be a readable file ({error.strerror})"
        raise CheckpointError(str(path), rule, remedy="Check the path given to --init-from") from None
    return _finite(path, _parsed(path, lambda: load(content), "Download or export it again"), "Choose another file")


def load_optimizer(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimiser state into `optimizer`, whose parameters are those of `network`."""
    index, shapes = _parameter_index(network, optimizer), {n: p.shape for n, p in network.named_parameters()}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _read_finite(folder, OPTIMIZER, shards_in_files(network, MOMENTS)).items():
        name, _, part = key.rpartition("/")
        if name not in index or value.shape != (shapes[name] if part in MOMENTS else ()):
            rule = "must hold the state of this network's weights"
            raise CheckpointError(str(folder / OPTIMIZER), rule, f"{key} {tuple(value.shape)}", "Is it another run's?")
        state.setdefault(index[name], {})[part] = value
    if any(parts.keys() != {"step", *MOMENTS} for parts in state.values()):
        raise CheckpointError(
            str(folder / OPTIMIZER), f"must hold step, {' and '.join(MOMENTS)} of each weight", remedy=RESTORE
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _present(folder: Path) -> Path:
    """The folder, or the one set aside for a moment while it was being replaced."""
    old = folder.with_name(folder.name + ".old")
    if folder.is_dir() or not old.is_dir():
        return folder
    return old


def _read(folder: Path, name: str, shards: dict[str, RowShard], into: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file of the checkpoint whose content is the one that was written."""
    path = _present(folder) / name
    try:
        digest = _sha256(path)
    except FileNotFoundError:
        remedy = "Was the run interrupted before its first epoch?"
        raise CheckpointError(str(path), "must be a file", remedy=remedy) from None
    except OSError as error:
        raise CheckpointError(str(path), f"must be readable ({error.strerror})", remedy=RESTORE) from None
    if load_state(folder)["files"].get(name) != digest:
        raise _damaged(path)
    return _parsed(path, lambda: read_own(path, shards, into) if shards else load(path.read_bytes()), RESTORE)


def _parsed(path: Path, read: Callable[[], dict[str, Tensor]], remedy: str) -> dict[str, Tensor]:
    try:
        return read()
    except (SafetensorError, ValueError) as error:
        why = str(error).encode("unicode_escape").decode()  # it may quote what it read
        raise CheckpointError(str(path), f"must be a readable safetensors file ({why})", remedy=remedy) from None


def _read_finite(
    folder: Path, name: str, shards: dict[str, RowShard] | None = None, *, into: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    return _finite(folder / name, _read(folder, name, shards or {}, into or {}), "Train again with a lower --lr")


def _finite(path: Path, tensors: dict[str, Tensor], remedy: str) -> dict[str, Tensor]:
    if (bad := _first_not_finite(tensors)) is not None:
        rule = f"must hold finite values, and {bad} is not finite"
        raise CheckpointError(str(path), rule, remedy=remedy)
    return tensors


def _damaged(path: Path) -> CheckpointError:
    rule = "is damaged: its content is not the one that was written"
    return CheckpointError(str(path), rule, remedy=RESTORE)


def require_same(path: Path, found: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless the tensors found in a file have the names, shapes and types of a network's own."""
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
        if found[name].dtype != value.dtype:
            rule = f"must hold {name} as {value.dtype}".replace("torch.", "")
            raise CheckpointError(
                str(path), rule, str(found[name].dtype).removeprefix("torch."), "Is it another run's?"
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
