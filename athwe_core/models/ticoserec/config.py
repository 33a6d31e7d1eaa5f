"""The configuration of TiCoSeRec."""

from __future__ import annotations

from typing import Annotated, Literal

from athwe_core.config_schema import NotNegativeReal, NotNegativeWhole, PositiveReal, Rate, Section, Share, Words, must
from athwe_core.models.id_model import IdLosses
from athwe_core.models.sasrec import SASRecConfig, SASRecModelConfig

OPERATORS = ("crop", "mask", "reorder", "insert", "substitute")


class TiCoSeRecModelConfig(SASRecModelConfig):
    """Sizes of TiCoSeRec."""

    name: Literal["ticoserec"]  # type: ignore[assignment]
    positions_from: Literal["oldest", "newest"]
    """`oldest`: the first item of a row has position 0; `newest`: the last one has position L - 1, as published."""


class ViewsConfig(Section):
    """How a view of a row is made."""

    operators: Annotated[Words, must(f"be among {', '.join(OPERATORS)}", lambda names: set(names) <= set(OPERATORS))]
    threshold: NotNegativeWhole
    """Longest row that is neither cropped nor reordered."""
    crop_rate: Rate
    """Share of the items that an operator keeps (crop) or changes."""
    mask_rate: Rate
    reorder_rate: Rate
    insert_rate: Rate
    substitute_rate: Rate
    mask_mode: Literal["random", "minimum", "maximum"]
    """Masked items are drawn, or have the smallest or largest intervals."""
    unaugmented_share: Share
    """Share of the rows of a batch, those with the most even intervals, whose views are the rows themselves."""
    embedding_warm_up_epochs: NotNegativeWhole
    """Epochs before similar items by the item table compete with those by common users."""


class ContrastiveConfig(Section):
    """The contrastive term."""

    weight: NotNegativeReal
    temperature: PositiveReal
    warm_up_epochs: NotNegativeWhole
    """Epochs without it."""
    reads_padding: bool
    """True counts the states of padding, as published."""


class TiCoSeRecLosses(IdLosses):
    """The `losses` section of TiCoSeRec."""

    contrastive: ContrastiveConfig


class TiCoSeRecConfig(SASRecConfig):
    """Everything that decides a run of TiCoSeRec."""

    model: TiCoSeRecModelConfig
    losses: TiCoSeRecLosses
    views: ViewsConfig
