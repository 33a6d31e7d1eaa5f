"""SASRec: self-attention over item ids (Kang and McAuley, ICDM 2018), in the form that RecBole and table 1 of HM4SR use.

    x_t = dropout(LN(E[item_t] + P[t]))                                    t = 0..L-1 from the oldest item
    y   = LN(x + dropout(W_o attention(x) + b_o))                          causal, h heads, scale 1 / sqrt(D / h)
    x'  = LN(y + dropout(W_2 gelu(W_1 y + b_1) + b_2))                     exact gelu; n such blocks
    score(v) = x_last . E[v]

Source: the equations of the paper with the choices of RecBole 1.2.1.   Differs: the paper has pre-norm blocks with a final
norm, relu, items scaled by sqrt(D), and binary cross-entropy with one negative. RecBole trains on prefix rows and counts the
padding as an item; here every position of a row is supervised and the padding is no item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.config_schema import AttentionSection, Config, PositiveWhole
from athwe_core.models.golden import Golden
from athwe_core.models.id_model import DROPOUT, IdLosses, IdModel, recbole_outputs
from athwe_core.models.protocol import Explanation, ModelInputs, ModelSpec, Removal, Tree
from athwe_core.models.registry import build_config, replace_in
from athwe_core.nn.transformer import ONE, AttentionGrid, StackedLayerNorm, StackedTransformer


class SASRecModelConfig(AttentionSection):
    """Sizes of SASRec."""

    name: Literal["sasrec"]
    inner_size: PositiveWhole
    position_embedding: bool
    """False leaves P out: the order of items is then known from the causal mask alone."""


class SASRecConfig(Config):
    """Everything that decides a run of SASRec."""

    model: SASRecModelConfig
    losses: IdLosses


class SASRec(IdModel):
    """The network.

    Args:
        config: sizes and the main loss.
        inputs: the number of items; no features are read.
    """

    def __init__(self, config: SASRecConfig, inputs: ModelInputs) -> None:
        model = config.model
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.position = None
        if model.position_embedding:
            self.position = nn.Parameter(torch.empty(model.max_length, model.hidden_size))
        self.input_norm = StackedLayerNorm(num_modalities=1, hidden_size=model.hidden_size)
        self.transformer = StackedTransformer(
            num_modalities=1,
            hidden_size=model.hidden_size,
            inner_size=model.inner_size,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            dropout_rate=model.dropout,
        )
        self.reset_parameters(inputs.generator)

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Input norm, then the Transformer; its last layer computes the supervised positions only."""
        grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
        wanted = None if batch.all_supervised else batch.target_index
        return self.transformer(self.embed(items, self.slots(batch)), grid, ONE, wanted)[0].to(items.dtype)

    def slots(self, batch: PackedBatch) -> Int64[Tensor, " T"]:
        """Which position vector each token has."""
        return batch.positions

    def embed(self, items: Float[Tensor, "T D"], slots: Int64[Tensor, " T"]) -> Float[Tensor, "1 T D"]:
        """Normalised sum of item and position, with dropout."""
        if self.position is not None:
            items = items + F.embedding(slots, self.position)
        return self.drop(self.input_norm(items[None].to(self.product_dtype(items)), ONE))

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The Transformer's layers."""
        return list(self.transformer.layers)

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V D"]) -> Explanation:
        """Attention of the last position in each layer, mean over heads."""
        return self.explain_tokens(table[batch.item_ids], batch)

    def explain_tokens(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Explanation:
        """`explain` from the vectors that `encode` reads."""
        grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
        tokens = self.embed(items, self.slots(batch))
        layers = self.transformer.attention(tokens, grid, ONE)
        return Explanation(attention={"id": [weights[0, :, -1].mean(0).tolist() for weights in layers]})


def slots_from_newest(batch: PackedBatch, max_length: int) -> Int64[Tensor, " T"]:
    """Slot of each token where rows end in slot L - 1, as those of code that pads on the left."""
    lengths = batch.offsets.diff()[batch.rows]
    return (max_length - lengths + batch.positions).clamp(min=0)


def _take_out_position(tree: Tree) -> Mapping[str, str]:
    tree["model"]["position_embedding"] = False
    return {}


POSITION = Removal("Position", lambda tree: tree["model"]["position_embedding"], _take_out_position)
"""The removal of a model whose configuration has `model.position_embedding`."""


def _golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output: rows as a packed stream, and once more padded to their full length."""
    model = published_sasrec(golden)
    pairs = {}
    for ending, batch in (("", golden.batch()), (" (padded rows)", golden.batch(is_padded=True))):
        with torch.no_grad():
            found = _golden_outputs(model, golden, batch)
        for name, ours in found.items():
            if f"out.{name}" in golden:
                pairs[name + ending] = golden.pair(name, ours, batch)
    return pairs


def _golden_outputs(model: SASRec, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """Our outputs by recorded name, in the order of the batch."""
    found = recbole_outputs(model, golden, batch)
    grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
    tokens = model.embed(model.item_table()[batch.item_ids], batch.positions)
    found["input_emb"] = tokens[0]
    for number, layer in enumerate(model.transformer.layers):
        tokens = layer(tokens, grid, ONE)
        found[f"layer{number}"] = tokens[0]
    return found


def published_sasrec(golden: Golden) -> SASRec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    sizes, state = published_state(golden)
    config = replace_in(build_config("sasrec"), [*sizes, f"model.num_heads={golden.setting('num_heads', 2)}"])
    catalogue = Catalogue(num_item_rows=len(state["tables.id.weight"]))
    model = SASRec(cast(SASRecConfig, config), ModelInputs(catalogue, TimeRange(0, 1, 1)))
    model.load_state_dict(state)
    return model.eval()


def published_state(
    golden: Golden, *, encoder: str = "trm_encoder", attention: str = "multi_head_attention", projection: str = "{}"
) -> tuple[list[str], dict[str, Tensor]]:
    """Sizes as overrides of a configuration, and weights by our names, of a network with RecBole's layers.

    Args:
        golden: of such a network.
        encoder: what its encoder is called.
        attention, projection: as in `Golden.layer`.
    Raises: CheckpointError for a missing weight.
    """
    table, position = golden.weight("item_embedding.weight"), golden.weight("position_embedding.weight")
    layer = f"{encoder}.layer.{{}}."
    num_layers = sum(f"w.{layer.format(n)}feed_forward.dense_1.weight" in golden for n in range(100))
    sizes = [
        f"model.hidden_size={table.shape[1]}",
        f"model.inner_size={len(golden.weight(f'{layer.format(0)}feed_forward.dense_1.weight'))}",
        f"model.num_layers={num_layers}",
        f"model.max_length={len(position)}",
    ]
    state = {"tables.id.weight": table, "position": position}
    state |= {f"input_norm.{kind}": golden.weight(f"LayerNorm.{kind}")[None, None] for kind in ("weight", "bias")}
    for n in range(num_layers):
        weights = golden.layer(layer.format(n), attention, projection)
        state |= {f"transformer.layers.{n}.{name}": value for name, value in weights.items()}
    return sizes, state


MODEL = ModelSpec(
    name="sasrec",
    summary="SASRec: self-attention over item ids (Kang and McAuley, ICDM 2018)",
    config=SASRecConfig,
    build=SASRec,
    removals=(POSITION, DROPOUT),
    golden_pairs=_golden_pairs,
    offers_sharding=True,
)
