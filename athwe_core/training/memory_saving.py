"""Saving memory in a step without changing its result: smaller catalogue chunks, activation checkpointing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.checkpoint import checkpoint

from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS
from athwe_core.models.protocol import Model
from athwe_core.nn.dropout import replayed_dropout


@dataclass(frozen=True)
class MemorySaving:
    """How a step saves memory."""

    chunk_elements: int
    """Most catalogue scores held at a time."""
    recomputes: bool
    """Stages of the model keep their inputs only and are computed again in the backward pass, with the same dropout."""
    what: str
    """Description for messages."""


LEVELS = (
    MemorySaving(CHUNK_ELEMENTS, False, "nothing saved"),
    MemorySaving(CHUNK_ELEMENTS // 8, False, "smaller catalogue chunks"),
    MemorySaving(CHUNK_ELEMENTS // 64, True, "still smaller catalogue chunks and activations computed twice"),
)
"""From no saving to all of it; each level is slower than the one before."""


@contextmanager
def saving_memory(model: Model, memory_saving: MemorySaving) -> Iterator[None]:
    """Enable activation checkpointing for a forward pass; its backward pass may come after. Losses get the chunk size."""
    stages = model.recompute_stages() if memory_saving.recomputes else ()
    for stage in stages:
        stage.forward = _recomputed(stage.forward)
    try:
        yield
    finally:
        for stage in stages:
            del stage.forward


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    # torch restores its default generators before it computes again; replayed_dropout does it for the generator of the step
    return functools.partial(checkpoint, forward, use_reentrant=False, context_fn=replayed_dropout)
