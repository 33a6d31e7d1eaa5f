"""Where runs are trained when not in this process: what a launcher is, and the one for child processes on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from athwe_core.analysis.child_process import ChildProcess, Document, Message
from athwe_core.config import Config

RUN_MODULE = "athwe_core.analysis.experiments.run_one"
"""The module that trains one run, given as a document, in a process of its own."""
POLL_SECONDS = 0.2
"""How often a waiting parent checks whether it should stop."""

Messages = SimpleQueue[tuple[Any, Message | None]]
"""Of (what `Launcher.start` returned, message); the message is None when that run has ended."""


class Running(Protocol):
    """A run that is being trained somewhere else."""

    def stop(self) -> None:
        """Ask it to save and to end; asking again changes nothing."""

    def join(self) -> object:
        """Wait until it has ended, and end it when saving takes too long."""

    def result(self, subject: str, *, remedy: str) -> Document:
        """What `run_one` returned, once the run has ended; raises its error, see `ChildProcess.result`."""


class Launcher(Protocol):
    """Starts runs somewhere, several at once."""

    @property
    def jobs(self) -> int:
        """Runs at once, >= 1."""

    def start(self, document: Document, *, slot: int, messages: Messages) -> Running:
        """Start `run_one`.

        Args:
            document: its arguments.
            slot: a number in 0..jobs-1 that no other run under way has.
            messages: receives what the run reports, from a thread of its own.
        """


@dataclass(frozen=True)
class LocalLauncher:
    """Each run in a child process of this one."""

    jobs: int
    threads: int
    """Of each run."""
    devices: tuple[str, ...] = ()
    """CUDA devices for the slots in turn, as CUDA_VISIBLE_DEVICES names them; none = the run sees all."""

    def start(self, document: Document, *, slot: int, messages: Messages) -> ChildProcess:
        """Start it, see `Launcher.start`."""
        device = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {}
        return ChildProcess(RUN_MODULE, document, threads=self.threads, messages=messages, environment=device)


def local_launcher(configs: Sequence[Config], *, jobs: int) -> LocalLauncher:
    """Give each of `jobs` runs at once an equal share of this process's threads, and a CUDA device where there are several.

    Args:
        configs: of the runs.
        jobs: runs at once, >= 1.
    """
    return LocalLauncher(jobs, max(1, torch.get_num_threads() // jobs), assignable_devices(configs))


def assignable_devices(configs: Sequence[Config]) -> tuple[str, ...]:
    """CUDA devices to assign, as CUDA_VISIBLE_DEVICES names them; empty where a run names one, or where there are not two."""
    named = {config.training.device for config in configs}
    count = torch.cuda.device_count()
    if not named <= {"auto", "cuda"} or count < 2:
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(visible.split(",")[:count]) if visible else tuple(str(index) for index in range(count))
