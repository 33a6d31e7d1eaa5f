"""What models over item ids and attributes share (NOVA, DIF-SR): configuration, attribute tables, attribute prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeVar, cast

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from athwe_core.batch import Attribute, Catalogue, PackedBatch
from athwe_core.config_schema import Config, Rate, Reals, Section, Words, must
from athwe_core.errors import require
from athwe_core.losses.auxiliary import category_loss
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.models.golden import Golden
from athwe_core.models.id_model import IdLosses, IdModel
from athwe_core.models.protocol import Available, Explanation, InputNeeds, LossInputs, ModelInputs, Removal, Tree
from athwe_core.models.sasrec import POSITION, SASRecModelConfig, published_state
from athwe_core.nn.attribute_embeddings import AttributeEmbeddings
from athwe_core.nn.fusion import FusionKind
from athwe_core.nn.item_embeddings import linear
from athwe_core.nn.transformer import ONE, LayerSizes, StackedLayerNorm

Number = TypeVar("Number", int, float)


class AttributeModelConfig(SASRecModelConfig):
    """Sizes and attributes."""

    dropout: Rate
    """On the input and the output of both sublayers."""
    attention_dropout: Rate
    """On the attention weights."""
    attributes: Annotated[Words, must("name no attribute twice", lambda names: len(set(names)) == len(names))]
    """`categories`, or columns of the item metadata such as `brand`."""
    attribute_pooling: Literal["sum", "mean"]
    """Of the vectors of an item's categories."""
    attributes_trainable: bool
    """False keeps the attribute tables at their initial normal(0, 1), as the published code does by oversight."""
    fusion: FusionKind

    def layer_sizes(self) -> LayerSizes:
        """What each Transformer layer is made with."""
        return LayerSizes(
            hidden_size=self.hidden_size,
            inner_size=self.inner_size,
            num_heads=self.num_heads,
            dropout_rate=self.dropout,
            attention_dropout=self.attention_dropout,
        )


class AttributeLossConfig(Section):
    """Prediction of the next item's attributes."""

    weights: Annotated[Reals, must("not be negative", lambda weights: all(weight >= 0 for weight in weights))]
    """One for each of model.attributes, or one for all; 0 = no prediction."""


class AttributeLosses(IdLosses):
    """The `losses` section."""

    attributes: AttributeLossConfig


class AttributeConfig(Config):
    """Everything that decides a run of a model with attributes."""

    model: AttributeModelConfig
    losses: AttributeLosses

    @model_validator(mode="after")
    def _has_a_weight_for_each_attribute(self) -> AttributeConfig:
        one_for_each(self.losses.attributes.weights, self.model.attributes, "losses.attributes.weights")
        return self


def one_for_each(values: Sequence[Number], attributes: Sequence[str], key: str) -> list[Number]:
    """The value of each attribute, from a list that has one for each or one for all.

    Raises: ConfigError for another number of values.
    """
    rule = f"must have one value for each of model.attributes={list(attributes)}, or one for all"
    require(len(values) in (1, max(len(attributes), 1)), key, rule, list(values))
    return list(values) if len(values) == len(attributes) else [values[0]] * len(attributes)


