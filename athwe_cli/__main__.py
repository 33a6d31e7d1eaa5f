"""`python -m athwe_cli` and the console script `athwe`."""

import os

# Read when torch loads its thread pool (libgomp, Linux). Threads that wait for each other spin briefly, then sleep: with two
# other processes on the two cores a step took 0.28 s instead of 0.46 s; on a quiet machine 0.13 s against 0.11 s in one pair,
# within its drift. Sleeping at once (OMP_WAIT_POLICY=PASSIVE) took 0.17 s there.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from athwe_cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="athwe")


if __name__ == "__main__":
    main()
