"""Lines of training fit into 80 columns and name what the epoch came to."""

import io
from typing import Any

import pytest
from rich.console import Console

from athwe_cli.render import Output
from athwe_cli.training_display import TrainingDisplay, duration, short_duration


def shown(*, is_terminal: bool, validation: dict[str, float]) -> str:
    """What two epochs of an endless, slow run print."""
    output = Output(as_json=False)
    output.err = Console(file=io.StringIO(), force_terminal=is_terminal, width=80, highlight=False)
    display = TrainingDisplay(output)
    losses = {"ce": 10.1234, "cp": 1.0, "idcl": 5.5, "pcl": 6.2, "total": 122.8234}
    for epoch, best in ((99, None), (100, 0.0402)):
        display.epoch_begins(epoch, epochs=200, steps=9999, done=0, best=best)
        display.step_ends(5000, losses)
        if is_terminal:
            assert display._progress is not None
            display._progress.refresh()
        record: dict[str, Any] = {"epoch": epoch, "seconds": 415.23, "validation_seconds": 20.0, "losses": losses}
        display.epoch_ends(record | {"validation": validation, "selection_metric": "ndcg@20"}, is_best=epoch == 99)
    return output.err.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_has_time_loss_metric_and_the_best_in_80_columns() -> None:
    lines = shown(is_terminal=False, validation={"ndcg@20": 0.0398}).splitlines()
    assert lines == [
        "epoch  99/200  415.2 s, <13h left  loss 122.82  NDCG@20 0.0398 (best)",
        "epoch 100/200  415.2 s, <13h left  loss 122.82  NDCG@20 0.0398 (best 0.0402)",
    ]
    assert max(map(len, lines)) <= 80


def test_the_bar_of_a_terminal_fits_too() -> None:
    text = shown(is_terminal=True, validation={"ndcg@20": 0.0398})
    bars = [line for line in text.replace("\r", "\n").splitlines() if "5000/9999" in line]
    assert bars
    assert "loss 122.82" in bars[0]
    assert "best 0.0402" in bars[-1]


def test_without_held_out_items_the_line_says_so() -> None:
    assert shown(is_terminal=False, validation={}).count("nothing held out") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5300, "88 min"), (5400, "1 h 30 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "1s"), (89, "89s"), (91, "2min"), (5399, "90min"), (5400, "2h"), (12_000, "4h")]
)
def test_short_durations_are_the_next_whole_unit(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text
