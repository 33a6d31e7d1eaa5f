"""Data-parallel training by several processes that torchrun starts: one for each device, each with a shard of every batch.

All tensors are exchanged through torch.distributed, with gloo on CPUs and NCCL on CUDA devices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from athwe_core.errors import AthweError, ConfigError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_TEXT_BYTES = 4096


class LostProcessError(AthweError):
    """Another process of the job has ended (exit code 1)."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a job, and the rank of this one. A single process is a group of size 1."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process has rank 0; only that one writes to the run folder and to the terminal."""
        return self.rank == 0

    def divide(self, num_supervised: NDArray[np.int64], *, multiple: int = 1) -> tuple[NDArray[np.bool_], BatchShards]:
        """Divide the rows of a batch among the processes.

        The rows stay in order and are cut where the parts are nearest to equal numbers of targets. A process may get no row.

        Args:
            num_supervised: targets of each row.
            multiple: to which each process pads its targets (`Padding.targets` of `pack`).
        Returns: for each row whether it is this process's, and how many targets each process has.
        """
        middle = np.cumsum(num_supervised) - num_supervised / 2
        owner = np.minimum((middle * self.size / num_supervised.sum()).astype(np.int64), self.size - 1)
        counts = np.bincount(owner, weights=num_supervised, minlength=self.size).astype(np.int64)
        return owner == self.rank, BatchShards(tuple(counts.tolist()), self.rank, multiple)

    def total(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the processes, without a gradient.

        Args:
            value: of the same shape in every process.
        Returns: the sum, in every process.
        """
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def exchange(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Send rows to each process and receive rows from each, without a gradient.

        Args:
            rows: those for each process, by rank.
            sent: number of rows for each process.
            received: number of rows from each process.
        Returns: the rows from all processes, by rank.
        """
        found = rows.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(found, rows.contiguous(), received, sent)
        return found

    def any(self, claim: bool) -> bool:
        """Whether a claim is true in at least one process.

        Args:
            claim: of this process.
        Returns: the same in every process.
        """
        return claim if self.size == 1 else bool(self.total(torch.tensor(int(claim))) > 0)

    def text_of_first(self, text: str) -> str:
        """Send a text from rank 0 to all processes.

        Args:
            text: of this process; only that of rank 0 counts.
        Returns: the text of rank 0, cut to 4096 bytes of UTF-8 where there are several processes.
        """
        if self.size == 1:
            return text
        content = list(text.encode().ljust(_TEXT_BYTES, b"\0")[:_TEXT_BYTES])
        padded = torch.tensor(content, dtype=torch.uint8)
        dist.broadcast(padded, src=0)
        return bytes(padded.tolist()).rstrip(b"\0").decode(errors="ignore")  # the cut may split a character

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            dist.barrier()


ALONE = ProcessGroup()
"""The group of a single process."""


@dataclass(frozen=True)
class BatchShards:
    """How the supervised tokens of a batch are divided among processes.

    With it, a loss returns this process's part of the loss of the whole batch: the parts of all processes sum to it, and so
    do their gradients. All processes must make the same calls in the same order.
    """

    counts: tuple[int, ...]
    """Supervised tokens of each process, by rank; they follow each other in this order in the whole batch."""
    rank: int = 0
    """Rank of this process."""
    multiple: int = 1
    """Each process pads its targets to a multiple of this, see `pack`."""

    @property
    def num_targets(self) -> int:
        """Supervised tokens of all processes."""
        return sum(self.counts)

    @property
    def num_processes(self) -> int:
        """Number of processes, those without a token included."""
        return len(self.counts)

    @property
    def start(self) -> int:
        """Index of this process's first supervised token in the result of `gather`."""
        return sum(self._padded[: self.rank])

    @property
    def _padded(self) -> list[int]:
        """Supervised tokens of each process, padding included."""
        return [count + -count % self.multiple for count in self.counts]

    def total(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the processes, with gradients.

        Args:
            value: of the same shape in every process.
        Returns: the sum, in every process. The gradient of `value` is the sum of the gradients of all processes.
        """
        return value if self.num_processes == 1 else _Total.apply(value)

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of all processes, with gradients.

        Args:
            rows: one for each supervised token of this process, padding included.
        Returns: the rows of all processes by rank, in every process.
        """
        if self.num_processes == 1:
            return rows
        padding = [0, 0] * (rows.ndim - 1) + [self.start, sum(self._padded) - self.start - len(rows)]
        return self.total(F.pad(rows, padding))


class _Total(torch.autograd.Function):
    """Sum over the processes; the gradient is summed over them as well."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return _Total.forward(_ctx, grad)


def all_here(num_targets: int) -> BatchShards:
    """The shards of a batch that is not divided.

    Args:
        num_targets: supervised tokens of the batch.
    Returns: shards of one process that has them all.
    """
    return BatchShards((num_targets,))


def world_size() -> int:
    """Number of processes of the job on all machines; 1 for a single process."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def are_several() -> bool:
    """Whether torchrun started this process as one of several."""
    return world_size() > 1


def local_rank() -> int:
    """Rank of this process among those of its machine, which is the index of its CUDA device; 0 for a single process."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """Number of processes of the job on this machine; 1 for a single process."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def init_distributed() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, for the duration of the context.

    Yields: the group; for a process that torchrun did not start as one of several, `ALONE`.
    Raises:
        ConfigError: The environment variables of torchrun are incomplete, or the processes cannot connect.
        LostProcessError: Another process ended while this one was in the context.
    """
    if not are_several():
        yield ALONE
        return
    remedy = "Start with: torchrun --nproc-per-node N -m athwe_cli train ..."
    try:
        rank, size, _ = (int(os.environ[name]) for name in _VARIABLES)
        store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun may restart a failed job with the same store, which still holds the addresses of the first attempt
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
        has_cuda = torch.cuda.is_available()
        if has_cuda:
            torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl" if has_cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (KeyError, ValueError, RuntimeError) as error:
        rule = f"must be set up by torchrun ({str(error).splitlines()[0]})"
        raise ConfigError("the environment of several processes", rule, remedy=remedy) from None
    try:
        yield ProcessGroup(rank, size)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        remedy = "See its own error, then continue from the last checkpoint with --resume RUN"
        raise LostProcessError(
            "another process of the job", "must not end before the work does", remedy=remedy
        ) from None
    finally:
        dist.destroy_process_group()
