"""One Spark session for all tests of this folder, small and quick to start."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare


@pytest.fixture(scope="session")
def session() -> Iterator[Any]:
    from athwe_core.data.spark.session import spark_session

    settings = {
        "spark.sql.adaptive.enabled": "false",  # else small tables would have one partition, whatever is set
        "spark.sql.codegen.wholeStage": "false",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(
            "PYSPARK_SUBMIT_ARGS", " ".join(f"--conf {k}={v}" for k, v in settings.items()) + " pyspark-shell"
        )
        with spark_session("local[2]", Path("/tmp")) as spark:
            yield spark


@pytest.fixture
def spark(session: Any) -> Any:
    """The session with 3 partitions a shuffle."""
    session.conf.set("spark.sql.shuffle.partitions", 3)
    return session


Both = Callable[..., tuple[PreparedDataset, PreparedDataset]]


@pytest.fixture
def both(tmp_path: Path, spark: Any) -> Both:
    """Prepare files with the local engine and with Spark."""

    def run(*raw: Path, name: str = "toy", item_file: Path | None = None, **options: Any) -> Any:
        found = []
        for engine in ("local", "spark"):
            notes: list[str] = []
            prepared = prepare(
                name,
                data_dir=tmp_path / "dataset",
                prepared_dir=tmp_path / engine,
                options=PrepareOptions(**options),
                raw=raw,
                item_file=item_file,
                engine=engine,  # type: ignore[arg-type]
                notify=notes.append,
            )
            found.append((prepared, notes))
        (local, local_notes), (by_spark, spark_notes) = found
        assert spark_notes == local_notes
        return local, by_spark

    return run
