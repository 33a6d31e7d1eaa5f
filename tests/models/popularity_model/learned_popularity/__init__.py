"""One learned bias for each item: the smallest model that trains on the engine."""

from importlib import resources
from typing import Literal

import torch
from torch import Tensor, nn

from athwe_core.batch import PackedBatch
from athwe_core.config_schema import Config, CrossEntropyLosses, ModelSection
from athwe_core.losses.next_item import loss_scale, next_item_loss
from athwe_core.models.protocol import LossInputs, Model, ModelInputs, ModelSpec


class PopularityModelConfig(ModelSection):
    name: Literal["learned-popularity"]


class PopularityConfig(Config):
    model: PopularityModelConfig
    losses: CrossEntropyLosses


class LearnedPopularity(Model):
    def __init__(self, config: PopularityConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.max_length = config.model.max_length
        self.loss_weights = {}
        self.weight = nn.Parameter(torch.zeros(inputs.catalogue.num_item_rows, 1))

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Tensor]:
        scale = loss_scale(batch.target_ids, inputs.shards, torch.float32, inputs.chunk_elements)
        vectors, table = self.user_vectors(batch), self.item_table()
        ce = next_item_loss(vectors, table, batch.target_ids, scale=scale, candidates=inputs.candidates)
        return {"ce": ce}

    def user_vectors(self, batch: PackedBatch, table: Tensor | None = None) -> Tensor:
        return torch.ones(len(batch.target_index), 1, device=self.weight.device)

    def item_table(self) -> Tensor:
        return self.weight


MODEL = ModelSpec(
    name="learned-popularity",
    summary="one learned bias for each item",
    config=PopularityConfig,
    build=LearnedPopularity,
    presets=resources.files("learned_popularity") / "presets",
)
