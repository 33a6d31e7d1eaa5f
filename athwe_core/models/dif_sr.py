"""DIF-SR: attention scores of items, attributes and positions, each from its own queries and keys (Xie et al., SIGIR 2022).

    x_t = dropout(LN(E[item_t]))
    S_j = (W_qj s_j)(W_kj s_j)^T, for each head,        s_j: vectors of attribute j, the items' x, or the positions' P
    y   = LN(x + dropout(W_o softmax(fusion(S_1, ...) / sqrt(D / h) + mask) W_v x + b_o))
    x'  = LN(y + dropout(W_2 gelu(W_1 y + b_1) + b_2))                     exact gelu; n such blocks
    score(v) = x_last . E[v]
    loss = main + sum_j weight_j * mean over values of BCE(W_j x_last + b_j, attribute j of the next item)

`fusion` is the sum, a linear layer on the joined rows of scores, or a sum with the weights of a gate that reads a row of
scores (`athwe_core/nn/fusion.py`). The sum is causal and needs no padding. The others read rows of L scores, those of later
items and of padding too: with `fusion_reads_all: true`, as published, a state depends on the padding, and rows are prefixes,
padded to L. With `fusion_reads_all: false`, our form, these scores are 0 for the fusion; it is causal, knows no padding and
trains on packed rows.

Source: the paper and its authors' code.   Differs: the published code never trains the attribute tables
(`attributes_trainable: false` as published). The paper sums the attribute loss over values; this is their mean, as in the
code. The padding is no item here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from athwe_core.batch import PackedBatch, PaddedView, TimeRange
from athwe_core.config_schema import Wholes, must
from athwe_core.errors import require
from athwe_core.models.attribute_model import (
    REMOVALS,
    AttributeConfig,
    AttributeModel,
    AttributeModelConfig,
    adapt,
    attribute_outputs,
    golden_catalogue,
    needs,
    one_for_each,
    published_attribute_state,
    published_fusion,
)
from athwe_core.models.golden import Golden, outputs_of
from athwe_core.models.protocol import Explanation, ModelInputs, ModelSpec
from athwe_core.models.registry import build_config, replace_in
from athwe_core.nn.decoupled_attention import FusedScoresLayer, SummedScoresLayer
from athwe_core.nn.transformer import AttentionGrid


class DIFSRModelConfig(AttributeModelConfig):
    """Sizes and attributes of DIF-SR."""

    name: Literal["dif-sr"]  # type: ignore[assignment]
    attribute_sizes: Annotated[Wholes, must("be positive", lambda sizes: all(size > 0 for size in sizes))]
    """Width of the vectors of each of model.attributes, or of all."""
    fusion_reads_all: bool
    """Of the fusions concat and gate: true reads the scores of later items and of padding, as published."""

    @model_validator(mode="after")
    def _attributes_divide_heads(self) -> DIFSRModelConfig:
        one_for_each(self.attribute_sizes, self.attributes, "model.attribute_sizes")
        rule = f"must be multiples of model.num_heads={self.num_heads}"
        are_multiples = all(size % self.num_heads == 0 for size in self.attribute_sizes)
        require(are_multiples, "model.attribute_sizes", rule, list(self.attribute_sizes))
        return self

    @property
    def sees_ahead(self) -> bool:
        """Whether states depend on later items and on padding."""
        return self.fusion != "sum" and self.fusion_reads_all


class DIFSRConfig(AttributeConfig):
    """Everything that decides a run of DIF-SR."""

    model: DIFSRModelConfig

    @model_validator(mode="after")
    def _fits_its_rows(self) -> DIFSRConfig:
        require(
            not (self.model.sees_ahead and self.training.batching == "packed"),
            "training.batching",
            f"must be prefix with model.fusion: {self.model.fusion} and model.fusion_reads_all: true, which see ahead",
            self.training.batching,
            "Use --batching prefix, or --set model.fusion_reads_all=false",
        )
        return self


class DIFSR(AttributeModel):
    """The network.

    Args:
        config: sizes, attributes and losses.
        inputs: the number of items and their attributes; no features are read.
    """

    def __init__(self, config: DIFSRConfig, inputs: ModelInputs) -> None:
        model = config.model
        widths = one_for_each(model.attribute_sizes, model.attributes, "model.attribute_sizes")
        super().__init__(config, inputs, attribute_sizes=widths)
        self.sees_ahead, self.sums = model.sees_ahead, model.fusion == "sum"
        side_sizes = [*widths, *([model.hidden_size] if model.position_embedding else [])]
        self.layers = nn.ModuleList(
            SummedScoresLayer(side_sizes=side_sizes, **model.layer_sizes())
            if self.sums
            else FusedScoresLayer(
                fusion=model.fusion,
                length=model.max_length,
                reads_all=model.fusion_reads_all,
                items_at=len(widths),
                side_sizes=side_sizes,
                **model.layer_sizes(),
            )
            for _ in range(model.num_layers)
        )
        self.reset_parameters(inputs.generator)

    def encode(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        """Input norm, then the layers, on packed rows or on rows padded to L."""
        if self.sums:
            states = self._encode_packed(items, batch)
        else:
            rows = batch.padded_to(self.max_length)
            x, sides = self.rectangle(items, rows, batch)
            for layer in self.layers[:-1]:
                x = layer(x, sides, rows.mask)
            if self.sees_ahead:  # each row has one supervised position, its last
                last = self.layers[-1](x, sides, rows.mask, (rows.lengths - 1).clamp(min=0))[:, 0]
                states = last[batch.rows[batch.target_index]]
            else:
                states = rows.at_targets(self.layers[-1](x, sides, rows.mask))
        return states.to(items.dtype)

    def _encode_packed(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> Float[Tensor, "N D"]:
        x, sides, grid = self._packed(items, batch)
        for layer in self.layers[:-1]:
            x = layer(x, sides, grid)
        states: Tensor = self.layers[-1](x, sides, grid, None if batch.all_supervised else batch.target_index)
        return states[0]

    def _packed(self, items: Float[Tensor, "T D"], batch: PackedBatch) -> tuple[Tensor, list[Tensor], AttentionGrid]:
        """Input of the first layer, side information, and which token attends to which."""
        x = self.embed(items)
        sides = [vectors.to(x.dtype) for vectors in self.attributes(batch.item_ids)]
        if self.position is not None:
            sides.append(self.position[batch.positions].to(x.dtype))
        return x, sides, AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)

    def rectangle(
        self, items: Float[Tensor, "T D"], rows: PaddedView, batch: PackedBatch
    ) -> tuple[Float[Tensor, "B L D"], list[Float[Tensor, "_ L _"]]]:
        """Input of the first layer, and the side information: of the padding too, which is item 0 of the table."""
        vectors = self.with_padding(items, rows)
        x = self.embed(vectors.flatten(0, 1))[0].view(vectors.shape)
        item_ids = rows.pad(batch.item_ids)
        sides = [side.to(x.dtype).view(*item_ids.shape, -1) for side in self.attributes(item_ids.flatten())]
        return x, sides if self.position is None else [*sides, self.position[None].to(x.dtype)]

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V D"]) -> Explanation:
        """Attention of the last position, and that of the scores of items, each attribute and positions alone."""
        items, rows = table[batch.item_ids], batch.padded_to(self.max_length)
        x, sides, where = self._packed(items, batch) if self.sums else (*self.rectangle(items, rows, batch), rows.mask)
        layers = []
        for layer in self.layers:
            assert isinstance(layer, SummedScoresLayer)
            layers.append(layer.attention_parts(x, sides, where))  # type: ignore[arg-type]  # as the kind of layer has it
            x = layer(x, sides, where)
        return self.explanation(layers)

    def recompute_stages(self) -> Sequence[nn.Module]:
        """The layers."""
        return list(self.layers)


@torch.no_grad()
def _golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output."""
    model, batch = published_dif_sr(golden), golden.batch()
    rows, table = batch.padded_to(model.max_length), model.item_table()
    found = attribute_outputs(model, golden, batch)
    first = cast(SummedScoresLayer, model.layers[0])
    modules: dict[str, nn.Module] = {"input_emb": model.input_norm, "layer0_attn": first.attention_norm}
    modules |= {f"layer{n}": layer for n, layer in enumerate(model.layers)}
    with outputs_of(modules) as seen:
        if model.sums:
            model.encode(table[batch.item_ids], golden.all_supervised(batch))
        else:
            x, sides = model.rectangle(table[batch.item_ids], rows, batch)
            for layer in model.layers:
                x = layer(x, sides, rows.mask)
    B, L = rows.mask.shape
    for name, value in seen.items():
        tokens = value.flatten(0, -2)
        found[name] = tokens if len(tokens) == batch.num_tokens else rows.unpad(tokens.view(B, L, -1))
    found |= _first_fusion(model, batch)
    return {name: golden.pair(name, ours, batch) for name, ours in found.items() if f"out.{name}" in golden}


