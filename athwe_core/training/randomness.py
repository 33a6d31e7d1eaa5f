"""Random generators whose seeds derive from (purpose, epoch, step): a resumed run draws the same, with nothing to save."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
import torch

from athwe_core.nn.dropout import dropout_generator


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


def default_generators_kept() -> AbstractContextManager[None]:
    """Restore torch's default generators at the end, or leave that to another thread that is still inside."""
    return _default_generators.kept()


@contextmanager
def seeded_dropout(seed: int) -> Iterator[None]:
    """Seed every generator that a step may draw dropout from; torch's default generators are afterwards as before.

    On a CPU `athwe_core.nn.dropout` draws from a generator of this thread alone, so that steps in several threads at once
    draw what each alone would draw. CUDA, compiled code and the layers of torch draw from torch's default generators.

    Args:
        seed: of the step.
    """
    with default_generators_kept(), dropout_generator(torch.Generator().manual_seed(seed)):
        _seed_default_generators(seed)
        yield


class _DefaultGenerators:
    """torch's default generators belong to the whole process: the first thread saves them, the last one restores them."""

    def __init__(self) -> None:
        self._lock, self._inside, self._saved = threading.Lock(), 0, ExitStack()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """See `default_generators_kept`."""
        with self._lock:
            if self._inside == 0:
                self._saved.enter_context(torch.random.fork_rng(_cuda_devices()))
                self._saved.enter_context(_kept_mps_generator())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._saved.close()


def _seed_default_generators(seed: int) -> None:
    """`torch.manual_seed`, which takes longer: without a CUDA device it formats the stack of calls each time."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def _cuda_devices() -> list[int]:
    """The devices that have a generator already."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


@contextmanager
def _kept_mps_generator() -> Iterator[None]:
    """Apple's GPU, which `torch.random.fork_rng` leaves out."""
    if not torch.backends.mps.is_available():
        yield
        return
    state = torch.mps.get_rng_state()
    try:
        yield
    finally:
        torch.mps.set_rng_state(state)


_default_generators = _DefaultGenerators()