class AttributeModel(IdModel):
    """A model over ids and attributes.

    A subclass builds its layers after `super().__init__`, calls `self.reset_parameters(inputs.generator)` last, and defines
    `encode`.

    Args:
        config: sizes, attributes and losses.
        inputs: the number of items and their attributes.
        attribute_sizes: width of the vectors of each attribute.
    """

    def __init__(self, config: AttributeConfig, inputs: ModelInputs, *, attribute_sizes: Sequence[int]) -> None:
        model = config.model
        super().__init__(config, inputs, hidden_size=model.hidden_size, dropout_rate=model.dropout)
        self.settings = model
        found = [inputs.catalogue.attributes[name] for name in model.attributes]
        self.attributes = AttributeEmbeddings(found, sizes=attribute_sizes, pooling=model.attribute_pooling)
        if not model.attributes_trainable:
            self.attributes.requires_grad_(False)
        self.position = None
        if model.position_embedding:
            self.position = nn.Parameter(torch.empty(model.max_length, model.hidden_size))
        self.input_norm = StackedLayerNorm(num_modalities=1, hidden_size=model.hidden_size)
        weights = one_for_each(config.losses.attributes.weights, model.attributes, "losses.attributes.weights")
        self.loss_weights = {f"attr_{name}": w for name, w in zip(model.attributes, weights, strict=True) if w > 0}
        self.predicted = [(n, f"attr_{name}") for n, name in enumerate(model.attributes) if weights[n] > 0]
        self.predictors = nn.ModuleList(
            nn.Linear(model.hidden_size, found[n].num_values - 1) for n, _ in self.predicted
        )
        self._num_values = [attribute.num_values for attribute in found]

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As `IdModel`, with attribute tables that are not trained from normal(0, 1)."""
        super().reset_parameters(generator)
        if not self.settings.attributes_trainable:
            for table in self.attributes.tables:
                table.normal_(generator=generator)

    def embed(self, items: Float[Tensor, "T D"]) -> Float[Tensor, "1 T D"]:
        """Normalised item vectors, with dropout; positions and attributes stay out of them."""
        return self.drop(self.input_norm(items[None].to(self.product_dtype(items)), ONE))

    def explanation(self, layers: Sequence[Sequence[Float[Tensor, " n"]]]) -> Explanation:
        """Attention of the last position, and that of each source alone.

        Args:
            layers: for each layer the weights, then those of the items alone, of each attribute and of the positions.
        """
        names = ["id", *self.settings.attributes, *(["position"] if self.position is not None else [])]
        whole, *parts = zip(*[[weights.tolist() for weights in layer] for layer in layers], strict=True)
        alone = {name: list(part) for name, part in zip(names, parts, strict=True)}
        return Explanation(attention={"id": list(whole)}, attention_parts=alone if len(alone) > 1 else {})

    def further_losses(
        self, states: Float[Tensor, "N D"], items: Float[Tensor, "T D"], batch: PackedBatch, inputs: LossInputs
    ) -> dict[str, Float[Tensor, ""]]:
        """Binary cross-entropy of the next item's values of each predicted attribute, averaged over values and positions."""
        targets, weight = batch.target_ids.clamp(min=0), (batch.target_ids >= 0).float()
        found = {}
        for (number, term), head in zip(self.predicted, self.predictors, strict=True):
            attribute = Attribute(self.attributes.get_buffer(f"values_{number}"), self._num_values[number])
            logits = linear(cast(nn.Linear, head), states, self.compute_dtype).float()
            found[term] = category_loss(logits, attribute.multi_hot(targets), weight, inputs.shards)
        return found


def needs(config: AttributeConfig) -> InputNeeds:
    """The attributes that a configuration names."""
    return InputNeeds(attributes=config.model.attributes)


def adapt(tree: Tree, available: Available) -> list[str]:
    """Leaves out the attributes that the data set lacks."""
    notes = []
    for name in list(tree["model"]["attributes"]):
        if name not in available.attributes:
            drop_attribute(tree, name)
            notes.append(f"{available.dataset} has no {name}: the attribute {name} is off")
    return notes


PER_ATTRIBUTE = (("losses", "attributes", "weights"), ("model", "attribute_sizes"))
"""Lists that may have one value for each attribute."""


def drop_attribute(tree: Tree, name: str) -> None:
    """Take an attribute out of a configuration, with its values in `PER_ATTRIBUTE`."""
    names = tree["model"]["attributes"]
    number, count = names.index(name), len(names)
    names.remove(name)
    for *sections, key in PER_ATTRIBUTE:
        section = tree
        for part in sections:
            section = section[part]
        if len(section.get(key, ())) == count > 1:
            del section[key][number]


def _take_out_attributes(tree: Tree) -> Mapping[str, str]:
    for name in list(tree["model"]["attributes"]):
        drop_attribute(tree, name)
    return {}


def _take_out_prediction(tree: Tree) -> Mapping[str, str]:
    tree["losses"]["attributes"]["weights"] = [0.0]
    return {}


def _take_out_fusion(tree: Tree) -> Mapping[str, str]:
    tree["model"]["fusion"] = "sum"
    return {}


