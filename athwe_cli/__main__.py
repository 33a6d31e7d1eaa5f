"""`python -m athwe_cli` and the console script `athwe`."""

import os

# Read when torch loads its thread pool (libgomp, Linux). Threads that wait for each other spin briefly, then sleep: where
# other work shares the two cores a step took 0.3 s instead of 0.6 to 2.4 s; on a quiet machine nothing is lost, where
# sleeping at once (OMP_WAIT_POLICY=PASSIVE) would cost 40 %.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from athwe_cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="athwe")


if __name__ == "__main__":
    main()
