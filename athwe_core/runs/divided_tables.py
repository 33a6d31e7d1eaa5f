"""Safetensors files of tables whose rows are divided over processes.

A file holds the whole tables, as that of a single process does: a run goes on with another number of processes, and whatever
reads a run needs no change. Rank 0 writes the file, and no process holds more of a table than its rows and a piece.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.errors import CheckpointError
from athwe_core.nn.item_embeddings import divided_rows
from athwe_core.row_shard import RowShard

_LENGTH_BYTES = 8
"""A file begins with the length of its header; then come the header, in JSON, and the tensors."""


def shards_in_files(network: nn.Module, moments: Iterable[str]) -> dict[str, RowShard]:
    """How the tables of a network and their moments are divided over processes.

    Args:
        network: any network.
        moments: what the optimiser keeps of each weight.
    Returns: by the name that a table or a moment has in a file; empty where nothing is divided.
    """
    return {
        name: rows
        for table, rows in divided_rows(network).items()
        for name in (table, *(f"{table}/{moment}" for moment in moments))
    }


def group_of(shards: Mapping[str, RowShard]) -> ProcessGroup:
    """The processes over which tables are divided; a single one where there are no such tables."""
    return next(iter(shards.values())).group if shards else ALONE


def write_whole(path: Path, tensors: Mapping[str, Tensor], shards: Mapping[str, RowShard]) -> None:
    """Write tensors to a safetensors file. All processes must call it together; rank 0 writes.

    Args:
        tensors: by name; of divided tables, the rows of this process, in float32.
        shards: how the rows of tables are divided, by name; one at least.
    Raises: OSError where the disk refuses.
    """
    content = save({name: value.contiguous() for name, value in tensors.items() if name not in shards})
    header_end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:header_end])
    divided = sorted(tensors.keys() & shards.keys())
    end = len(content) - header_end
    for name in divided:
        assert tensors[name].dtype == torch.float32, f"{name} must be float32, got {tensors[name].dtype}"
        shape = [shards[name].num_rows, *tensors[name].shape[1:]]
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with _opened_on_first(path, shards) as file:
        if file is not None:
            file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[header_end:])
        for name in divided:
            for piece in shards[name].gathered(tensors[name]):
                if file is not None:
                    file.write(piece.numpy().data)


@contextmanager
def _opened_on_first(path: Path, shards: Mapping[str, RowShard]) -> Iterator[IO[bytes] | None]:
    if not group_of(shards).is_first:
        yield None
        return
    with path.open("wb") as file:
        yield file


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; a table takes no further memory."""
    if not values.is_floating_point() or values.numel() == 0:
        return bool(torch.isfinite(values).all())
    return all(map(math.isfinite, (bound.item() for bound in values.aminmax())))  # NaN is both bounds


@torch.no_grad()
def read_own(path: Path, shards: Mapping[str, RowShard], into: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a safetensors file; of divided tables, the rows of this process.

    Args:
        path: the file.
        shards: how the rows of tables are divided, by name.
        into: memory for the rows of this process, by name; for names that are missing it is made.
    Returns: tensors by name.
    Raises: SafetensorError for a damaged file; CheckpointError, in every process, for a table of another number of rows or
        with a value that is not finite.
    """
    found: dict[str, Tensor] = {}
    with safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            rows = shards.get(name)
            if rows is None:
                found[name] = torch.from_numpy(file.get_tensor(name))
                continue
            part = file.get_slice(name)
            num_rows, *width = part.get_shape()
            if num_rows != rows.num_rows:
                rule, remedy = f"must hold {rows.num_rows} rows of {name}", "Has the data set changed?"
                raise CheckpointError(str(path), rule, num_rows, remedy)
            found[name] = into[name] if name in into else torch.empty(len(rows), *width)
            if found[name].shape != (len(rows), *width):
                rule, remedy = f"must hold {name} of width {list(found[name].shape[1:])}", "Is it another run's?"
                raise CheckpointError(str(path), rule, width, remedy)
            for whole, place in rows.pieces():
                piece = torch.from_numpy(part[whole.start : whole.stop])
                if not is_finite(piece):
                    rule = f"must hold finite values, and {name} is not finite"
                    raise CheckpointError(str(path), rule, remedy="Train again with a lower --lr")
                found[name][place] = piece[rows.rows]
    return found
