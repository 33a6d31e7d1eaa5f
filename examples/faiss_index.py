"""A faiss index over exported item vectors, and its top items for exported users: the same as a search of all items.

    athwe export --run last --to vectors --format vectors
    python examples/faiss_index.py vectors

Needs: pip install 'athwe[faiss]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

import faiss
import numpy as np
import polars as pl


def main(folder: Path, k: int = 10) -> None:
    """Build the index, search it for the first users, and compare with all products."""
    items, users = (np.load(folder / name, allow_pickle=False) for name in ("items.npy", "users.npy"))
    users = users[:100]
    index = faiss.IndexFlatIP(items.shape[1])  # exact; for millions of items an approximate one, e.g. IndexHNSWFlat
    index.add(items)
    faiss.write_index(index, str(folder / "items.faiss"))
    scores, found = index.search(users, k)
    every = users @ items.T
    expected = np.sort(every, axis=1)[:, ::-1][:, :k]
    assert np.allclose(scores, expected, atol=1e-4), "the index and the products differ"
    assert np.allclose(np.take_along_axis(every, found, axis=1), expected, atol=1e-4)
    item_ids, user_ids = (pl.read_parquet(folder / f"{name}s.parquet")[f"{name}_id"] for name in ("item", "user"))
    print(f"{len(items):,} items indexed; the top {k} of {len(users)} users equal a search of all items")
    print(f"user {user_ids[0]}: {', '.join(item_ids.gather(found[0]))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
