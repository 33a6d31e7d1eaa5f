"""Item tables: one row per item, one block per modality (HM4SR 4.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

RESIDENT_BYTES = 2**30
"""Features of one modality beyond this stay where they are, in a mapped file say, and are fetched as they are needed."""
_ROWS_AT_ONCE = 2**16


class _TableAndRows(torch.autograd.Function):
    """A table and some of its rows, whose gradient is added to the table's: no table of zeros, no sum of two tables."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows)
        ctx.set_materialize_grads(False)
        ctx.like = table.new_empty(0), table.shape
        return table.view_as(table), table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, table_grad: Tensor | None, row_grad: Tensor | None) -> tuple[Tensor | None, None]:
        if row_grad is None:
            return table_grad, None
        if table_grad is None:
            like, shape = ctx.like
            table_grad = like.new_zeros(shape)
        return table_grad.index_add(0, ctx.saved_tensors[0], row_grad), None


def table_and_rows(
    table: Float[Tensor, "V K"], rows: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, "V K"], Float[Tensor, "n K"]]:
    """The table, to be read from here on, and `table[rows]`."""
    return _TableAndRows.apply(table, rows)


def linear(layer: nn.Linear, x: Float[Tensor, "n F"], dtype: torch.dtype) -> Float[Tensor, "n D"]:
    """The layer with its product in `dtype`, which the result has too."""
    return F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))


class ItemTables(nn.Module):
    """Id embeddings and projected frozen features, side by side.

        x_id = M_id[v]      x_text = W_text f_text + b      x_image = W_image f_image + b          (eq. 4-5)

    Computed once a step as one (V, M*D) table: inputs are gathered from it and scores are taken against it. A step that
    needs a few rows only asks for those.

    Args:
        features: modality name -> frozen features (V, F), row 0 = padding, in the order of the modalities after id.
        hidden_size: D.
        num_item_rows: V, padding included.
        compute_dtype: dtype of the projections while training; evaluation is in float32.
        sparse: steps ask for a few rows: the id table has a sparse gradient, and features of more than `RESIDENT_BYTES`
            are neither copied nor moved to the device.
    The features are not saved with the weights: they belong to the prepared data set.
    """

    def __init__(
        self,
        features: dict[str, Float[Tensor, "V F"]],
        *,
        hidden_size: int,
        num_item_rows: int,
        compute_dtype: torch.dtype = torch.float32,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.sparse = sparse
        self.compute_dtype = compute_dtype
        # Parameters. The id table is filled with the others' (see Network), not here.
        self.id = nn.Embedding(
            num_item_rows, hidden_size, sparse=sparse, _weight=torch.empty(num_item_rows, hidden_size)
        )
        self.projections = nn.ModuleDict({m: nn.Linear(f.shape[1], hidden_size) for m, f in features.items()})
        self.feature_widths = {m: f.shape[1] for m, f in features.items()}
        self.mapped: dict[str, Tensor] = {}
        for name, values in features.items():
            if sparse and values.nbytes > RESIDENT_BYTES:
                self.mapped[name] = values
                continue
            self.register_buffer(f"{name}_features", values, persistent=False)
            if not sparse:
                self.register_buffer(f"{name}_training_features", values.to(compute_dtype), persistent=False)

    def forward(self, rows: Int64[Tensor, " Vr"] | None = None) -> Float[Tensor, "Vr K"]:
        """The rows asked for, or the whole table, row 0 = padding."""
        if rows is not None:
            return torch.cat(
                [self.id(rows), *(self._project(m, self._features(m, rows)) for m in self.projections)], dim=1
            )
        return torch.cat([self.id.weight, *(self._whole(name) for name in self.projections)], dim=1)

    def _features(self, name: str, rows: Tensor) -> Tensor:
        """Features of some rows on the device."""
        if name in self.mapped:
            return self.mapped[name][rows.cpu()].to(rows.device)
        return self.get_buffer(f"{name}_features").index_select(0, rows)

    def _whole(self, name: str) -> Tensor:
        """A modality's block of the table; in pieces where its features are not resident."""
        if name not in self.mapped:
            has_copy = self.training and not self.sparse
            return self._project(name, self.get_buffer(f"{name}_training_features" if has_copy else f"{name}_features"))
        pieces = self.mapped[name].split(_ROWS_AT_ONCE)
        return torch.cat([self._project(name, piece.to(self.id.weight.device)) for piece in pieces])

    def _project(self, name: str, features: Tensor) -> Tensor:
        layer = self.projections[name]
        assert isinstance(layer, nn.Linear)
        return linear(layer, features, self.compute_dtype if self.training else layer.weight.dtype)
