"""Item vectors: one vector for each item, one block of it for each modality (HM4SR section 4.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.row_shard import RowShard

RESIDENT_BYTES = 2**30
"""Features of one modality that are larger than this stay in a memory-mapped file; a step reads the items it needs."""
_ITEMS_AT_ONCE = 2**16


class _TableAndItems(torch.autograd.Function):
    """Adds the gradient of gathered vectors into the gradient of the table, in place of a sum of two whole tables."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(items)
        ctx.set_materialize_grads(False)
        ctx.like = table.new_empty(0), table.shape
        return table.view_as(table), table.index_select(0, items)

    @staticmethod
    def backward(ctx: Any, table_grad: Tensor | None, item_grad: Tensor | None) -> tuple[Tensor | None, None]:
        if item_grad is None:
            return table_grad, None
        if table_grad is None:
            like, shape = ctx.like
            table_grad = like.new_zeros(shape)
        return table_grad.index_add(0, ctx.saved_tensors[0], item_grad), None


def table_and_items(
    table: Float[Tensor, "V K"], items: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, "V K"], Float[Tensor, "n K"]]:
    """A table and some of its vectors, `(table, table[items])`, with one gradient for both uses.

    Args:
        table: item vectors.
        items: indices into the table, in 0..V-1, with repeats.
    Returns: the table, which takes the place of the argument from here on, and the gathered vectors.
    """
    return _TableAndItems.apply(table, items)


def linear(layer: nn.Linear, x: Float[Tensor, "*n F"], dtype: torch.dtype) -> Float[Tensor, "*n D"]:
    """Apply a linear layer with its product in a given dtype.

    Args:
        layer: weights (D, F) and bias (D).
        x: inputs.
        dtype: of the product and of the result.
    Returns: x W^T + b in `dtype`.
    """
    return F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))


