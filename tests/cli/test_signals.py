"""The first signal is recorded, the second one has its usual effect, and the handlers of before come back."""

import os
import signal

import pytest

from athwe_cli.signals import noted_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> object:
    """The handlers of this process, put back after each test."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_recorded_and_the_second_one_ends_the_process(number: signal.Signals) -> None:
    with noted_signals() as received:
        assert received == []
        os.kill(os.getpid(), number)
        assert received == [number]
        assert [signal.getsignal(each) for each in NUMBERS] == [signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.parametrize("keep_after_error", [False, True])
def test_the_handlers_of_before_come_back(keep_after_error: bool, handlers: dict[signal.Signals, object]) -> None:
    with noted_signals(keep_after_error=keep_after_error):
        assert all(signal.getsignal(number) != handler for number, handler in handlers.items())
    assert {number: signal.getsignal(number) for number in NUMBERS} == handlers


@pytest.mark.parametrize("keep_after_error", [False, True])
def test_after_an_error_signals_are_recorded_on_request(
    keep_after_error: bool, handlers: dict[signal.Signals, object]
) -> None:
    with pytest.raises(RuntimeError), noted_signals(keep_after_error=keep_after_error) as received:
        raise RuntimeError
    is_restored = {number: signal.getsignal(number) for number in NUMBERS} == handlers
    assert is_restored is not keep_after_error
    if keep_after_error:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
