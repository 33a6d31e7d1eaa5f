"""The configuration of MISSRec."""

from __future__ import annotations

from typing import Annotated, Literal

from athwe_core.config_schema import (
    AttentionSection,
    CatalogueLossConfig,
    Config,
    LossesSection,
    NotNegativeReal,
    PositiveReal,
    PositiveWhole,
    Section,
    Share,
    model_validator,
    must,
)
from athwe_core.errors import require

PositiveShare = Annotated[Share, must("be positive", lambda value: value > 0)]


class InterestsConfig(Section):
    """Clusters of item texts and images."""

    ratio: PositiveShare
    """Clusters for each text and image of an item."""
    method: Literal["kmeans", "density_peaks", "one_pass"]
    """`density_peaks`: as in the paper; `one_pass`: as coded, see `one_pass_of_absolutes`."""
    neighbour_share: PositiveShare
    """Share of the texts and images that decide the density of one (density peaks)."""


class MISSRecModelConfig(AttentionSection):
    """Sizes of MISSRec."""

    name: Literal["missrec"]
    inner_size: PositiveWhole
    num_layers: PositiveWhole
    """Of the decoder."""
    num_encoder_layers: PositiveWhole
    id_embedding: bool
    """True: text, image and id of each item (transductive); False: text and image alone."""
    transformer_trainable: bool
    """False keeps the Transformer and the positions as they are, as published after `--init-from` a pre-trained run."""
    fusion: Literal["dynamic", "static", "contextual"]
    """How text and image meet: `dynamic`: in the score, by a learned weight of the better one; `static`: in the score, by
    their mean; `contextual`: as tokens of their own, with the score of `dynamic`."""
    skips_missing: bool
    """True: an item without text (or image) has none; False: it has the bias of the projection, as coded."""
    interests: InterestsConfig


class MISSRecLossConfig(CatalogueLossConfig):
    """Main loss of MISSRec."""

    kind: Literal["full", "sampled", "in_batch"]
    """`full` and `sampled`: cross-entropy of the next item; `in_batch`: over the next items of the batch, which is the
    pre-training."""


class WeightedTerm(Section):
    """A loss term."""

    weight: NotNegativeReal


class SequenceTermConfig(WeightedTerm):
    """Pre-training: a sequence and a copy of it without some items should find each other in the batch."""

    keep_share: Share
    """Probability that the copy keeps an item; it always keeps the first."""


class MISSRecLosses(LossesSection):
    """The `losses` section of MISSRec."""

    catalogue: MISSRecLossConfig
    temperature: PositiveReal
    orthogonal: WeightedTerm
    """Interests of a sequence that point in different directions."""
    sequence: SequenceTermConfig


class MISSRecConfig(Config):
    """Everything that decides a run of MISSRec."""

    model: MISSRecModelConfig
    losses: MISSRecLosses

    @model_validator(mode="after")
    def _legal_losses(self) -> MISSRecConfig:
        kind, weight = self.losses.catalogue.kind, self.losses.sequence.weight
        rule = "must be 0 unless losses.catalogue.kind is in_batch: it is a term of the pre-training"
        require(kind == "in_batch" or weight == 0, "losses.sequence.weight", rule, weight)
        return self
