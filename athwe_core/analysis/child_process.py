"""Python processes that work for this one: each is given one JSON document and answers in JSON lines.

    ChildProcess(MODULE, document) ---> standard input:  the document, on one line
    messages <------------------------- standard output: one line for each message, the last is the result or the error
    stop() ---------------------------> standard input:  its end

MODULE is run as `python -m MODULE` and calls `serve`. The program of the parent is not imported again. So this works where
multiprocessing does not: in a notebook, in a script read from standard input, in a daemonic process of a pool.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import athwe_core
from athwe_core.errors import AthweError

Document = dict[str, Any]
"""An object of JSON."""
SECONDS_TO_SAVE = 300.0
"""How long a child that is to stop may take for its step and for saving before it is killed."""

RESULT, ERROR = "result", "error"
"""Events of a child's last message, its answer."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Message:
    """Something that a child reports."""

    event: str
    fields: Document


class ChildError(AthweError):
    """An error of a library, or of athwe itself, in a child (exit code 1): type and first line. Its traceback is a note."""


@dataclass(frozen=True)
class Ending:
    """How a child ended."""

    code: int
    """Its exit code; negative = the signal that ended it."""
    answer: Message | None
    """The result or the error of its work; None where it was killed before."""

    def result(self, subject: str, *, remedy: str) -> Document:
        """What the work returned, or its error, see `ChildProcess.result`."""
        if self.answer is None:
            raise AthweError(subject, f"must finish: its process ended with exit code {self.code}", remedy=remedy)
        if self.answer.event == ERROR:
            raise rebuild_exception(self.answer.fields, subject)
        return self.answer.fields


class ChildProcess:
    """The parent's end.

    Args:
        module: the module to run.
        document: its arguments.
        threads: of its numerical libraries, >= 1.
        environment: variables to set beside those of this process.
        messages: receives (child, message) from a thread of its own; (child, None) when the child has ended.
    Raises: OSError where no process can be started.
    """

    def __init__(
        self,
        module: str,
        document: Document,
        *,
        threads: int,
        messages: SimpleQueue[tuple[ChildProcess, Message | None]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._last: Message | None = None
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        with _signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | limits | {"PYTHONPATH": _search_path()} | dict(environment or {}),
            )
        with suppress(OSError):  # it has died, which its messages will show
            self._write(json.dumps(document) + "\n")
        self._reader = threading.Thread(target=self._read, args=(messages,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to save what it does and to end; asking again changes nothing."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def join(self, seconds: float = SECONDS_TO_SAVE) -> int:
        """Wait until it has ended, and kill it when that takes too long.

        Returns: its exit code; negative = the signal that ended it.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        self._reader.join(1.0)
        self.stop()
        return self._process.returncode

    def result(self, subject: str, *, remedy: str) -> Document:
        """What its work returned; to be called when it has ended.

        Args:
            subject: what it worked on, e.g. `run demo/athwe/x`, for the error.
            remedy: what to do when it was killed.
        Raises: the AthweError of the work, with its text and exit code; ChildError for any other error of the work;
            AthweError for a child that ended without an answer.
        """
        return self.ending().result(subject, remedy=remedy)

    def ending(self) -> Ending:
        """How it ended; to be called when it has ended."""
        code = self.join()
        return Ending(code, self._last)

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def _read(self, messages: SimpleQueue[tuple[ChildProcess, Message | None]]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    found = json.loads(line)
                    message = Message(found["event"], found["fields"])
                except (ValueError, KeyError, TypeError):  # printed by a library before `serve`, or cut off by a kill
                    continue
                if message.event in (RESULT, ERROR):
                    self._last = message
                else:
                    messages.put((self, message))
        messages.put((self, None))


def run_together(
    module: str,
    document: Document,
    environments: Sequence[Mapping[str, str]],
    *,
    threads: int,
    subject: str,
    remedy: str,
) -> list[Document]:
    """One child for each environment, all at once; their results in the same order.

    When one fails, the others are killed.

    Args: as of `ChildProcess` and its `result`.
    Raises: the error of the one that failed, as `ChildProcess.result`.
    """
    messages: SimpleQueue[tuple[ChildProcess, Message | None]] = SimpleQueue()
    children: list[ChildProcess] = []
    results: dict[ChildProcess, Document] = {}
    try:
        for environment in environments:
            children.append(ChildProcess(module, document, threads=threads, messages=messages, environment=environment))
        while len(results) < len(children):
            child, message = messages.get()
            if message is None:
                results[child] = child.result(subject, remedy=remedy)
    finally:
        for child in children:
            child.join(0.0)
    return [results[child] for child in children]


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process begun here has SIGINT and SIGTERM blocked, so that none ends it before it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _search_path() -> str:
    """Where this process finds its modules, in the same order: athwe, and models of other packages."""
    own = str(Path(athwe_core.__file__).resolve().parents[1])
    return os.pathsep.join(dict.fromkeys([*(os.path.abspath(path) for path in sys.path), own]))


class Parent:
    """The child's end. When the parent is gone, the work is stopped as by `ChildProcess.stop`."""

    def __init__(self) -> None:
        self._output = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)  # what libraries print is no message
        self.document: Document = json.loads(sys.stdin.buffer.readline())
        self._stopped = threading.Event()
        threading.Thread(target=self._wait_for_end, daemon=True).start()

    def wants_stop(self) -> bool:
        """Whether the parent called `stop` or is gone."""
        return self._stopped.is_set()

    def send(self, event: str, **fields: Any) -> None:
        """Report something."""
        with suppress(OSError):
            self._output.write(json.dumps({"event": event, "fields": fields}) + "\n")

    def _wait_for_end(self) -> None:
        while os.read(0, 4096):
            pass
        self._stopped.set()


def serve(work: Callable[[Document, Parent], Mapping[str, Any]]) -> None:
    """Be a child process: do the work for the document on standard input, and send its result or its error.

    Args:
        work: is given the document and the parent's end; returns the result.
    """
    for number in _STOP_SIGNALS:  # a terminal and a scheduler send them to all; the parent decides
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    parent = Parent()
    try:
        result = work(parent.document, parent)
    except Exception as error:
        parent.send(ERROR, **describe_exception(error))
    else:
        parent.send(RESULT, **result)


def describe_exception(error: Exception) -> Document:
    """An exception as JSON: an AthweError with its parts, any other as type, first line and traceback."""
    kind = type(error)
    if isinstance(error, AthweError):
        parts = {"name": error.name, "rule": error.rule, "remedy": error.remedy}
        return {"type": kind.__name__, "text": str(error), "exit_code": error.exit_code, "parts": parts}
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return {"cause": f"{name}: {line}" if line else name, "traceback": "".join(traceback.format_exception(error))}


def rebuild_exception(fields: Document, subject: str) -> AthweError:
    """The exception of `describe_exception`.

    Args:
        subject: what the child worked on, for an error that does not name it.
    """
    if "cause" in fields:
        remedy = "athwe --debug shows where it arose"
        other = ChildError(subject, f"was ended by {fields['cause']}", remedy=remedy)
        other.add_note(fields["traceback"])
        return other
    kind = next((kind for kind in _kinds(AthweError) if kind.__name__ == fields["type"]), AthweError)
    error = kind(**fields["parts"])
    error.args, error.exit_code = (fields["text"],), fields["exit_code"]
    return error


def _kinds(kind: type[AthweError]) -> Iterator[type[AthweError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from _kinds(other)
