import sys

import pytest

from athwe_core.training.memory import release_free_memory


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
