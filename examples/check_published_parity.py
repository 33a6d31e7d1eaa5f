"""Print the largest difference between a published network's recorded outputs and ours.

    python examples/check_published_parity.py tests/golden/hm4sr.npz
    python examples/check_published_parity.py tests/golden/SASRec.npz --model sasrec

Reads any .npz file with the entries `w.*` (published weights), `in.*` (inputs) and `out.*` (outputs), for some models also
`cfg.*` (settings). The exit code is 1 where a difference is above its tolerance: 1e-4 for states and losses, 1e-3 for scores,
unless the model sets its own.
"""

import argparse
import sys
from pathlib import Path

from athwe_core.errors import AthweError
from athwe_core.models.parity import parity_differences, tolerance_of
from athwe_core.models.registry import DEFAULT_MODEL


def main() -> int:
    """Print one line per output; return 1 where one is above its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="golden .npz file")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model of the file (default: HM4SR and ATHWE)")
    given = parser.parse_args()
    try:
        differences = parity_differences(given.file, given.model)
    except AthweError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    worst = 0
    for name, difference in sorted(differences.items()):
        tolerance = tolerance_of(given.model, name)
        within = difference <= tolerance
        worst |= not within
        print(f"{name:28} {difference:9.2e}  {'ok' if within else f'above {tolerance:g}'}")
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
