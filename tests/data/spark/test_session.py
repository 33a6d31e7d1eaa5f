"""What Spark needs is checked before it is started, and what it writes does not reach the terminal."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from athwe_core.data.prepare import current_version, prepare
from athwe_core.data.spark import session as session_module
from athwe_core.data.spark.session import require_spark, spark_session
from athwe_core.errors import ConfigError

ROOT = Path(__file__).parents[3]
LOG = "user,item,time\n" + "".join(f"u{u},i{(u + s) % 6},{1_400_000_001 + s}\n" for u in range(7) for s in range(6))

engines = pytest.mark.engines


def java(folder: Path, version: str) -> None:
    """A program that says that it is Java, in `folder/bin`."""
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)


@pytest.fixture
def _pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyspark is taken as installed; only Java is looked for."""
    monkeypatch.setattr(session_module.importlib.util, "find_spec", lambda _: object())


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'needs pyspark. Install it: pip install "athwe\[spark\]"'):
        require_spark()


@pytest.mark.usefixtures("_pyspark")
def test_without_java_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs Java 17 or later, and none is found\. .* openjdk-17-jre-headless"):
        require_spark()


@pytest.mark.usefixtures("_pyspark")
@pytest.mark.parametrize(("version", "shown"), [("1.8.0_412", 8), ("11.0.23", 11)])
def test_an_old_java_is_refused(version: str, shown: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"Java must be 17 or later for --engine spark, got {shown}\. .*JAVA_HOME"):
        require_spark()


@pytest.mark.usefixtures("_pyspark")
@pytest.mark.parametrize("version", ["17.0.15", "21-ea"])
def test_a_new_java_is_taken(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    require_spark()


@engines
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of py4j
def test_a_session_with_another_master_is_not_replaced(spark: object, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"--spark-master must be local\[2\], where a session .*, got 'local\[3\]'"),
        spark_session("local[3]", tmp_path),
    ):
        raise AssertionError


def command(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "athwe_cli",
            "prepare",
            "--dataset",
            "toy",
            "--raw",
            "log.csv",
            "--engine",
            "spark",
            *more,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@engines
def test_the_terminal_shows_one_error_line_and_nothing_of_spark(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    process = command(tmp_path, "--spark-master", "nowhere")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    lines = [line for line in err.splitlines() if not re.match("data set toy|source table", line)]
    rule = "error: --spark-master must be the URL of a Spark master, got 'nowhere'"
    assert lines == [f"{rule}. E.g. --spark-master spark://host:7077, or local[2]"]
    assert not (tmp_path / "prepared" / "toy").exists()


@engines
def test_a_kill_leaves_the_old_version_and_the_next_command_tidies_up(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    prepared = tmp_path / "prepared"
    old = prepare("toy", data_dir=tmp_path, prepared_dir=prepared, raw=[tmp_path / "log.csv"])
    process = command(tmp_path, "--tie-order", "item", "--spark-master", "local[2]")
    end = time.monotonic() + 300
    while not list(prepared.glob("toy/.unfinished-*/keyed")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert current_version("toy", prepared_dir=prepared) == old.version
    again = command(tmp_path, "--tie-order", "item", "--spark-master", "local[2]")
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert not re.search(r"WARN|INFO|log4j|SLF4J", out + err)
    new = current_version("toy", prepared_dir=prepared)
    assert new != old.version
    assert sorted(path.name for path in (prepared / "toy").iterdir()) == sorted([old.version, str(new), "current"])
