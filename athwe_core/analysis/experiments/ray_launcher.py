"""Runs on the nodes of a Ray cluster.

Each run has an actor, which holds its CPUs and its GPU, and trains it in a child process there, as `LocalLauncher` does here.
A thread of this process fetches the messages. When an actor is lost with its node, another one goes on from the run's last
checkpoint; `run_one.take_over` tells how it gets hold of the run.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Event, Thread
from typing import Any

import torch

from athwe_core.analysis.child_process import (
    ERROR,
    RESULT,
    SECONDS_TO_SAVE,
    ChildProcess,
    Document,
    Ending,
    Message,
    describe_exception,
)
from athwe_core.analysis.experiments.launch import POLL_SECONDS, RUN_MODULE, Messages
from athwe_core.analysis.experiments.ray_cluster import Share, load_ray, ray_cluster, require_shared, share_of
from athwe_core.analysis.experiments.run_one import LostProcess
from athwe_core.config import Config
from athwe_core.errors import AthweError, require
from athwe_core.runs.find import RunFolder

MOST_LOSSES = 3
"""Actors that a run may lose one after the other without finishing an epoch."""
FETCH_SECONDS = 1.0
"""How long an actor waits for the next message before it answers without one."""
PATIENCE_SECONDS = 30.0
"""After so long a run that waits for a place in the cluster says so."""
LOST_REMEDY = "Run the same command again; finished epochs are kept"
STOPPED = Ending(0, Message(RESULT, {"finished": False}))


@contextmanager
def ray_launcher(
    configs: Sequence[Config], *, jobs: int | None, folders: dict[str, Path], address: str | None
) -> Iterator[RayLauncher]:
    """A launcher on a Ray cluster.

    Args:
        configs: of the runs, at least one.
        jobs: runs at once at most, >= 1; None = as many as the cluster has room for.
        folders: option to folder that every node must see, e.g. `--runs`.
        address: see `ray_cluster`.
    Raises: ConfigError, see `ray_cluster`, `share_of` and `require_shared`.
    """
    require(jobs is None or jobs >= 1, "--jobs", "must be at least 1", jobs)
    with ray_cluster(address, cpus=max(torch.get_num_threads(), jobs or 1)) as nodes:
        share = share_of(nodes, configs, jobs=jobs)
        require_shared([node for node in nodes if node.cpus > 0], folders)
        yield RayLauncher(share, num_nodes=len(nodes))


class RayLauncher:
    """Each run on a node of the cluster, which Ray chooses."""

    def __init__(self, share: Share, *, num_nodes: int) -> None:
        self.share, self.num_nodes = share, num_nodes

    @property
    def jobs(self) -> int:
        """Runs at once."""
        return self.share.jobs

    def __str__(self) -> str:
        nodes, runs = _counted(self.num_nodes, "node"), _counted(self.jobs, "run")
        gpu = " and a GPU" if self.share.gpus else ""
        return f"Ray with {nodes}: {runs} at once, {_counted(self.share.cpus, 'CPU')}{gpu} each"

    def start(self, document: Document, *, slot: int, messages: Messages) -> RayRun:
        """Start it, see `Launcher.start`."""
        return RayRun(document, self.share, messages)


class RayRun:
    """A run on some node. Its messages are put into `messages` by a thread of its own."""

    def __init__(self, document: Document, share: Share, messages: Messages) -> None:
        self._ray, self._document, self._share, self._messages = load_ray(), document, share, messages
        self._stopped = Event()
        self._actor: Any = None
        self._lost: list[LostProcess] = []
        self._has_epoch = False
        self._ending: Ending | None = None
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to save and to end; asking again changes nothing."""
        if not self._stopped.is_set():
            self._stopped.set()
            if self._actor is not None:
                self._actor.stop.remote()

    def join(self) -> None:
        """Wait until it has ended, and end it when saving takes too long."""
        self._thread.join(SECONDS_TO_SAVE)
        if self._thread.is_alive() and self._actor is not None:
            self._ray.kill(self._actor)
            self._thread.join()

    def result(self, subject: str, *, remedy: str) -> Document:
        """What it returned, or its error, see `ChildProcess.result`."""
        self.join()
        assert self._ending is not None
        return self._ending.result(subject, remedy=remedy)

    def _follow(self) -> None:
        """Train it on one actor after the other until it ends."""
        try:
            losses = 0
            while self._ending is None:
                self._has_epoch = False
                try:
                    self._ending = self._train()
                except self._ray.exceptions.RayActorError as error:
                    losses = 1 if self._has_epoch else losses + 1
                    if self._stopped.is_set():
                        self._ending = STOPPED
                    elif losses >= MOST_LOSSES:
                        rule = f"was lost by {losses} processes one after the other"
                        name = f"run {RunFolder(Path(self._document['run'])).name}"
                        raise AthweError(name, f"{rule} ({_last_line(error)})", remedy=LOST_REMEDY) from error
                    else:
                        where = self._lost[-1]["host"] if self._lost else "its node"
                        self._note(f"lost the process on {where}: goes on elsewhere from the last checkpoint")
        except Exception as error:
            self._ending = Ending(1, Message(ERROR, describe_exception(error)))
        self._messages.put((self, None))

    def _train(self) -> Ending:
        """Train it on a new actor; raises RayActorError when that is lost."""
        share = self._share
        kind = self._ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_concurrency=3)(RunActor)
        actor = kind.options(scheduling_strategy="SPREAD").remote()
        try:
            started = actor.start.remote(self._document | {"lost": list(self._lost)}, share.cpus)
            if not self._is_placed(started):
                return STOPPED
            self._lost.append(self._ray.get(started))
            self._actor = actor
            if self._stopped.is_set():
                actor.stop.remote()
            return self._receive(actor)
        finally:
            self._actor = None
            self._ray.kill(actor)

    def _is_placed(self, started: Any) -> bool:
        """Wait for a place in the cluster; False when stopped before."""
        began, is_told = time.monotonic(), False
        while not self._ray.wait([started], timeout=POLL_SECONDS)[0]:
            if self._stopped.is_set():
                return False
            if not is_told and time.monotonic() - began > PATIENCE_SECONDS:
                is_told = True
                gpu = " and a GPU" if self._share.gpus else ""
                self._note(f"waits for a node with {_counted(self._share.cpus, 'free CPU')}{gpu}")
        return True

    def _receive(self, actor: Any) -> Ending:
        """Pass on messages until the run ends. A fetch is repeated where it may have been lost on its way."""
        first = 0
        while True:
            try:
                found, ending = self._ray.get(actor.messages.remote(first))
            except self._ray.exceptions.ActorUnavailableError:
                time.sleep(POLL_SECONDS)
                continue
            first += len(found)
            for message in found:
                self._has_epoch |= message.event == "epoch_ends"
                self._messages.put((self, message))
            if ending is not None:
                return ending

    def _note(self, text: str) -> None:
        self._messages.put((self, Message("note", {"text": text})))


