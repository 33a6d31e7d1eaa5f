"""The configuration of UniSRec."""

from __future__ import annotations

from typing import Literal

from athwe_core.config_schema import (
    CatalogueLossConfig,
    LossesSection,
    NotNegativeReal,
    PositiveReal,
    PositiveWhole,
    Rate,
    Section,
    Share,
    model_validator,
)
from athwe_core.errors import require
from athwe_core.models.sasrec import SASRecConfig, SASRecModelConfig


class AdaptorConfig(Section):
    """The mixture of experts from text vectors to item vectors."""

    num_experts: PositiveWhole
    dropout: Rate
    """On the input of the experts."""
    gate_noise: bool
    """Learned noise on the gates while training."""


class UniSRecModelConfig(SASRecModelConfig):
    """Sizes of UniSRec."""

    name: Literal["unisrec"]  # type: ignore[assignment]
    id_embedding: bool
    """True: text and id of each item (transductive); False: text alone (inductive), which serves new items and data sets."""
    encoder_trainable: bool
    """False keeps the Transformer and the positions as they are, as published after `--init-from` a pre-trained run."""
    adaptor: AdaptorConfig


class UniSRecLossConfig(CatalogueLossConfig):
    """Main loss of UniSRec."""

    kind: Literal["full", "sampled", "in_batch"]
    """`full` and `sampled`: cross-entropy of the next item; `in_batch`: contrast with the next items of the batch, which is
    the pre-training."""


class SequenceTermConfig(Section):
    """Pre-training: a sequence and a copy of it without some items should find each other in the batch."""

    weight: NotNegativeReal
    keep_share: Share
    """Probability that the copy keeps an item; it always keeps the first."""


class UniSRecLosses(LossesSection):
    """The `losses` section of UniSRec."""

    catalogue: UniSRecLossConfig
    temperature: PositiveReal
    sequence: SequenceTermConfig
    published_form: bool
    """True trains `in_batch` and `sequence` as coded: a pair with the same next item adds exp(0) to a denominator, and a
    dropped item takes the place of the kept one before it."""


class UniSRecConfig(SASRecConfig):
    """Everything that decides a run of UniSRec."""

    model: UniSRecModelConfig
    losses: UniSRecLosses  # type: ignore[assignment]

    @model_validator(mode="after")
    def _legal_pre_training(self) -> UniSRecConfig:
        kind, weight = self.losses.catalogue.kind, self.losses.sequence.weight
        rule = "must be 0 unless losses.catalogue.kind is in_batch: it is a term of the pre-training"
        require(kind == "in_batch" or weight == 0, "losses.sequence.weight", rule, weight)
        rule = "must be prefix with losses.published_form: which item a dropped one replaces depends on the row's end"
        is_legal = weight == 0 or not self.losses.published_form or self.training.batching == "prefix"
        require(is_legal, "training.batching", rule, self.training.batching, "Use --batching prefix")
        return self
