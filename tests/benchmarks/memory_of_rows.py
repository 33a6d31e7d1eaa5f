"""Memory that a process of a run takes for the interactions, by stage.

    python tests/benchmarks/memory_of_rows.py --users 5000000 --to FOLDER

Generates a prepared data set with 5 to 15 interactions a user, or takes the one that is there. For each stage: bytes that
are allocated at the peak and afterwards (`tracemalloc`), and the pages of files that the process has mapped (`RssFile`).
"""

import argparse
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from athwe_core.data.rows import epoch_batches, evaluation_rows, training_rows
from athwe_core.data.store.dataset import PreparedDataset, open_prepared
from athwe_core.data.store.schema import save_arrays, write_manifest
from athwe_core.models.inputs import target_counts, training_time_range

NAME, VERSION = "generated", "0" * 12
LENGTH = 50


def generate(folder: Path, num_users: int, num_items: int) -> None:
    """Write a prepared version."""
    rng = np.random.default_rng(0)
    path = folder / NAME / VERSION
    path.mkdir(parents=True)
    lengths = rng.integers(5, 16, num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    count = int(offsets[-1])
    place = np.arange(count) - np.repeat(offsets[:-1], lengths)
    arrays: dict[str, Any] = {
        "offsets": offsets,
        "item_ids": rng.integers(1, num_items + 1, count, dtype=np.int32),
        "timestamps": 1_000_000_000 + 3600 * place,
    }
    save_arrays(path, arrays, half_features=False)
    pl.DataFrame({"user_id": pl.int_range(num_users, eager=True).cast(pl.String)}).write_parquet(path / "users.parquet")
    pl.DataFrame({"item_id": pl.int_range(num_items + 1, eager=True).cast(pl.String)}).write_parquet(
        path / "items.parquet"
    )
    statistics = {"users": num_users, "items": num_items, "interactions": count, "tie_order": "file"}
    write_manifest(
        path,
        {
            "version": VERSION,
            "options": {},
            "arrays": {name: list(array.shape) for name, array in arrays.items()},
            "notes": [],
            "category_names": [],
            "statistics": {**statistics, "features": {}, "notes": []},
        },
    )


def file_pages() -> int:
    """Bytes of files that this process has mapped and in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))


def main() -> None:
    """Print a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    if not (given.to / NAME).is_dir():
        generate(given.to, given.users, given.items)
    held: dict[str, Any] = {}
    stages: dict[str, Callable[[], Any]] = {
        "open": lambda: open_prepared(NAME, prepared_dir=given.to),
        "split": lambda: held["open"].split,
        "counts, times": lambda: (target_counts(held["open"]), training_time_range(held["open"])),
        "rows of an epoch": lambda: training_rows(held["open"].split, batching="packed", max_length=LENGTH),
        "order of an epoch": lambda: epoch_batches(
            held["rows of an epoch"], batch_targets=1024, rng=np.random.default_rng(0)
        ),
        "rows to rank": lambda: evaluation_rows(held["open"].split, "test", max_length=LENGTH),
    }
    tracemalloc.start()
    print("stage               peak, bytes a user    kept    file pages, MB")
    for name, stage in stages.items():
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        held[name] = stage()
        after, peak = tracemalloc.get_traced_memory()
        data: PreparedDataset = held["open"]
        users = data.num_users
        line = f"{(peak - before) / users:21.1f} {(after - before) / users:8.1f} {file_pages() / 1e6:17.0f}"
        print(f"{name:18} {line}")
    print(f"{users:,} users, {len(data.item_ids):,} interactions, {data.num_items:,} items")


if __name__ == "__main__":
    main()