class RunActor:
    """On a node: one run in a child process, and the messages that the driver has not fetched yet."""

    def __init__(self) -> None:
        self._child: ChildProcess | None = None
        self._changed = Condition()
        self._fetched = 0
        self._waiting: list[Message] = []
        self._ending: Ending | None = None

    def start(self, document: Document, threads: int) -> LostProcess:
        """Start the run with so many threads; which process trains it, in case it is lost."""
        messages: Messages = SimpleQueue()
        self._child = ChildProcess(RUN_MODULE, document, threads=threads, messages=messages)
        Thread(target=self._collect, args=(self._child, messages), daemon=True).start()
        return {"process": self._child.pid, "host": platform.node()}

    def stop(self) -> None:
        """Ask the run to save and to end."""
        if self._child is not None:
            self._child.stop()

    def messages(self, first: int) -> tuple[list[Message], Ending | None]:
        """Messages from number `first` on, and how the run ended once they are the last; waits a moment where none is new.

        Those before `first` have been fetched and are forgotten.
        """
        with self._changed:
            del self._waiting[: first - self._fetched]
            self._fetched = first
            self._changed.wait_for(lambda: self._waiting or self._ending is not None, FETCH_SECONDS)
            return list(self._waiting), self._ending

    def _collect(self, child: ChildProcess, messages: Messages) -> None:
        while (message := messages.get()[1]) is not None:
            with self._changed:
                self._waiting.append(message)
                self._changed.notify_all()
        ending = child.ending()
        with self._changed:
            self._ending = ending
            self._changed.notify_all()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _last_line(error: BaseException) -> str:
    """The line of an actor's error that tells the cause; the ones before name the actor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".")