def _take_out_dropout(tree: Tree) -> Mapping[str, str]:
    tree["model"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    return {}


def _has_dropout(tree: Tree) -> bool:
    return bool(tree["model"]["dropout"] > 0 or tree["model"]["attention_dropout"] > 0)


def _has_prediction(tree: Tree) -> bool:
    return bool(tree["model"]["attributes"]) and any(weight > 0 for weight in tree["losses"]["attributes"]["weights"])


REMOVALS = (
    Removal("Attributes", lambda tree: len(tree["model"]["attributes"]) > 0, _take_out_attributes),
    Removal("Prediction", _has_prediction, _take_out_prediction),
    Removal("Fusion", lambda tree: tree["model"]["fusion"] != "sum", _take_out_fusion),
    POSITION,
    Removal("Dropout", _has_dropout, _take_out_dropout),
)
"""Parts of a model with attributes. Without its learned fusion it adds the sources."""


def golden_catalogue(golden: Golden) -> Catalogue:
    """The items of a golden file, with its attributes in their order.

    Raises: CheckpointError for a missing entry.
    """
    attributes = {
        name: Attribute(golden[f"in.{name}"], len(table)) for name, table in _published_tables(golden).items()
    }
    return Catalogue(num_item_rows=len(golden.weight("item_embedding.weight")), attributes=attributes)


def _published_tables(golden: Golden) -> dict[str, Tensor]:
    """Attribute tables in the order of the file."""
    kinds = {"categories": "token_seq_embedding_table.item.0", "brand": "token_embedding_table.item.embedding"}
    names = {f"feature_embed_layer_list.{n}.{kind}.weight": name for n in range(2) for name, kind in kinds.items()}
    return {name: golden.weight(key) for key, name in names.items() if f"w.{key}" in golden}


def published_attribute_state(golden: Golden) -> tuple[list[str], dict[str, Tensor]]:
    """Settings and weights of a golden file that NOVA and DIF-SR have in common.

    Returns: overrides of a configuration, and weights by our names.
    Raises: CheckpointError for a missing weight.
    """
    sizes, state = published_state(golden)
    catalogue = golden_catalogue(golden)
    settings = [
        *sizes,
        f"model.num_heads={golden.setting('num_heads', 2)}",
        f"model.fusion={golden.setting('fusion')}",
        f"model.attribute_pooling={golden.setting('attribute_pooling', 'sum')}",
        f"model.attributes=[{','.join(catalogue.attributes)}]",
        f"losses.attributes.weights={golden['in.lamdas'].tolist()}",
    ]
    state = {name.removeprefix("transformer."): value for name, value in state.items()}
    for n, table in enumerate(_published_tables(golden).values()):
        state[f"attributes.tables.{n}"] = table
        for kind in ("weight", "bias"):  # the column of no value has no part in the loss
            state[f"predictors.{n}.{kind}"] = golden.weight(f"ap.{n}.{kind}")[1:]
    return settings, state


def published_fusion(golden: Golden, layer: int) -> dict[str, Tensor]:
    """Weights of the fusion of one layer, by our names."""
    prefix = f"trm_encoder.layer.{layer}.multi_head_attention.fusion_layer."
    names = {
        "sum": {},
        "concat": {"joined.weight": "weight", "joined.bias": "bias"},
        "gate": {"inner.weight": "projection.0.weight", "inner.bias": "projection.0.bias"}
        | {"outer.weight": "projection.2.weight"},
    }
    return {ours: golden.weight(prefix + theirs) for ours, theirs in names[golden.setting("fusion")].items()}


def attribute_outputs(model: AttributeModel, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """Our values of what NOVA and DIF-SR both record of the last position, the losses and the attributes.

    Args:
        model: of the golden file, with a weight for each attribute.
        golden: the file.
        batch: its rows.
    """
    table, targets = model.item_table(), batch.target_ids
    states = model.user_vectors(batch, table)
    found = {"seq": states, "scores": states @ table.T}
    found["loss_ce"] = catalogue_cross_entropy(states, table, targets)  # the padding counts as an item
    terms = model.further_losses(states, table[batch.item_ids], batch, LossInputs())
    for n, (term, vectors) in enumerate(zip(terms.values(), model.attributes(batch.item_ids), strict=True)):
        found |= {f"attr_emb{n}": vectors, f"loss_attr{n}": term}
        found[f"loss_attr{n}_sum_own"] = term * (model._num_values[n] - 1)
    weights = model.loss_weights.values()
    found["loss_total"] = found["loss_ce"] + sum(w * term for w, term in zip(weights, terms.values(), strict=True))
    return found
