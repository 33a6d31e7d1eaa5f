"""Largest difference between the published networks' recorded outputs and ours.

    python examples/check_published_parity.py tests/golden/hm4sr.npz

Reads any .npz with `w.*` (published weights), `in.*` and `out.*` entries. Exit code 1 above tolerance: 1e-4 on states
and losses, 1e-3 on scores.
"""

import argparse
import sys
from pathlib import Path

from athwe_core.errors import AthweError
from athwe_core.models.athwe.parity import parity_differences

TOLERANCE = {"scores": 1e-3}
DEFAULT_TOLERANCE = 1e-4


def main() -> int:
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
