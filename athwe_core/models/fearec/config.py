"""The configuration of FEARec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from athwe_core.config_schema import NotNegativeReal, PositiveReal, Real, Section, Share, must
from athwe_core.errors import require
from athwe_core.models.id_model import IdLosses
from athwe_core.models.sasrec import SASRecConfig, SASRecModelConfig


class FEARecModelConfig(SASRecModelConfig):
    """Sizes of FEARec."""

    name: Literal["fearec"]  # type: ignore[assignment]
    global_ratio: Annotated[Real, must("be in (0, 1]", lambda ratio: 0 < ratio <= 1)]
    """Share of the frequencies that each layer sees, from high ones in the first to low ones in the last."""
    topk_factor: PositiveReal
    """A layer has int(topk_factor ln L) delays."""
    dual_domain: bool
    """Attention over time beside that by delays."""
    spatial_ratio: Share
    """Its share."""
    filters_time_branch: bool
    """Whether it sees the layer's frequencies only."""
    attention_reads_all: bool
    """True: a position sees all positions of its row, later ones and padding too, as published."""

    @model_validator(mode="after")
    def _has_a_frequency_for_each_layer(self) -> FEARecModelConfig:
        rule = f"must be at least {2 * (self.num_layers - 1)}, so that each of {self.num_layers} layers has a frequency"
        require(self.max_length // 2 + 1 >= self.num_layers, "model.max_length", rule, self.max_length)
        return self


class ContrastiveConfig(Section):
    """Contrastive terms between states of one row in two passes, h and h', and of another row with the same target, h_s."""

    unsupervised_weight: NotNegativeReal
    """Of NCE(h, h'); 0 in the published form us_x."""
    supervised_weight: NotNegativeReal
    """Of NCE(h_s, h or h')."""
    anchor: Literal["first", "second"]
    """Pass that h_s is compared with: `second` = h', the published form us_x; `first` = h, the form us."""
    frequency_weight: NotNegativeReal
    """Of the mean modulus of the spectrum of h' - h_s."""
    similarity: Literal["dot", "cosine"]
    temperature: PositiveReal

    @property
    def has_same_target(self) -> bool:
        """Whether a term compares with another row of the same target."""
        return self.supervised_weight > 0 or self.frequency_weight > 0


class FEARecLosses(IdLosses):
    """The `losses` section of FEARec."""

    contrastive: ContrastiveConfig


class FEARecConfig(SASRecConfig):
    """Everything that decides a run of FEARec."""

    model: FEARecModelConfig
    losses: FEARecLosses

    @model_validator(mode="after")
    def _fits_its_rows(self) -> FEARecConfig:
        require(
            not (self.model.attention_reads_all and self.training.batching == "packed"),
            "training.batching",
            "must be prefix with model.attention_reads_all: true, which sees ahead",
            self.training.batching,
            "Use --batching prefix, or --set model.attention_reads_all=false",
        )
        return self
