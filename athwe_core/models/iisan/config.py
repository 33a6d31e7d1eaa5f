"""The configuration of IISAN."""

from __future__ import annotations

from typing import Annotated, Literal

from athwe_core.config_schema import CatalogueLossConfig, LossesSection, PositiveWhole, Words, must
from athwe_core.models.sasrec import SASRecConfig, SASRecModelConfig

TOWERS = ("image", "text", "both")


class IISANModelConfig(SASRecModelConfig):
    """Sizes of IISAN."""

    name: Literal["iisan"]  # type: ignore[assignment]
    adapter_size: PositiveWhole
    """Width inside an adapter."""
    towers: Annotated[
        Words, must(f"be some of {', '.join(TOWERS)}", lambda names: 0 < len(names) == len(set(names) & set(TOWERS)))
    ]
    """Side networks: `image` and `text` over one encoder each, `both` over the two."""
    positions_from: Literal["oldest", "newest"]
    """`oldest`: the first item of a row has position 0; `newest`: the last one has position L - 1, as published."""


class IISANLossConfig(CatalogueLossConfig):
    """Main loss of IISAN."""

    kind: Literal["full", "sampled", "in_batch"]
    """Cross-entropy over every item, over a sample, or over the items of the batch, corrected for their popularity."""


class IISANLosses(LossesSection):
    """The `losses` section of IISAN."""

    catalogue: IISANLossConfig


class IISANConfig(SASRecConfig):
    """Everything that decides a run of IISAN."""

    model: IISANModelConfig
    losses: IISANLosses  # type: ignore[assignment]
