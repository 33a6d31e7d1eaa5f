"""A process that trains runs for its parent: told by a pipe what to do, telling by it what happens."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from athwe_core.errors import AthweError
from athwe_core.runs.find import RunFolder
from athwe_core.training.loop import train

ENDED, FAILED = "ended", "failed"
STEP_SECONDS = 0.5
"""Time between two steps told."""
LAST_SECONDS = 300.0
"""How long a worker that was told to stop may take for its step and for saving before it is killed."""


class WorkerError(AthweError):
    """An error of a library, or of athwe itself, in a worker (exit code 1): type and first line; its traceback is a note."""


class Worker:
    """The parent's end.

    Args:
        prepared_dir: where the runs' data sets are.
        threads: torch's threads there.
        visible_device: the one CUDA device it sees; None = as here.
    """

    def __init__(self, prepared_dir: Path, *, threads: int, visible_device: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, prepared_dir, threads, visible_device)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        with _signals_held_back():
            self._process.start()
        theirs.close()  # so that its end shows here as the end of the pipe

    def train(self, run: RunFolder) -> None:
        """Hand it a run; `receive` tells what becomes of it."""
        self._send(run.path)

    def stop(self) -> None:
        """Save the run under way, if there is one, and end."""
        self._send(None)

    def receive(self) -> tuple[Any, ...] | None:
        """The next message; None when the process is gone.

        (ENDED, whether the run finished), (FAILED, ...) for `rebuild_exception`, or a call of the training listener or of
        its `note`: (name, positional arguments, named arguments).
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return None

    def join(self) -> None:
        """Wait until it is gone; killed when it takes too long."""
        self._process.join(LAST_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()

    def exit_code(self) -> int | None:
        """Of a process that is gone; negative = the signal that ended it."""
        self._process.join(LAST_SECONDS)
        return self._process.exitcode

    def _send(self, message: Path | None) -> None:
        with suppress(OSError):  # it is gone, and `receive` will tell
            self.connection.send(message)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process begun here starts with SIGINT and SIGTERM blocked, so that none ends it before it ignores them."""
    resource_tracker.ensure_running()  # it unblocks them when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pass:
    """The training loop's listener in the worker. The parent may be gone: then the loop is stopped, not broken off."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.last_step = 0.0

    def epoch_begins(self, epoch: int, **named: Any) -> None:
        self._tell("epoch_begins", epoch, **named)

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self.last_step > STEP_SECONDS:
            self.last_step = now
            self._tell("step_ends", step, means)

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        self._tell("epoch_ends", record, is_best=is_best)

    def note(self, text: str) -> None:
        self._tell("note", text)

    def _tell(self, name: str, *arguments: Any, **named: Any) -> None:
        with suppress(OSError):
            self.connection.send((name, arguments, named))


def _work(connection: Connection, prepared_dir: Path, threads: int, visible_device: str | None) -> None:
    """Train one run after another until told to stop or until the parent is gone, both of which make the pipe readable."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and a scheduler send them to all; the parent decides
        signal.signal(number, signal.SIG_IGN)
    if visible_device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_device
    torch.set_num_threads(threads)
    with suppress(EOFError, ConnectionError):
        while (path := connection.recv()) is not None:
            run, tell = RunFolder(path), _Pass(connection)
            try:
                prepared = run.open_data(prepared_dir)
                result = train(run, prepared, listener=tell, should_stop=connection.poll, notify=tell.note)
            except Exception as error:
                connection.send((FAILED, *_described(error, run)))
            else:
                connection.send((ENDED, result.finished))


def _described(error: Exception, run: RunFolder) -> tuple[type[Exception], tuple[Any, ...], dict[str, Any]]:
    """An exception as what goes through a pipe: what a user can mend as it is, anything else in one line."""
    if isinstance(error, OSError):
        return type(error), error.args, {"filename": error.filename}
    if not isinstance(error, AthweError):
        error = _in_one_line(error, run)
    return type(error), error.args, dict(vars(error))


def _in_one_line(error: Exception, run: RunFolder) -> WorkerError:
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    found = WorkerError(
        f"run {run.name}", f"was ended by {name}{': ' * bool(text)}{text}", remedy="athwe --debug shows where it arose"
    )
    found.add_note("".join(traceback.format_exception(error)))
    return found


def rebuild_exception(kind: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    """The exception of a worker."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    for name, value in attributes.items():
        setattr(error, name, value)
    return error
