"""Many cases of one target: how long one may take, what a refusal must say, and how often each outcome came."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from athwe_core.errors import AthweError

FEW, MANY = 25, 10_000
few_and_many = pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
"""Some cases, always the same ones; by hand 10,000 new ones: pytest -m slow -k fuzz."""


class HangError(Exception):
    """A case took longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[list[int]]:
    """Raise HangError in the case that takes more of the processor, or 20 times as long on the clock of a busy machine.

    Yields: the signals that have come, for a case that swallows every exception.
    """
    rung: list[int] = []

    def ring(number: int, _frame: FrameType | None) -> NoReturn:
        rung.append(number)
        raise HangError(f"a case took more than {seconds} s")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 20 * seconds))
    before = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, most in timers:
        signal.setitimer(timer, most)
    try:
        yield rung
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def fuzz(
    check: Callable[[Any], str], case: st.SearchStrategy[Any], *, cases: int, seconds: float = 5.0
) -> Counter[str]:
    """Check so many cases; how often each label came that `check` returns. The few cases are the same in every run."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=cases,
        derandomize=cases < MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(case)
    def run(drawn: Any) -> None:
        with time_limit(seconds):
            outcomes[check(drawn)] += 1

    run()
    print(dict(outcomes))
    return outcomes


def assert_told(error: AthweError, *, place: str = "") -> None:
    """A refusal names a place and a rule in one short line that a terminal can show."""
    text = str(error)
    assert place in text, text
    assert error.name.strip(), text
    assert error.rule.strip(), text
    assert error.remedy or error.rule.startswith(("must", "is no", "is missing")), text
    assert text.isprintable(), ascii(text)
    assert len(text) < 2000, f"{len(text)} characters: {text[:200]}"
    text.encode("utf-8")


@st.composite
def mutated(draw: st.DrawFn, content: bytes, *, most: int = 4) -> bytes:
    """The content after 1 to `most` changes: bytes flipped, set, put in, taken out, repeated, or the end cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        here = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "set", "insert", "remove", "repeat", "cut")))
        if kind == "flip" and changed:
            changed[here] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and changed:
            changed[here] = draw(st.integers(0, 255))
        elif kind == "insert":
            changed[here:here] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "remove":
            del changed[here : here + draw(st.integers(1, 8))]
        elif kind == "repeat":
            changed[here:here] = changed[here : here + draw(st.integers(1, 64))]
        elif kind == "cut":
            del changed[here:]
    return bytes(changed)
