"""A run that exists and has trained nothing, and a training that only reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tracking_harness import RESULTS, Silent, record

from athwe_core.runs.find import FINISHED, RunFolder, create_run
from athwe_core.training.tracking.listener import tracked


@pytest.fixture
def run(tmp_path: Path, make_config: Callable[..., Any], prepared: Any) -> RunFolder:
    config = make_config("sasrec", "training.device=cpu")
    return create_run(tmp_path / "runs", config, prepared, preset="sasrec", name="a", command="athwe train")


@pytest.fixture
def train(run: RunFolder) -> Callable[..., list[str]]:
    """Record epochs with a tracker, as training would; then the run is finished, or was interrupted. Gives the notes."""

    def report(tracker: str, epochs: range, *, finished: bool) -> list[str]:
        notes: list[str] = []
        with tracked(Silent(), [tracker], run, notify=notes.append) as listener:
            for epoch in epochs:
                listener.epoch_ends(record(epoch), is_best=True)
            if finished:
                run.update_manifest(status=FINISHED, results=RESULTS)
        return notes

    return report
