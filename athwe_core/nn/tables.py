"""Item tables: one row per item, one block per modality (HM4SR 4.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ItemTables(nn.Module):
    """Id embeddings and projected frozen features, side by side.

        x_id = M_id[v]      x_text = W_text f_text + b      x_image = W_image f_image + b          (eq. 4-5)

    Computed once a step as one (V, M*D) table: inputs are gathered from it and scores are taken against it.

    Args:
        features: modality name -> frozen features (V, F), row 0 = padding, in the order of the modalities after id.
        hidden_size: D.
        num_rows: V, padding included.
        compute_dtype: dtype of the projections while training; evaluation is in float32.
    The features are buffers that are not saved with the weights: they belong to the prepared data set.
    """

    def __init__(
        self,
        features: dict[str, Float[Tensor, "V F"]],
        *,
        hidden_size: int,
        num_rows: int,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        # Parameters.
        self.id = nn.Parameter(torch.empty(num_rows, hidden_size))
        self.projections = nn.ModuleDict({m: nn.Linear(f.shape[1], hidden_size) for m, f in features.items()})
        self.feature_widths = {m: f.shape[1] for m, f in features.items()}
        for name, values in features.items():
            self.register_buffer(f"{name}_features", values, persistent=False)
            self.register_buffer(f"{name}_training_features", values.to(compute_dtype), persistent=False)

    def forward(self) -> Float[Tensor, "V K"]:
        """The table, row 0 = padding."""
        blocks: list[Tensor] = [self.id]
        for name, layer in self.projections.items():
            assert isinstance(layer, nn.Linear)
            features = self.get_buffer(f"{name}_training_features" if self.training else f"{name}_features")
            projected = features @ layer.weight.to(features.dtype).T
            blocks.append(projected.to(layer.bias.dtype) + layer.bias)
        return torch.cat(blocks, dim=1)
