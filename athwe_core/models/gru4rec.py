"""GRU4Rec: a recurrent network over item ids (Hidasi et al., ICLR 2016), in the form that RecBole and table 1 of HM4SR use.

    x_t = dropout(E[item_t])
    r = sigmoid(W_ir x_t + W_hr h_{t-1})      z = sigmoid(W_iz x_t + W_hz h_{t-1})
    c = tanh(W_in x_t + r * (W_hn h_{t-1}))   h_t = (1 - z) * c + z * h_{t-1}      h_0 = 0; one or more such layers
    s_t = W_o h_t + b_o                       score(v) = s_last . E[v]

Source: the equations of the paper with the choices of RecBole 1.2.1.   Differs: the papers train in session-parallel batches
on sampled TOP1 or BPR-max losses; RecBole trains on prefix rows and counts the padding as an item. Here every position of a
row is supervised and the padding is no item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config_schema import Config, ModelSection, PositiveWhole, Rate
from athwe_core.models.golden import Golden
from athwe_core.models.id_model import DROPOUT, IdLosses, IdModel, recbole_outputs, supervised
from athwe_core.models.protocol import ModelInputs, ModelSpec
from athwe_core.models.registry import build_config, replace_in


class GRU4RecModelConfig(ModelSection):
    """Sizes of GRU4Rec."""

    name: Literal["gru4rec"]
    hidden_size: PositiveWhole
    """D: width of items and of states."""
    gru_size: PositiveWhole
    """H: width of the recurrent layers."""
    num_layers: PositiveWhole
    dropout: Rate
    """On the input."""


class GRU4RecConfig(Config):
    """Everything that decides a run of GRU4Rec."""

    model: GRU4RecModelConfig
    losses: IdLosses


class GRU4Rec(IdModel):
    """The network. Its recurrent layers compute in float32 at every precision.

    Args:
        config: sizes and the main loss.
        inputs: the number of items; no features are read.
    """

    has_fixed_shapes = False  # the number of rows with a token at each position varies

    def __init__(self, config: GRU4RecConfig, inputs: ModelInputs) -> None:
        model = config.model
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.gru = nn.GRU(model.hidden_size, model.gru_size, model.num_layers, bias=False)
        self.dense = nn.Linear(model.gru_size, model.hidden_size)
        self.reset_parameters(inputs.generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier normal for items, Xavier uniform for the first recurrent layer, U(+-1/sqrt(H)) for all others."""
        bound = self.gru.hidden_size**-0.5
        for name, parameter in self.named_parameters():
            if name == "tables.id.weight":
                nn.init.xavier_normal_(parameter, generator=generator)
            elif name in ("gru.weight_ih_l0", "gru.weight_hh_l0"):
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                parameter.uniform_(-bound, bound, generator=generator)

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Recurrent layers, then the projection of the supervised positions to the width of the items."""
        return cast(Tensor, self.dense(supervised(self.recur(items, batch), batch)))

    def recur(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "T H"]:
        """States of the last recurrent layer at all tokens."""
        order = time_major_order(batch)
        tokens_at_position = torch.bincount(batch.positions).cpu()
        states = self.gru(PackedSequence(self.drop(items)[order], tokens_at_position))[0].data
        return cast(Tensor, states[order.argsort()])

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The recurrent layers."""
        return [self.gru]


def time_major_order(batch: PackedBatch) -> Int64[Tensor, " T"]:
    """Tokens by position and, at each position, by descending length of their row, as a `PackedSequence` holds them."""
    lengths = torch.where(batch.user_index >= 0, batch.offsets.diff(), 1)  # a padding token is a row of its own
    by_length = batch.longest_row - lengths[batch.rows]
    return torch.argsort(batch.positions * (batch.longest_row + 1) + by_length, stable=True)


def _golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output."""
    model, batch = published_gru4rec(golden), golden.batch()
    with torch.no_grad():
        found = recbole_outputs(model, golden, batch)
        found["gru"] = model.recur(model.item_table()[batch.item_ids], batch)
        found["dense"] = model.dense(found["gru"])
    return {name: golden.pair(name, ours, batch) for name, ours in found.items() if f"out.{name}" in golden}


def published_gru4rec(golden: Golden) -> GRU4Rec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    table, dense = golden.weight("item_embedding.weight"), golden.weight("dense.weight")
    num_layers = max(sum(name.startswith("gru_layers.weight_ih") for name in golden.weights), 1)
    config = replace_in(
        build_config("gru4rec"),
        [
            f"model.hidden_size={table.shape[1]}",
            f"model.gru_size={dense.shape[1]}",
            f"model.num_layers={num_layers}",
            f"model.max_length={golden['in.item_seq'].shape[1]}",
        ],
    )
    catalogue = Catalogue(num_item_rows=len(table))
    model = GRU4Rec(cast(GRU4RecConfig, config), ModelInputs(catalogue, TimeRange(0, 1, 1)))
    state = {"tables.id.weight": table, "dense.weight": dense, "dense.bias": golden.weight("dense.bias")}
    for n in range(num_layers):
        state |= {f"gru.weight_{kind}_l{n}": golden.weight(f"gru_layers.weight_{kind}_l{n}") for kind in ("ih", "hh")}
    model.load_state_dict(state)
    return model.eval()


MODEL = ModelSpec(
    name="gru4rec",
    summary="GRU4Rec: a recurrent network over item ids (Hidasi et al., ICLR 2016)",
    config=GRU4RecConfig,
    build=GRU4Rec,
    removals=(DROPOUT,),
    golden_pairs=_golden_pairs,
)
