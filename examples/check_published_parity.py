"""Print the largest difference between a published network's recorded outputs and ours.

    python examples/check_published_parity.py tests/golden/hm4sr.npz

Reads any .npz file with the entries `w.*` (published weights), `in.*` (inputs) and `out.*` (outputs). The exit code is 1
where a difference is above its tolerance: 1e-4 for states and losses, 1e-3 for scores.
"""

import argparse
import sys
from pathlib import Path

from athwe_core.errors import AthweError
from athwe_core.models.athwe.parity import parity_differences

TOLERANCE = {"scores": 1e-3}
DEFAULT_TOLERANCE = 1e-4


def main() -> int:
    """Print one line per output; return 1 where one is above its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="golden .npz file")
    try:
        differences = parity_differences(parser.parse_args().file)
    except AthweError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    worst = 0
    for name, difference in sorted(differences.items()):
        tolerance = TOLERANCE.get(name, DEFAULT_TOLERANCE)
        within = difference <= tolerance
        worst |= not within
        print(f"{name:24} {difference:9.2e}  {'ok' if within else f'above {tolerance:g}'}")
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
