"""Randomness keyed by what it is for: nothing to save, and a resumed run draws what it would have drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def keyed_seed(seed: int, *key: int | str) -> int:
    """A 63-bit seed that depends on the run's seed and on the whole key, e.g. ("dropout", epoch, step)."""
    text = "/".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_rng(seed: int, *key: int | str) -> np.random.Generator:
    """A numpy generator for the key."""
    return np.random.default_rng(keyed_seed(seed, *key))


def keyed_generator(seed: int, *key: int | str) -> torch.Generator:
    """A torch CPU generator for the key."""
    return torch.Generator().manual_seed(keyed_seed(seed, *key))
