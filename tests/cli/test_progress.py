"""Progress of `prepare` where there is no terminal: a line from time to time, and none for short work."""

import io

import pytest

from athwe_cli import progress
from athwe_cli.progress import ReadingDisplay, WorkDisplay
from athwe_cli.render import Output, SafeConsole


class Clock:
    """`time.monotonic` that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def output() -> Output:
    output = Output(as_json=True)
    output.err = SafeConsole(file=io.StringIO(), width=80)
    return output


def lines(output: Output) -> list[str]:
    return output.err.file.getvalue().splitlines()


def test_short_reading_says_nothing(output: Output, clock: Clock) -> None:
    display = ReadingDisplay(output)
    display(5, 10)
    clock.now += 0.5
    display(10, 10)
    assert lines(output) == []


def test_long_reading_has_a_line_from_time_to_time(output: Output, clock: Clock) -> None:
    display = ReadingDisplay(output)
    for megabytes in (100, 200, 300):
        clock.now += 15
        display(megabytes * 10**6, 600 * 10**6)
    assert lines(output) == ["read 200 of 600 MB, 60 s left"]


def test_work_names_what_begins_its_rate_and_its_end(output: Output, clock: Clock) -> None:
    display = WorkDisplay(output)
    assert not display.has_worked
    display("encode texts", 0, 1000, 0.0)
    clock.now += 21
    display("encode texts", 420, 1000, 20.0)
    clock.now += 1
    display("encode texts", 430, 1000, 20.0)
    display("encode texts", 1000, 1000, 20.0)
    display("cluster", 0, 0, 0.0)
    assert display.has_worked
    assert lines(output) == [
        "encode texts",
        "encode texts: 420 of 1,000, 20/s, 29 s left",
        "encode texts: 1,000 of 1,000, 20/s",
        "cluster",
    ]


def test_slow_work_shows_tenths(output: Output, clock: Clock) -> None:
    display = WorkDisplay(output)
    display("download", 0, 10, 0.0)
    clock.now += 30
    display("download", 4, 10, 0.25)
    assert lines(output)[-1] == "download: 4 of 10, 0.2/s, 24 s left"
