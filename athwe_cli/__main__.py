"""`python -m athwe_cli` and the console script `athwe`."""

import os

# Read when torch loads its thread pool (libgomp, Linux). Threads that wait for each other spin briefly, then sleep. A step on
# two cores, alone and beside a process that keeps one busy: 0.103 and 0.20 s at 2,000 turns, 0.097 and 0.23 s at 5,000, 0.094
# and 0.29 s at 10,000, 0.67 s beside it at 50,000 (tests/benchmarks/README.md).
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from athwe_cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="athwe")


if __name__ == "__main__":
    main()
