"""A Spark session: that of the calling program, or one that is started and stopped here. Its log stays off the terminal."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from athwe_core.data.spark.failures import explained_failures, explained_start
from athwe_core.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MASTER = "local[*]"
"""Where Spark runs unless a master is named: in this machine, on all cores."""
LEAST_JAVA = 17
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@contextmanager
def spark_session(master: str | None, work_folder: Path) -> Iterator[SparkSession]:
    """Give a session; one that was started here is stopped in the end, one that was there already goes on.

    Args:
        master: URL such as `spark://host:7077`, or `local[2]`; None takes the session of the calling program, else the
            master of Spark's own configuration, else `MASTER`.
        work_folder: Where Spark in this machine keeps what does not fit into memory.
    Raises:
        ConfigError: pyspark or Java is missing, the master is no URL of one, or a session with another one runs.
        AthweError: The master does not answer, or what `explained_failures` makes of errors in the block.
    """
    require_spark()
    from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra

    running = SparkSession.getActiveSession()
    if running is not None:
        there = running.sparkContext.master
        if master not in (None, there):
            remedy = "Stop that session first, or leave the master out"
            raise ConfigError(
                "--spark-master", f"must be {there}, where a session of this program runs", master, remedy
            )
        with explained_failures(there):
            yield running
        return
    with explained_failures(master or MASTER):
        session = _started(master, work_folder)
        try:
            yield session
        finally:
            session.stop()


def require_spark() -> None:
    """Raise ConfigError where pyspark is missing, or there is no Java, or one that is too old."""
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError("--engine spark", "needs pyspark", remedy='Install it: pip install "athwe[spark]"')
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    remedy = "On Debian and Ubuntu: apt-get install openjdk-17-jre-headless"
    remedy += "; then set JAVA_HOME to it, or unset JAVA_HOME" if home else ""
    found = None
    if program is not None and Path(program).is_file():
        shown = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
        found = _JAVA_VERSION.search(shown.stderr + shown.stdout)
    if found is None:
        raise ConfigError("--engine spark", f"needs Java {LEAST_JAVA} or later, and none is found", remedy=remedy)
    if int(found[1]) < LEAST_JAVA:
        raise ConfigError("Java", f"must be {LEAST_JAVA} or later for --engine spark", int(found[1]), remedy)


def _started(master: str | None, work_folder: Path) -> SparkSession:
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415 - an extra
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    settings = {"spark.app.name": "athwe prepare", "spark.ui.showConsoleProgress": "false"}
    if master is not None:
        settings["spark.master"] = master
    if (master or MASTER).startswith("local"):
        settings |= {"spark.ui.enabled": "false", "spark.local.dir": str(work_folder.absolute())}
        settings |= {"spark.driver.host": "localhost", "spark.driver.bindAddress": "127.0.0.1"}
    with tempfile.TemporaryFile() as log:  # Java writes its warnings and Spark's log to the terminal otherwise
        try:
            gateway = getattr(SparkContext, "_gateway", None) or launch_gateway(
                SparkConf(loadDefaults=False).setAll(list(settings.items())), {"stdout": log, "stderr": log}
            )
        except Exception as error:
            log.seek(0)
            shown = log.read().decode("utf-8", "replace") or str(error)
            raise explained_start(shown, master or MASTER) from None
    handler = signal.getsignal(signal.SIGINT)
    SparkContext._ensure_initialized(gateway=gateway)
    configuration = SparkConf()  # with what Spark's own configuration files say
    configuration.setAll(list(settings.items()))
    configuration.setIfMissing("spark.master", MASTER)
    context = SparkContext(conf=configuration, gateway=gateway)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)  # which Spark has replaced by its own
    if "PYSPARK_PYTHON" not in os.environ:
        context.pythonExec = sys.executable
    return SparkSession(context)
