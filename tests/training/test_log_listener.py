import logging

import pytest

from athwe_core.training.log_listener import LogListener


def test_each_epoch_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    listener = LogListener()
    record = {
        "epoch": 2,
        "losses": {"ce": 5.25, "total": 6.5},
        "selection_metric": "mrr@10",
        "validation": {"mrr@10": 0.03125, "ndcg@10": 0.5},
        "seconds": 12.34,
    }
    with caplog.at_level(logging.INFO, logger="athwe"):
        listener.epoch_begins(2, epochs=9, steps=4, done=0, best=None)
        listener.step_ends(1, {"ce": 5.0})
        listener.epoch_ends(record, is_best=True)
        listener.epoch_ends(record, is_best=False)
    line = "epoch 2 of at most 9: ce 5.2500, total 6.5000; validation mrr@10 0.0312{}; 12.3 s"
    assert caplog.messages == [line.format(" (best)"), line.format("")]
    assert {(one.name, one.levelname) for one in caplog.records} == {("athwe", "INFO")}