class ItemEmbeddings(nn.Module):
    """Id embeddings and projected frozen features, side by side.

        x_id = M_id[v]      x_text = W_text f_text + b      x_image = W_image f_image + b

    Computed once a step as one (V, K) table, K = M D: inputs are gathered from it and scores are products with it. Where the
    catalogue loss is sampled, a step computes the vectors of a few items only. The features are not saved with the weights:
    they belong to the prepared data set.

    Where some items are new, one learned vector takes the place of their ids: x_id = unknown.

    Args:
        features: modality name -> frozen features (V, F), entry 0 = padding, in the order of the modalities after id.
        hidden_size: D >= 1.
        num_item_rows: V, the padding item included.
        compute_dtype: dtype of the projections in training; evaluation uses the dtype of the weights.
        sparse: whether steps need a few items only. The id table then has a sparse gradient, and features larger than
            `RESIDENT_BYTES` are neither copied nor moved to the device.
        is_new: (V,) items without a trained id; None = none, and then there is no unknown vector.
        world: processes over which ids and features are divided by rows, see `RowShard`; for sparse steps only. The process
            that holds a row computes its vector for all of them.
    Source: HM4SR eq. 4-5.   Differs: the published code projects the features of every position of a batch, twice.
    """

    def __init__(
        self,
        features: dict[str, Float[Tensor, "V F"]],
        *,
        hidden_size: int,
        num_item_rows: int,
        compute_dtype: torch.dtype = torch.float32,
        sparse: bool = False,
        is_new: Bool[Tensor, " V"] | None = None,
        world: ProcessGroup = ALONE,
    ) -> None:
        super().__init__()
        assert sparse or world.size == 1, "a step over the whole table needs it whole"
        self.sparse = sparse
        self.rows = RowShard(num_item_rows, world)
        self.compute_dtype = compute_dtype
        # Parameters, which the model initialises.
        held = len(self.rows)
        self.id = nn.Embedding(held, hidden_size, sparse=sparse, _weight=torch.empty(held, hidden_size))
        self.unknown: nn.Parameter | None = None
        if is_new is not None:
            self.unknown = nn.Parameter(torch.empty(hidden_size))
            self.register_buffer("is_new", is_new.to(self.unknown.device), persistent=False)
        self.projections = nn.ModuleDict({m: nn.Linear(f.shape[1], hidden_size) for m, f in features.items()})
        self.feature_widths = {m: f.shape[1] for m, f in features.items()}
        self.mapped: dict[str, Tensor] = {}
        for name, whole in features.items():
            values = whole[self.rows.rows]
            if sparse and values.nbytes > RESIDENT_BYTES:
                self.mapped[name] = values
                continue
            values = values.contiguous()
            self.register_buffer(f"{name}_features", values, persistent=False)
            if not sparse:
                self.register_buffer(f"{name}_training_features", values.to(compute_dtype), persistent=False)

    def forward(
        self, items: Int64[Tensor, " Vr"] | None = None, as_new: Bool[Tensor, " V"] | None = None
    ) -> Float[Tensor, "Vr K"]:
        """The vectors of some items, or of all that this process holds.

        Args:
            items: ids in 0..V-1; None = the whole table, entry 0 = padding, or this process's rows of it. Where the table is
                divided, all processes ask for their items together.
            as_new: further items that this call takes for new.
        Returns: one vector for each item: id, then the other modalities.
        """
        if items is None:
            ids = self._ids(self.id.weight, self.rows.rows, as_new)
            if not self.projections and not self.rows.is_whole:
                return ids  # a copy would take as much memory as the rows
            return torch.cat([ids, *(self._whole(name) for name in self.projections)], dim=1)
        vectors = self.rows.look_up(items, self._vectors)
        if self.unknown is None:
            return vectors
        D = self.id.embedding_dim
        return torch.cat([self._ids(vectors[:, :D], items, as_new), vectors[:, D:]], dim=1)

    def _ids(self, ids: Tensor, items: Tensor | slice, as_new: Tensor | None) -> Tensor:
        """The block of the ids of items, with the unknown vector in place of new ones."""
        if self.unknown is None:
            return ids
        is_new = self.get_buffer("is_new")
        is_new = is_new if as_new is None else is_new | as_new
        return torch.where(is_new[items][:, None], self.unknown, ids)

    def _vectors(self, index: Tensor) -> Tensor:
        """The vectors of rows that this process holds."""
        return torch.cat([self.id(index), *(self._project(m, self._features(m, index)) for m in self.projections)], 1)

    def _features(self, name: str, index: Tensor) -> Tensor:
        """Features of rows that this process holds, on the device."""
        if name in self.mapped:
            return self.mapped[name][index.cpu()].to(index.device)
        return self.get_buffer(f"{name}_features").index_select(0, index)

    def _whole(self, name: str) -> Tensor:
        """The block of a modality for all rows; in pieces where its features are memory-mapped."""
        if name not in self.mapped:
            has_copy = self.training and not self.sparse
            return self._project(name, self.get_buffer(f"{name}_training_features" if has_copy else f"{name}_features"))
        pieces = self.mapped[name].split(_ITEMS_AT_ONCE)
        return torch.cat([self._project(name, piece.to(self.id.weight.device)) for piece in pieces])

    def _project(self, name: str, features: Tensor) -> Tensor:
        layer = self.projections[name]
        assert isinstance(layer, nn.Linear)
        return linear(layer, features, self.compute_dtype if self.training else layer.weight.dtype)


def divided_tables(model: nn.Module) -> ItemEmbeddings | None:
    """The item tables of a model of which each process holds its own rows.

    Args:
        model: any model.
    Returns: None where every process holds all rows.
    """
    divided = (m for m in model.modules() if isinstance(m, ItemEmbeddings) and not m.rows.is_whole)
    return next(divided, None)


def divided_rows(model: nn.Module) -> dict[str, RowShard]:
    """Weights and buffers of which each process holds its own rows.

    Args:
        model: any model.
    Returns: by name, how the rows are divided; empty where every process holds all weights.
    """
    return {
        name: module.rows
        for prefix, module in model.named_modules()
        if isinstance(module, ItemEmbeddings) and not module.rows.is_whole
        for name in (f"{prefix}.id.weight", *(f"{prefix}.{m}_features" for m in module.projections))
    }