def _first_fusion(model: DIFSR, batch: PackedBatch) -> dict[str, Tensor]:
    """Scores of the first layer after their fusion, of all pairs of slots, and the weights of its gate."""
    settings, first = model.settings, cast(SummedScoresLayer, model.layers[0])
    layer = FusedScoresLayer(
        fusion=settings.fusion,
        length=model.max_length,
        reads_all=True,
        items_at=len(settings.attributes),
        side_sizes=[cast(nn.Linear, side).in_features for side in first.sides],
        **settings.layer_sizes(),
    )
    layer.load_state_dict(first.state_dict())
    inputs = model.rectangle(model.item_table()[batch.item_ids], batch.padded_to(model.max_length), batch)
    scores = layer.scores(layer.sources(*inputs)[1])
    found = {"layer0_fused": layer.fusion(scores)}
    return found if layer.fusion.kind != "gate" else found | {"layer0_gate": layer.fusion.weights(scores)}


def published_dif_sr(golden: Golden) -> DIFSR:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    settings, state = published_attribute_state(golden)
    catalogue = golden_catalogue(golden)
    count = len(catalogue.attributes)
    widths = [state[f"attributes.tables.{n}"].shape[1] for n in range(count)]
    batching = "training.batching=prefix"
    config = cast(
        DIFSRConfig, replace_in(build_config("dif-sr"), [*settings, f"model.attribute_sizes={widths}", batching])
    )
    for n in range(config.model.num_layers):
        state |= {f"layers.{n}.fusion.{name}": value for name, value in published_fusion(golden, n).items()}
        part = f"trm_encoder.layer.{n}.multi_head_attention."
        names = [*((f"query_layers.{m}", f"key_layers.{m}") for m in range(count)), ("query_p", "key_p")]
        for m, (query, key) in enumerate(names):
            for kind in ("weight", "bias"):
                both = [golden.weight(f"{part}{name}.{kind}") for name in (query, key)]
                state[f"layers.{n}.sides.{m}.{kind}"] = torch.cat(both)
    model = DIFSR(config, ModelInputs(catalogue, TimeRange(0, 1, 1)))
    model.load_state_dict(state)
    return model.eval()


MODEL = ModelSpec(
    name="dif-sr",
    summary="DIF-SR: separate attention scores for items, attributes and positions (Xie et al., SIGIR 2022)",
    config=DIFSRConfig,
    build=DIFSR,
    needs=needs,
    adapt=adapt,
    removals=REMOVALS,
    golden_pairs=_golden_pairs,
)
