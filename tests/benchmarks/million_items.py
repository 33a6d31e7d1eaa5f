"""A step with the sampled loss on many items, and their ranking: python tests/benchmarks/million_items.py --help."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from athwe_core.analysis.benchmark.scaling import START, measure
from athwe_core.models.registry import build_config, replace_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--preset", default="sasrec")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    config = replace_in(build_config(args.preset), [f"training.device={args.device}"])
    point = replace(START, items=args.items, users=args.users, loss="sampled")
    found = measure(config, point, feature_width=256, steps=args.steps)
    print(json.dumps({"preset": args.preset, "items": args.items, **found}))


if __name__ == "__main__":
    main()
