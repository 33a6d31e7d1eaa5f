"""Vectors of the attributes of items, such as their categories or their brand (NOVA, DIF-SR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.batch import Attribute


class AttributeEmbeddings(nn.Module):
    """One table of vectors for each attribute.

        a_v = E[value of v]                                 an attribute with one value; an item without has E[0]
        a_v = sum or mean of E[c] over the values c of v    an attribute with several; an item without has 0

    Args:
        attributes: which items have which values; they belong to the data set and are not saved with the weights.
        sizes: width of the vectors of each attribute.
        pooling: how the vectors of several values become one.
    Source: DIF-SR (Xie et al., SIGIR 2022), as published.
    """

    def __init__(
        self, attributes: Sequence[Attribute], *, sizes: Sequence[int], pooling: Literal["sum", "mean"]
    ) -> None:
        super().__init__()
        self.pooling = pooling
        # Parameters, which the model initialises.
        self.tables = nn.ParameterList(
            nn.Parameter(torch.empty(attribute.num_values, size))
            for attribute, size in zip(attributes, sizes, strict=True)
        )
        for number, attribute in enumerate(attributes):
            self.register_buffer(f"values_{number}", attribute.values, persistent=False)

    def forward(self, items: Int64[Tensor, " T"]) -> list[Float[Tensor, "T _"]]:
        """Look up.

        Args:
            items: ids in 0..V-1.
        Returns: for each attribute the vectors of these items.
        """
        return [self._look_up(self.get_buffer(f"values_{n}")[items], table) for n, table in enumerate(self.tables)]

    def _look_up(self, values: Tensor, table: Tensor) -> Tensor:
        if values.ndim == 1:
            return F.embedding(values, table)
        return F.embedding_bag(values, table, mode=self.pooling, padding_idx=0)
