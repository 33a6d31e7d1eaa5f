"""The one network: optional stages between item tables and scores (HM4SR section 4, and ATHWE).

item tables -> + position -> [interactive MoE] -> [wavelet alignment] -> [temporal MoE]
            -> LayerNorm + dropout -> one Transformer per modality -> scores
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import MODALITIES, Catalogue, PackedBatch, TimeRange
from athwe_core.distributed import ALONE, ProcessGroup
from athwe_core.errors import DataError
from athwe_core.models.athwe.config import AthweLossesConfig, AthweModelConfig
from athwe_core.nn.dropout import dropout
from athwe_core.nn.item_embeddings import ItemEmbeddings, divided_rows, linear, table_and_items
from athwe_core.nn.moe import DenseTemporalMoE, InteractiveMoE, SparseTemporalMoE
from athwe_core.nn.time_encoding import TimeEncoding, buckets_needed
from athwe_core.nn.transformer import AttentionGrid, Encoders, StackedLayerNorm, StackedTransformer
from athwe_core.nn.wavelet import WaveletAlignment

INIT_STD = 0.02
EXPERT_INIT_STD = 0.1


@dataclass(frozen=True)
class Outputs:
    """Everything a loss, a ranking or an analysis reads of one forward pass; token axes follow the batch."""

    table: Float[Tensor, "Vr K"]
    """Item tables side by side: the whole, padding row included, or the rows of some items."""
    rows: Int64[Tensor, " Vr"] | None
    """The items whose rows these are, increasing; None = all."""
    items: Float[Tensor, "T K"]
    """The table rows of the tokens, before positions."""
    interactive_gates: Float[Tensor, "T M E1"] | None
    wavelet_input: Float[Tensor, "T M D"]
    """After the interactive experts, before the wavelet alignment."""
    temporal_input: Float[Tensor, "T M D"]
    """What the temporal experts scale."""
    temporal_gates: Float[Tensor, "T E2"] | None
    time: Float[Tensor, "T R"] | None
    """Time embedding; None without temporal MoE."""
    mixed: Float[Tensor, "T M D"]
    """After both levels of experts, before LayerNorm."""
    grid: AttentionGrid
    """Which tokens attend to which."""
    states: Float[Tensor, "M N D"]
    """After the Transformers, at the supervised tokens."""
    augmented: Float[Tensor, "m N D"] | None
    """The same of text and image when some tokens hold the time placeholder (eq. 24)."""
    next_items: Float[Tensor, "N K"]
    """The table rows of the items that follow."""

    def of_items(self, item_ids: Int64[Tensor, " n"]) -> Float[Tensor, "n K"]:
        """Table rows of items."""
        return self.table.index_select(0, item_ids if self.rows is None else torch.searchsorted(self.rows, item_ids))


class Network(nn.Module):
    """HM4SR and ATHWE; which stages exist is decided by the configuration alone.

    Args:
        model: stages and sizes.
        losses: which auxiliary heads are needed.
        catalogue: item features, categories and clusters; features of the configured modalities must be there.
        time_range: of the training split.
        compute_dtype: dtype of products, and of what the encoders hold, while training; weights, and sums inside kernels, are
            in float32. Evaluation is in float32.
        generator: draws the initial weights.
        world: processes over which the item tables are divided.
    Source: HM4SR eq. 1-19; the wavelet stage is ATHWE's.
    """

    def __init__(
        self,
        model: AthweModelConfig,
        losses: AthweLossesConfig,
        catalogue: Catalogue,
        time_range: TimeRange,
        *,
        compute_dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
        world: ProcessGroup = ALONE,
    ) -> None:
        super().__init__()
        D, M = model.hidden_size, len(model.modalities)
        self.modalities = model.modalities
        self.hidden_size = D
        self.compute_dtype = compute_dtype
        self.dropout_rate = model.dropout
        features = {m: catalogue.features[m] for m in model.modalities if m != "id"}
        self.tables = ItemEmbeddings(
            features,
            hidden_size=D,
            num_item_rows=catalogue.num_item_rows,
            compute_dtype=compute_dtype,
            sparse=losses.catalogue.kind == "sampled",
            is_new=_is_new(catalogue) if model.unknown_id_dropout > 0 else None,
            world=world,
        )
        self.position = nn.Parameter(torch.empty(model.max_length, D))
        chosen = [MODALITIES.index(m) for m in model.modalities]
        self.interactive_moe = _interactive_moe(model, chosen) if model.interactive_moe.enabled else None
        self.wavelet = _wavelet(model, chosen) if model.wavelet.enabled else None
        self.time_encoding = _time_encoding(model, time_range) if model.temporal_moe.enabled else None
        self.temporal_moe = _temporal_moe(model, self.time_encoding) if self.time_encoding is not None else None
        self.input_norm = StackedLayerNorm(num_modalities=M, hidden_size=D)
        self.transformer = StackedTransformer(
            num_modalities=M,
            hidden_size=D,
            inner_size=model.inner_size,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            dropout_rate=model.dropout,
        )
        self.score_weights = nn.Parameter(torch.empty(M)) if model.score_weights else None
        # Heads of the auxiliary losses.
        self.category_head: nn.Linear | None = None
        if losses.cp.weight > 0 and catalogue.categories is not None:
            self.category_head = nn.Linear(M * D, catalogue.categories.shape[1])
        self.cluster_heads = nn.ModuleDict()
        if losses.cluster.weight > 0:
            for name in features:
                if name in catalogue.clusters:
                    self.cluster_heads[name] = nn.Linear(D, int(catalogue.clusters[name].max()) + 1)
        self.placeholders: nn.Linear | None = None
        if losses.pcl.weight > 0 and self.time_encoding is not None and M > 1:
            self.placeholders = nn.Linear(self.time_encoding.width, (M - 1) * D)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight anew: the one place that sets them all.

        normal(0, 0.02) for matrices and embeddings, normal(0, 0.1) for temporal experts, zeros for biases, ones for
        LayerNorm; alpha, wavelet weights as configured; score weights equal.
        """
        shards = divided_rows(self)
        for name, parameter in self.named_parameters():
            leaf = name.rsplit(".", 1)[-1]
            if ("norm" in name and leaf == "weight") or leaf == "score_weights":
                parameter.fill_(1.0)
            elif leaf.endswith("bias"):
                parameter.zero_()
            elif leaf in ("experts", "shared_experts"):
                parameter.normal_(0, EXPERT_INIT_STD, generator=generator)
            elif name in shards:
                shards[name].draw_normal(parameter, INIT_STD, generator)
            else:
                parameter.normal_(0, INIT_STD, generator=generator)
        if self.interactive_moe is not None:
            self.interactive_moe.alpha.copy_(torch.tensor(self.interactive_moe.alpha_init))
        if self.wavelet is not None:
            self.wavelet.weight.copy_(torch.tensor(self.wavelet.weight_init))

    def forward(
        self,
        batch: PackedBatch,
        table: Float[Tensor, "Vr K"] | None = None,
        *,
        rows: Int64[Tensor, " Vr"] | None = None,
        replaced: Bool[Tensor, " T"] | None = None,
        as_new: Bool[Tensor, " V"] | None = None,
    ) -> Outputs:
        """All named outputs of a batch.

        Args:
            table: `self.tables()` where many batches share it.
            rows: increasing ids of the items whose rows are needed, those of the batch among them; None = all.
            replaced: tokens that hold the time placeholder in a second pass of text and image; None = no second pass.
            as_new: items whose ids this pass does not know, besides those that are new; None = none.
        """
        M, D = len(self.modalities), self.hidden_size
        is_low = self.training and self.compute_dtype != torch.float32
        dtype = self.compute_dtype if is_low else self.position.dtype
        if table is None:
            table = self.tables(rows, as_new)
        wanted = torch.cat([batch.item_ids, batch.target_ids.clamp(min=0)])  # padding is the padding
        table, found = table_and_items(table, wanted if rows is None else torch.searchsorted(rows, wanted))
        items, next_items = found.split([batch.item_ids.shape[0], batch.target_ids.shape[0]])
        tokens = items.view(-1, M, D) + F.embedding(batch.positions, self.position)[:, None]
        interactive_gates = temporal_gates = time = None
        if self.interactive_moe is not None:
            tokens, interactive_gates = self.interactive_moe(tokens, dtype)
        wavelet_input = tokens
        if self.wavelet is not None:
            tokens = self.wavelet(tokens, batch.positions, batch.offsets, dtype)
        temporal_input = tokens
        if self.time_encoding is not None and self.temporal_moe is not None:
            time = self.time_encoding(batch.timestamps, batch.intervals)
            tokens, temporal_gates = self.temporal_moe(tokens, time)
        grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
        states = self._encode(tokens, time, replaced, grid, None if batch.all_supervised else batch.target_index, dtype)
        return Outputs(
            table=table,
            rows=rows,
            items=items,
            interactive_gates=interactive_gates,
            wavelet_input=wavelet_input,
            temporal_input=temporal_input,
            temporal_gates=temporal_gates,
            time=time,
            mixed=tokens,
            grid=grid,
            states=states[:M],
            augmented=None if replaced is None else states[M:],
            next_items=next_items,
        )

    def _encode(
        self,
        tokens: Float[Tensor, "T M D"],
        time: Float[Tensor, "T R"] | None,
        replaced: Bool[Tensor, " T"] | None,
        grid: AttentionGrid,
        wanted: Int64[Tensor, " N"] | None,
        dtype: torch.dtype,
    ) -> Float[Tensor, "m N D"]:
        """States of every modality, and behind them those of text and image with placeholders: one pass for both."""
        M, D = len(self.modalities), self.hidden_size
        encoders: Encoders = (slice(0, M),)
        if replaced is not None:
            assert self.placeholders is not None, "the network has no placeholders: losses.pcl.weight is 0"
            assert time is not None
            placeholder = linear(self.placeholders, time, dtype).view(-1, M - 1, D)
            augmented = torch.where(replaced[:, None, None], placeholder, tokens[:, 1:])
            tokens, encoders = torch.cat([tokens, augmented], dim=1), (slice(0, M), slice(1, M))
        normal = self.input_norm(tokens.transpose(0, 1).to(dtype), encoders)
        normal = dropout(normal, self.dropout_rate, training=self.training)
        return self.transformer(normal, grid, encoders, wanted).to(tokens.dtype)

    def score_vectors(self, states: Float[Tensor, "M N D"]) -> Float[Tensor, "N K"]:
        """The vectors whose product with the item table is the score (eq. 19)."""
        if self.score_weights is not None:
            states = states * self.score_weights.softmax(0)[:, None, None]
        return states.transpose(0, 1).flatten(1)


