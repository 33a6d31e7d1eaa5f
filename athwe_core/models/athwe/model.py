"""HM4SR and ATHWE behind the seam: the network with its losses, draws and inside view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.models.athwe.config import AthweConfig
from athwe_core.models.athwe.network import Network
from athwe_core.models.athwe.objective import loss_terms, placeholder_mask
from athwe_core.models.protocol import Draws, Explanation, LossInputs, Model, ModelInputs

AUXILIARY_TERMS = ("cp", "idcl", "pcl", "cluster", "diversity")


class Athwe(Network, Model):
    """The network of HM4SR and ATHWE with its losses.

    Args:
        config: stages, sizes and loss terms.
        inputs: item features of the configured modalities; categories and cluster labels for the terms that use them.
    Source: HM4SR eq. 1-27; ATHWE for the wavelet and the terms cluster and diversity.
    """

    def __init__(self, config: AthweConfig, inputs: ModelInputs) -> None:
        super().__init__(
            config.model,
            config.losses,
            inputs.catalogue,
            inputs.time_range,
            compute_dtype=inputs.compute_dtype,
            generator=inputs.generator,
            world=inputs.world,
        )
        self.losses_config = config.losses
        self.batching = config.training.batching
        self.max_length = config.model.max_length
        self.unknown_id_dropout = config.model.unknown_id_dropout
        self.loss_weights = {name: getattr(config.losses, name).weight for name in AUXILIARY_TERMS}
        is_centred = config.model.wavelet.enabled and config.model.wavelet.form == "centred"
        self.has_fixed_shapes = not is_centred  # its transforms are taken by row length
        # Labels of the items belong to the data set: they move with the model and are not saved with it.
        self.register_buffer("item_categories", inputs.catalogue.categories, persistent=False)
        for modality, labels in inputs.catalogue.clusters.items():
            self.register_buffer(f"{modality}_item_clusters", labels, persistent=False)
        self._clustered = tuple(inputs.catalogue.clusters)

    @property
    def labels(self) -> Catalogue:
        """Categories and cluster labels, on the model's device."""
        return Catalogue(
            num_item_rows=self.tables.rows.num_rows,
            categories=cast(Tensor | None, self.item_categories),
            clusters={modality: self.get_buffer(f"{modality}_item_clusters") for modality in self._clustered},
        )

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Which tokens hold the time placeholder (eq. 24), and which items are taken for new, where these are in use."""
        draws: dict[str, Tensor] = {}
        if self.placeholders is not None:
            share, generator = self.losses_config.pcl.mask_share, generator_of("placeholder")
            draws["replaced"] = placeholder_mask(batch, mask_share=share, batching=self.batching, generator=generator)
        if self.unknown_id_dropout > 0:
            drawn = torch.rand(self.tables.rows.num_rows, generator=generator_of("unknown ids"))
            drawn[0] = 1.0  # the padding is no item
            draws["as_new"] = (drawn < self.unknown_id_dropout).to(batch.item_ids.device)
        return draws

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """ce, and cp, idcl, pcl, cluster, diversity where their weight is not 0."""
        rows: Int64[Tensor, " Vr"] | None = None
        if inputs.candidates is not None:
            rows = inputs.candidates.rows(batch.item_ids)
        outputs = self(batch, rows=rows, replaced=inputs.draws.get("replaced"), as_new=inputs.draws.get("as_new"))
        return loss_terms(
            self,
            outputs,
            batch,
            self.labels,
            self.losses_config,
            inputs=inputs,
            seen=self.seen_items(batch),
            compute_dtype=self.compute_dtype,
        )

    def user_vectors(self, batch: PackedBatch, table: Float[Tensor, "V K"] | None = None) -> Float[Tensor, "N K"]:
        """States of all modalities side by side (eq. 19)."""
        return self.score_vectors(self(batch, table).states)

    def item_table(self) -> Float[Tensor, "V K"]:
        """Id embeddings and projected features side by side; where they are divided, those of this process."""
        return self.tables()

    def recompute_stages(self) -> Sequence[nn.Module]:
        """Mixtures, wavelet and Transformer layers."""
        stages = (self.interactive_moe, self.wavelet, self.temporal_moe, *self.transformer.layers)
        return [stage for stage in stages if stage is not None]

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V K"]) -> Explanation:
        """Gates, wavelet bands, attention, and the score by modality."""
        outputs, D = self(batch, table), self.hidden_size
        gates, temporal = outputs.interactive_gates, outputs.temporal_gates
        bands, energy = self._wavelet_energy(outputs.wavelet_input)
        every = (slice(0, len(self.modalities)),)
        tokens = self.input_norm(outputs.mixed.transpose(0, 1), every)
        layers = [weights[:, :, -1].mean(1) for weights in self.transformer.attention(tokens, outputs.grid, every)]
        by_modality = list(enumerate(self.modalities))
        return Explanation(
            score_parts={name: slice(D * m, D * (m + 1)) for m, name in by_modality},
            attention={name: [layer[m].tolist() for layer in layers] for m, name in by_modality},
            temporal_gates=None if temporal is None else temporal.tolist(),
            interactive_gates=None if gates is None else {name: gates[:, m].tolist() for m, name in by_modality},
            wavelet_bands=bands,
            wavelet_energy=energy,
        )

    def _wavelet_energy(self, tokens: Float[Tensor, "T M D"]) -> tuple[tuple[str, ...], dict[str, list[float]]]:
        """Names of the bands, slow to fast, and each band's share in the sum of squares by modality."""
        if self.wavelet is None:
            return (), {}
        low, *highs = self.wavelet.decompose(tokens)
        energies = torch.stack([band.square().sum((0, 2)) for band in (low, *highs[::-1])])
        shares = energies / energies.sum(0)
        names = ("low", *(f"high {level}" for level in range(len(highs), 0, -1)))
        return names, {name: shares[:, m].tolist() for m, name in enumerate(self.modalities)}
