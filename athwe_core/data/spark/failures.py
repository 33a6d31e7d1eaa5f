"""What goes wrong in Spark, as one line each: its own messages are stack traces of two languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from athwe_core.errors import AthweError, ConfigError, DataError
from athwe_core.messages import clipped

_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_NO_MASTER = re.compile(
    r"All masters are unresponsive|initialization in progress|Spark context stopped while waiting|Master removed our "
    r"application|No executors? can be|stopped SparkContext"
)
_NO_URL = re.compile(r"Could not parse Master URL|Invalid master URL|Master must either be")
_LOST = re.compile(
    r"ExecutorLostFailure|Executor heartbeat timed out|executor \S+ exited|[Ww]orker lost|RPC client disassociated|"
    r"Python worker (?:exited|crashed)|Slave lost|Executor decommission"
)
_MEMORY = re.compile(r"OutOfMemoryError|Java heap space|GC overhead limit|MemoryError|exit code:? 137|MEMORY_LIMIT")
_NO_ATHWE = re.compile(r"No module named '(athwe_core|polars)")
_CAUSE = re.compile(r"(?:Caused by: |^)(?:[\w$.]+\.)?(\w+(?:Error|Exception)\b:?.*)", re.MULTILINE)
LOCALLY = "--engine local prepares in this process"


@contextmanager
def explained_failures(master: str) -> Iterator[None]:
    """Turn what pyspark and py4j raise into an AthweError; `master` is named in it."""
    try:
        yield
    except (AthweError, KeyboardInterrupt):
        raise
    except Exception as error:
        if not any(
            kind.__module__.split(".")[0] in ("pyspark", "py4j") for kind in type(error).__mro__
        ) and not isinstance(error, ConnectionError):
            raise
        raise explained(str(error) or repr(error), master) from error


def explained(text: str, master: str) -> AthweError:
    """The error for what Spark tells.

    Args:
        text: Its message, with the stack traces.
        master: Where it runs.
    """
    where = f"Spark ({master})"
    if _NO_URL.search(text):
        return _no_url(master)
    if _FULL.search(text):
        remedy = (
            "Free some space, or name other folders: SPARK_LOCAL_DIRS for what Spark sorts, --prepared for the rest"
        )
        return DataError(
            where, "found a disk full (No space left on device); what was prepared before is kept", remedy=remedy
        )
    if _NO_ATHWE.search(text):
        remedy = "Install the same athwe there, and name its Python with PYSPARK_PYTHON"
        return ConfigError(where, "has workers whose Python has no athwe", remedy=remedy)
    if _MEMORY.search(text):
        remedy = f"Give it more, e.g. SPARK_DRIVER_MEMORY=4g, SPARK_EXECUTOR_MEMORY=4g. {LOCALLY}"
        return AthweError(where, "ran out of memory; what was prepared before is kept", remedy=remedy)
    if _LOST.search(text):
        remedy = f"Run the same command again; if it happens again, give the executors more memory. {LOCALLY}"
        return AthweError(
            where, "lost an executor more often than it tries again; what was prepared before is kept", remedy=remedy
        )
    if _NO_MASTER.search(text):
        remedy = f"Is it running, and can this machine reach it? {LOCALLY}"
        return AthweError("--spark-master", "must be a master that answers", master, remedy)
    causes = _CAUSE.findall(text)
    cause = clipped(causes[-1] if causes else text.strip().splitlines()[0])
    return AthweError(where, f"stopped with an error ({cause}); what was prepared before is kept", remedy=LOCALLY)


def explained_start(text: str, master: str) -> AthweError:
    """The error for a Java process that ended before it could be spoken to; `text` is what it wrote."""
    if _NO_URL.search(text):
        return _no_url(master)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    errors = [line for line in lines if re.search(r"error|exception|could not|unable", line, re.IGNORECASE)]
    rule = f"could not be started ({clipped((errors or lines)[-1])})"
    return ConfigError("Spark", rule, remedy="Check JAVA_HOME, SPARK_HOME and Spark's configuration")


def _no_url(master: str) -> AthweError:
    remedy = "E.g. --spark-master spark://host:7077, or local[2]"
    return ConfigError("--spark-master", "must be the URL of a Spark master", master, remedy)
