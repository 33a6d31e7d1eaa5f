"""One line each for what goes wrong in Spark, from messages as Spark has them."""

import pytest

from athwe_core.data.spark.failures import explained, explained_failures, explained_start
from athwe_core.errors import AthweError, ConfigError, DataError

LOST = """An error occurred while calling o85.parquet.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 3.0 failed 4 times, most recent failure:
Lost task 1.3 in stage 3.0 (TID 12) (10.0.0.2 executor 3): ExecutorLostFailure (executor 3 exited caused by one of the running
tasks) Reason: Remote RPC client disassociated. Likely due to containers exceeding thresholds, or network issues."""
FULL = "Caused by: java.io.IOException: No space left on device\n\tat java.base/java.io.FileOutputStream.writeBytes"
MEMORY = "org.apache.spark.SparkException: Job aborted.\nCaused by: java.lang.OutOfMemoryError: Java heap space\n"
MODULE = "pickle error\nModuleNotFoundError: No module named 'athwe_core'\n"
URL = "org.apache.spark.SparkException: Could not parse Master URL: 'foo'"
SILENT = "java.lang.IllegalStateException: Spark context stopped while waiting for backend"
OTHER = "An error occurred.\norg.apache.spark.SparkException: Job aborted.\nCaused by: java.io.EOFException: footer is cut\n"


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        (LOST, AthweError, "Spark (spark://m:7077) lost an executor more often than it tries again"),
        (FULL, DataError, "Spark (spark://m:7077) found a disk full (No space left on device)"),
        (MEMORY, AthweError, "Spark (spark://m:7077) ran out of memory"),
        (MODULE, ConfigError, "Spark (spark://m:7077) has workers whose Python has no athwe"),
        (URL, ConfigError, "--spark-master must be the URL of a Spark master, got 'spark://m:7077'"),
        (SILENT, AthweError, "--spark-master must be a master that answers, got 'spark://m:7077'"),
        (OTHER, AthweError, "Spark (spark://m:7077) stopped with an error (EOFException: footer is cut)"),
    ],
)
def test_each_has_its_line(text: str, kind: type[AthweError], line: str) -> None:
    found = explained(text, "spark://m:7077")
    assert type(found) is kind
    assert str(found).startswith(line)
    assert "\n" not in str(found)


def test_errors_of_other_libraries_and_of_athwe_pass() -> None:
    with pytest.raises(ZeroDivisionError), explained_failures("local[2]"):
        _ = 1 / 0
    with pytest.raises(DataError, match="a b"), explained_failures("local[2]"):
        raise DataError("a", "b")
    with (
        pytest.raises(AthweError, match=r"Spark \(local\[2\]\) stopped with an error \(refused\)"),
        explained_failures("local[2]"),
    ):
        raise ConnectionRefusedError("refused")  # its Java process is gone


SUBMIT = """Exception in thread "main"
org.apache.spark.SparkException: Master must either be yarn or start with spark, k8s, or local
\tat org.apache.spark.deploy.SparkSubmit.error(SparkSubmit.scala:1059)
"""


def test_a_java_process_that_does_not_start_tells_why() -> None:
    assert str(explained_start(SUBMIT, "nowhere")).startswith(
        "--spark-master must be the URL of a Spark master, got 'nowhere'"
    )
    text = "Error occurred during initialization of VM\nError: Could not reserve enough space\n\tat nothing\n"
    line = "Spark could not be started (Error: Could not reserve enough space). Check JAVA_HOME, SPARK_HOME"
    assert str(explained_start(text, "local[2]")).startswith(line)
