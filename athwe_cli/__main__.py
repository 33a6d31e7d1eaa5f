"""Entry point of `python -m athwe_cli` and of the console script `athwe`."""

import os

# libgomp (Linux) reads this when torch loads: the turns that a waiting thread spins before it sleeps. Seconds per step on two
# cores, alone and next to another busy process: 0.103 and 0.20 at 2,000 turns, 0.097 and 0.23 at 5,000, 0.094 and 0.29 at
# 10,000, 0.67 next to it at 50,000 (tests/benchmarks/README.md).
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from athwe_cli.app import app
from athwe_core.training.allocator import keep_freed_memory


def main() -> None:
    """Run the command line."""
    keep_freed_memory()  # a step takes memory from the system once, not each time; worth it for a process of athwe's own
    app(prog_name="athwe")


if __name__ == "__main__":
    main()
