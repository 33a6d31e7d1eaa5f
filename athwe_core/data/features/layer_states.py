"""States of an encoder's layers, for models that adapt to frozen encoders (IISAN)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float32
from numpy import ndarray

from athwe_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def pooled_layers(
    hidden_states: Sequence[Tensor] | None, layers: Sequence[int], pool: Callable[[Tensor], Tensor], *, option: str
) -> list[Tensor]:
    """One vector for each chosen layer.

    Args:
        hidden_states: (n, t, F) states of a batch: the embedding output, then each layer's.
        layers: which of them, 0 = the embedding output.
        pool: (n, t, F) to (n, F).
        option: The option that named the layers, for messages.
    Raises:
        ConfigError: The encoder has fewer layers, or no states of that shape.
    """
    if not hidden_states or any(states.ndim != 3 for states in hidden_states):
        raise ConfigError(
            option, "needs an encoder that is a Transformer", remedy="Leave it out, or name another encoder"
        )
    last = len(hidden_states) - 1
    if max(layers) > last:
        raise ConfigError(option, f"must be in 0..{last}, the layers of the encoder", max(layers))
    return [pool(hidden_states[layer]).float() for layer in layers]


def split_layers(
    rows: Float32[ndarray, "n W"], num_layers: int, width: int
) -> tuple[Float32[ndarray, "n F"], Float32[ndarray, "n S F2"] | None]:
    """Vectors and layer states that were computed side by side.

    Args:
        rows: A vector of `width` numbers, then the states of each layer.
        num_layers: S.
        width: F.
    """
    if num_layers == 0:
        return rows, None
    return rows[:, :width].copy(), rows[:, width:].reshape(len(rows), num_layers, -1)