def _is_new(catalogue: Catalogue) -> Bool[Tensor, " V"]:
    """Items that are no training target; the padding is not one of them."""
    counts = catalogue.target_counts
    if counts is None or counts.ndim != 1:
        raise DataError("catalogue", "must have a count of targets for each item, for model.unknown_id_dropout")
    is_new = counts == 0
    is_new[0] = False
    return is_new


def _interactive_moe(model: AthweModelConfig, chosen: list[int]) -> InteractiveMoE:
    section = model.interactive_moe
    return InteractiveMoE(
        hidden_size=model.hidden_size,
        num_modalities=len(chosen),
        num_experts=section.num_experts,
        alpha_init=tuple(section.alpha_init[i] for i in chosen),
    )


def _wavelet(model: AthweModelConfig, chosen: list[int]) -> WaveletAlignment:
    section = model.wavelet
    return WaveletAlignment(
        hidden_size=model.hidden_size,
        num_modalities=len(chosen),
        name=section.name,
        levels=section.levels,
        form=section.form,
        weight_init=tuple(section.weight_init[i] for i in chosen),
    )


def _time_encoding(model: AthweModelConfig, time_range: TimeRange) -> TimeEncoding:
    section = model.time_encoding
    num_buckets = section.num_buckets
    if num_buckets is None:
        num_buckets = buckets_needed(
            section.kind,
            longest_interval=time_range.longest_interval,
            span_seconds=time_range.last - time_range.first,
            buckets_per_log2=section.buckets_per_log2,
        )
    return TimeEncoding(
        kind=section.kind,
        hidden_size=model.hidden_size,
        time_unit=section.time_unit,
        buckets_per_log2=section.buckets_per_log2,
        num_buckets=num_buckets,
        saturation_seconds=section.saturation_seconds,
        frequency=section.frequency,
        origin_seconds=time_range.first,
    )


def _temporal_moe(model: AthweModelConfig, time_encoding: TimeEncoding) -> DenseTemporalMoE | SparseTemporalMoE:
    section = model.temporal_moe
    if section.kind == "dense":
        return DenseTemporalMoE(
            hidden_size=model.hidden_size,
            num_modalities=len(model.modalities),
            time_width=time_encoding.width,
            num_experts=section.num_experts,
            experts_trainable=section.trainable,
        )
    return SparseTemporalMoE(
        hidden_size=model.hidden_size,
        num_modalities=len(model.modalities),
        time_width=time_encoding.width,
        num_experts=section.num_experts,
        num_shared=section.num_shared,
        top_k=section.top_k,
        dropout_rate=model.dropout,
        experts_trainable=section.trainable,
    )
