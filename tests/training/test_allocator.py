import sys

import pytest

from athwe_core.training import allocator
from athwe_core.training.allocator import KEPT_BYTES, HeapTrimmer, release_free_memory


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries have no malloc_trim")
def test_what_was_freed_goes_back_to_the_system() -> None:
    kept = [bytearray(60_000) for _ in range(4000)]  # below the size that is mapped on its own: 240 MB of heap
    full = resident_bytes()
    del kept[:-1]  # the last one holds the end of the heap, so nothing goes back by itself
    release_free_memory()
    assert full - resident_bytes() > 150e6


def test_growth_is_given_back_when_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([10, KEPT_BYTES, KEPT_BYTES + 11, 50, KEPT_BYTES + 50, KEPT_BYTES + 51, 60])
    released: list[bool] = []
    monkeypatch.setattr(allocator, "resident_bytes", lambda: next(sizes))
    monkeypatch.setattr(allocator, "release_free_memory", lambda: released.append(True))
    trimmer = HeapTrimmer()
    counts = []
    for _ in range(5):  # first look, a little, too much and 50 after it, just as much as may be, one more
        trimmer.look()
        counts.append(len(released))
    assert counts == [0, 0, 1, 1, 2]


def test_where_the_system_does_not_say_each_look_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[bool] = []
    monkeypatch.setattr(allocator, "resident_bytes", lambda: None)
    monkeypatch.setattr(allocator, "release_free_memory", lambda: released.append(True))
    HeapTrimmer().look()
    assert released == [True]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no /proc")
def test_resident_bytes_are_those_of_this_process() -> None:
    found = allocator.resident_bytes()
    assert found is not None
    assert abs(found - resident_bytes()) < 50e6
