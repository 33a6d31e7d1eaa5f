import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from athwe_core.warning_filters import warnings_as


def test_warnings_are_raised_or_ignored_within_the_block() -> None:
    before = list(warnings.filters)
    with warnings_as("error"), pytest.raises(UserWarning, match="a"):
        warnings.warn("a", stacklevel=1)
    with warnings_as("error"), warnings_as("ignore", "a"):
        warnings.warn("abc", stacklevel=1)
        with pytest.raises(UserWarning, match="b"):
            warnings.warn("b", stacklevel=1)
    assert list(warnings.filters) == before


def test_blocks_of_two_threads_leave_the_filters_as_they_were() -> None:
    """The first to begin ends while the second waits; with catch_warnings alone the second would keep the first one's."""
    before = list(warnings.filters)
    first_is_inside, second_tries = threading.Event(), threading.Event()

    def first() -> None:
        with warnings_as("error"):
            first_is_inside.set()
            assert second_tries.wait(60)

    def second() -> None:
        assert first_is_inside.wait(60)
        threading.Timer(0.2, second_tries.set).start()  # by then this thread is at the door
        with warnings_as("ignore"):
            assert warnings.filters[0][0] == "ignore"
            assert not any(each[0] == "error" and each[2] is Warning for each in warnings.filters[1:2])

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(first), pool.submit(second)]:
            each.result(60)
    assert list(warnings.filters) == before
