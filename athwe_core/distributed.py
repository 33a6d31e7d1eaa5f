"""Several processes that work as one, started by torchrun: one for each device, the same weights, each its share of the work.

Tensors are exchanged by torch.distributed alone: gloo on the CPU, NCCL on CUDA.
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
    """Another process of the job ended (exit code 1)."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a job and this one's place among them; a single process is a world of one."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """The process that writes to the run folder and to the terminal."""
        return self.rank == 0

    def divide(self, num_supervised: NDArray[np.int64], *, multiple: int = 1) -> tuple[NDArray[np.bool_], BatchShards]:
        """Which rows of a batch are this process's, and how many targets each process holds.

        `multiple` is the one the rows are packed with.

        The rows stay in order and are cut where the targets are nearest to equal parts. A batch of fewer rows than processes
        leaves some without any.
        """
        middle = np.cumsum(num_supervised) - num_supervised / 2
        owner = np.minimum((middle * self.size / num_supervised.sum()).astype(np.int64), self.size - 1)
        counts = np.bincount(owner, weights=num_supervised, minlength=self.size).astype(np.int64)
        return owner == self.rank, BatchShards(tuple(counts.tolist()), self.rank, multiple)

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes, on each."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, claim: bool) -> bool:
        """Whether it is so in one of the processes."""
        return claim if self.size == 1 else bool(self.total(torch.tensor(int(claim))) > 0)

    def text_of_first(self, text: str) -> str:
        """The first process's text, at most 4096 bytes, on every process."""
        if self.size == 1:
            return text
        content = list(text.encode().ljust(_TEXT_BYTES, b"\0")[:_TEXT_BYTES])
        padded = torch.tensor(content, dtype=torch.uint8)
        dist.broadcast(padded, src=0)
        return bytes(padded.tolist()).rstrip(b"\0").decode()

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


ALONE = ProcessGroup()


@dataclass(frozen=True)
class BatchShards:
    """How the supervised tokens of one step are divided: process k holds `counts[k]` of them, the first process's first.

    A loss that is given its shares returns this process's part of it: the parts of all processes sum to the loss of the
    whole batch, and so do their gradients. Every process must make the same calls in the same order.
    """

    counts: tuple[int, ...]
    rank: int = 0
    multiple: int = 1
    """Each process's targets are filled up to a multiple of this (see `pack`)."""

    @property
    def num_targets(self) -> int:
        """Supervised tokens of all processes."""
        return sum(self.counts)

    @property
    def num_processes(self) -> int:
        return len(self.counts)

    @property
    def start(self) -> int:
        """Where this process's rows begin among those of `gather`."""
        return sum(self._filled[: self.rank])

    @property
    def _filled(self) -> list[int]:
        return [count + -count % self.multiple for count in self.counts]

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes, the same on each; its gradient is summed over them too."""
        return value if self.num_processes == 1 else _Total.apply(value)

    def gather(self, rows: Tensor) -> Tensor:
        """One row for each supervised token of this process, padding included, to those of all, with their gradients."""
        if self.num_processes == 1:
            return rows
        padding = [0, 0] * (rows.ndim - 1) + [self.start, sum(self._filled) - self.start - len(rows)]
        return self.total(F.pad(rows, padding))


class _Total(torch.autograd.Function):
    """Sum over the processes whose gradient is the sum of theirs."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return _Total.forward(_ctx, grad)


def all_here(num_targets: int) -> BatchShards:
    """All tokens in this process."""
    return BatchShards((num_targets,))


def are_several() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Number of this process among those of its machine, which is that of its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def init_distributed() -> Iterator[ProcessGroup]:
    """The world of this process: what torchrun set up in the environment, or a world of one.

    Raises:
        ConfigError: The environment is incomplete or the processes do not find each other.
        LostProcessError: Another process ended while this one worked.
    """
    if not are_several():
        yield ALONE
        return
    remedy = "Start with: torchrun --nproc-per-node N -m athwe_cli train ..."
    try:
        rank, size, _ = (int(os.environ[name]) for name in _VARIABLES)
        store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun may start a failed job again over the same store: the addresses of the first attempt are still in it.
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
        remedy = "See its own error; what is saved is kept: start the same with --resume RUN"
        raise LostProcessError(
            "another process of the job", "must not end before the work does", remedy=remedy
        ) from None
    finally:
        dist.destroy_process_group()
