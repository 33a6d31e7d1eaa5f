"""Checks before a run is created, so that no start leaves a run that can never work."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from athwe_core.config import Config
from athwe_core.data.prepare import PreparedDataset
from athwe_core.device import available_memory, resolve_device, resolve_precision
from athwe_core.distributed import ProcessGroup, local_size, world_size
from athwe_core.errors import CheckpointError, ConfigError, require
from athwe_core.models.inputs import meta_model
from athwe_core.nn.item_embeddings import divided_rows

STATE_BYTES = 16
"""Of each weight while training: weight, gradient and Adam's two moments, float32."""
SAVED_BYTES = 44
"""Of each weight on the disk: weight and moments in `last`, in `previous` and in the one being written; `best` twice."""


def require_startable(config: Config, prepared: PreparedDataset, runs_dir: Path) -> None:
    """Check everything about a run that can be known before it starts.

    Args:
        config: the complete configuration.
        prepared: the data set, open.
        runs_dir: folder of runs; it need not exist yet.
    Raises:
        ConfigError: The machine lacks the device, the model cannot be built, or its weights and features exceed the memory.
        CheckpointError: The disk has no room for the checkpoints.
    """
    device = resolve_device(config.training.device)
    if device.type == "cuda" and local_size() > 1:
        count = torch.cuda.device_count()
        rule = f"must have a CUDA device for each of the {local_size()} processes of this machine"
        require(count >= local_size(), "training.device", rule, count, f"Use --nproc-per-node {count}, or --device cpu")
    compute_dtype = resolve_precision(config.training.precision, device)
    world = ProcessGroup(0, world_size())
    model = meta_model(prepared, config, compute_dtype=compute_dtype, world=world)
    if model is None:  # its size is not known before it is built
        return
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    _require_memory(STATE_BYTES * weights + sum(buffer.nbytes for buffer in model.buffers()), device)
    parameters = dict(model.named_parameters())
    elsewhere = sum(
        (rows.num_rows - len(rows)) * parameters[name].shape[1]
        for name, rows in divided_rows(model).items()
        if name in parameters
    )
    _require_disk(SAVED_BYTES * (weights + elsewhere), runs_dir)


def _require_memory(needed: int, device: torch.device) -> None:
    available = available_memory(device)
    if available is not None and needed > available:
        rule = f"must leave room in the memory of {device}: weights and features need {_gigabytes(needed)}"
        remedy = (
            "Choose a smaller --set model.hidden_size=N, or a larger --device; athwe train --dry-run shows the parts"
        )
        raise ConfigError("model", rule, f"{_gigabytes(available)} free", remedy)


def _require_disk(needed: int, runs_dir: Path) -> None:
    existing = next(folder for folder in (runs_dir.absolute(), *runs_dir.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        rule = f"must have room for the checkpoints: they take {_gigabytes(needed)}"
        remedy = "Free some, or choose another disk with --runs"
        raise CheckpointError(f"the disk of {runs_dir}", rule, f"{_gigabytes(free)} free", remedy)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
