"""TiCoSeRec: SASRec with contrastive views that even out time intervals (Dang et al., AAAI 2023).

    network and scores as SASRec        loss = binary cross-entropy with one negative + 0.1 * NCE(view 1, view 2)

Each row has two views. A view is the row after one operator: crop or reorder the window of the most even intervals, mask
drawn items, substitute the items with the smallest intervals by similar ones, or insert similar items at the largest
intervals. Rows of at most `threshold` items are not cropped or reordered, and the rows whose intervals are already the most
even stay as they are. A view's vector is all its states end to end; similarity is the dot product. The views begin after a
warm-up. Similar items come from common users; after a second warm-up those of the item table compete with them.

Source: the paper and its authors' code.   Differs: intervals are those between the items of a row; the published code also
reads the time of the target, and takes the variance of a window without its last interval. Positions are counted from the
oldest item (`positions_from: newest` as published). Padding has no part in a view's vector (`reads_padding: true` as
published, where padding attends to everything). The published code turns similarities around and so takes the least similar
item of the table, and its share of rows without views goes by line numbers; here both are as the paper describes. An item
without common users stays itself until the second warm-up, where the published code draws a random one. With several
processes each has the negatives of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import PackedBatch, to_device
from athwe_core.losses.contrastive import symmetric_contrastive_loss
from athwe_core.models.protocol import Draws, LossInputs, ModelInputs
from athwe_core.models.sasrec import SASRec, slots_from_newest
from athwe_core.models.ticoserec.config import TiCoSeRecConfig
from athwe_core.nn.interval_views import (
    by_gap,
    counts_of,
    crop,
    insert,
    mask,
    reorder,
    share_of_least_variance,
    substitute,
    window_start,
)
from athwe_core.nn.transformer import ONE, AttentionGrid

FOR_SHORT_ROWS = ("mask", "insert", "substitute")
HIDDEN = -10_000.0
"""What the published code adds to the score of a key that is padding or in the future."""
_ITEMS_AT_ONCE = 2048


class TiCoSeRec(SASRec):
    """The network.

    Args:
        config: sizes, losses and views.
        inputs: the number of items and their similar items; no features are read.
    """

    has_fixed_shapes = False  # the views begin in a later epoch
    similar: Tensor
    similar_by_users: Tensor
    similarity: Tensor

    def __init__(self, config: TiCoSeRecConfig, inputs: ModelInputs) -> None:
        super().__init__(config, inputs)
        self.settings, self.views, self.contrastive = config.model, config.views, config.losses.contrastive
        self.loss_weights = {"cl": self.contrastive.weight}
        self.epoch = 0
        V, found, scores = inputs.catalogue.num_item_rows, inputs.catalogue.similar_items, inputs.catalogue.similarity
        found = torch.arange(V) if found is None else found
        self.register_buffer("similar_by_users", found, persistent=False)
        self.register_buffer("similarity", torch.zeros(V) if scores is None else scores, persistent=False)
        self.register_buffer("similar", found.clone())

    def slots(self, batch: PackedBatch) -> Int64[Tensor, " T"]:
        """Positions, counted as the configuration says."""
        if self.settings.positions_from == "oldest":
            return batch.positions
        return slots_from_newest(batch, self.max_length)

    def begin_epoch(self, epoch: int, *, is_resumed: bool) -> None:
        """Renew the similar items where those by the item table compete."""
        self.epoch = epoch
        if not is_resumed and self._has_views() and epoch >= self.views.embedding_warm_up_epochs:
            self.similar.copy_(self._more_similar())

    def _has_views(self) -> bool:
        return self.contrastive.weight > 0 and self.epoch >= self.contrastive.warm_up_epochs

    @torch.no_grad()
    def _more_similar(self) -> Int64[Tensor, " V"]:
        """By users or by the table, whichever is more similar after both are scaled to 0..1; by users if equal."""
        best, nearest, least = similar_by_embedding(self.tables.id.weight)
        by_table = (best - least) / (best.max() - least).clamp(min=1e-12)
        by_users = self.similarity / self.similarity.max().clamp(min=1e-12)
        is_by_users = (self.similarity > 0) & (by_users >= by_table)
        return torch.where(is_by_users, self.similar_by_users, nearest)

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Negatives, and after the warm-up two views of each row as `views`, item ids in slots (2 B, L)."""
        draws = dict(super().draw(batch, generator_of))
        if self._has_views():
            draws["views"] = self._in_slots(*self.make_views(batch, generator_of("views")))
        return draws

    def make_views(self, batch: PackedBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views of each row, the first ones first.

        Returns: item ids (2 B, L), right-padded with 0, and lengths (2 B).
        """
        L, row_mask = self.max_length, batch.user_index >= 0
        rectangle = batch.padded_to(L)
        times = rectangle.pad(batch.timestamps)
        gaps, known = F.pad(times.diff(dim=1), (0, 1)).clamp(min=0), (rectangle.lengths - 1).clamp(min=0)
        is_even = share_of_least_variance(gaps, known, row_mask, self.views.unaugmented_share).repeat(2)
        items, gaps, known = rectangle.pad(batch.item_ids).repeat(2, 1), gaps.repeat(2, 1), known.repeat(2)
        lengths = known + 1
        uniform = to_device(torch.rand(len(items), 2 + L, generator=generator), items.device)
        results = self._operate(items, lengths, gaps, known, uniform[:, 1], uniform[:, 2:])
        is_offered = torch.stack(
            [(lengths > self.views.threshold) | (name in FOR_SHORT_ROWS) for name in self.views.operators], dim=1
        )
        number = (uniform[:, 0] * is_offered.sum(1)).long()[:, None]
        is_chosen = is_offered & (is_offered.cumsum(1) - 1 == number) & ~is_even[:, None]
        for column, name in enumerate(self.views.operators):
            view, count = results[name]
            items = torch.where(is_chosen[:, column, None], view, items)
            lengths = torch.where(is_chosen[:, column], count, lengths)
        return items, lengths

    def _operate(
        self, items: Tensor, n: Tensor, gaps: Tensor, known: Tensor, start: Tensor, keys: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The view of every row by every operator; `start` and `keys` are uniform draws."""
        views, place = self.views, torch.arange(items.shape[1], device=items.device)
        cut, moved, masked = (counts_of(n, rate) for rate in (views.crop_rate, views.reorder_rate, views.mask_rate))
        is_short = cut <= 2  # a window of two items has one interval and no variance
        drawn = (start * (n - cut)).long()
        window = window_start(gaps, n, cut.clamp(min=1), "minimum", num_gaps=cut - 1)
        cropped = crop(items, torch.where(is_short, drawn, window), torch.where(is_short, 1, cut))
        window = window_start(gaps, n, moved.clamp(min=1), "minimum", num_gaps=moved - 1)
        order = torch.where(place < moved[:, None], keys, torch.inf).argsort(dim=1)
        reordered = reorder(items, window, torch.where(moved < 2, 0, moved), order)
        masked = torch.where(n > 1, masked, 0)
        if views.mask_mode == "random":
            hidden = torch.where(place < n[:, None], keys, torch.inf).argsort(dim=1).argsort(dim=1) < masked[:, None]
        else:
            hidden = by_gap(gaps, known, masked, views.mask_mode)
        replaced = by_gap(gaps, known, counts_of(n, views.substitute_rate).clamp(min=1), "minimum")
        grown = by_gap(gaps, known, counts_of(n, views.insert_rate).clamp(min=1), "maximum")
        return {
            "crop": cropped,
            "mask": (mask(items, hidden), n),
            "reorder": (reordered, n),
            "insert": insert(items, n, grown, self.similar, max_length=items.shape[1]),
            "substitute": (substitute(items, replaced, self.similar), n),
        }

    def _in_slots(self, items: Tensor, lengths: Tensor) -> Int64[Tensor, "B L"]:
        """Right-padded rows as rows of slots, padded on the left where positions are counted from the newest item."""
        if self.settings.positions_from == "oldest":
            return items
        source = torch.arange(items.shape[1], device=items.device) - (self.max_length - lengths)[:, None]
        return torch.where(source >= 0, items.gather(1, source.clamp(min=0)), 0)

    def view_states(self, slot_items: Int64[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """States of views; those of padding are 0, unless the configuration reads them."""
        B, L = slot_items.shape
        slot_items = F.pad(slot_items, (0, 0, 0, 1))  # the last token of an attention grid with empty slots is padding
        is_item, tokens = slot_items > 0, torch.arange(slot_items.numel(), device=slot_items.device)
        places = tokens.view(slot_items.shape)
        if self.contrastive.reads_padding:
            grid = AttentionGrid(places, tokens, tokens // L)
            hidden = ~(grid.allowed & is_item[:, None])
            grid.bias = torch.zeros_like(grid.bias).masked_fill_(hidden[:, None], HIDDEN)
        else:
            grid = AttentionGrid(torch.where(is_item, places, -1), tokens, tokens // L)
        vectors = self.tables.id(slot_items.flatten())
        states = self.transformer(self.embed(vectors, tokens % L), grid, ONE, None)[0].to(vectors.dtype)
        states = states.view(B + 1, L, -1)[:B]
        return states if self.contrastive.reads_padding else states * is_item[:B, :, None]

    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """The main loss, and after the warm-up the contrastive term `cl`."""
        terms = super().losses(batch, inputs)
        if "views" in inputs.draws:
            parts = 1 if inputs.shards is None else inputs.shards.num_processes
            terms["cl"] = self.view_loss(inputs.draws["views"], batch.user_index >= 0) / parts
        return terms

    def view_loss(self, slot_items: Int64[Tensor, "B2 L"], row_mask: Tensor) -> Float[Tensor, ""]:
        """NCE between the first and the second views of rows."""
        first, second = self.view_states(slot_items).flatten(1).chunk(2)
        temperature = self.contrastive.temperature
        return symmetric_contrastive_loss(
            first, second, temperature=temperature, similarity="dot", target_mask=row_mask
        )


def similar_by_embedding(table: Float[Tensor, "V D"]) -> tuple[Tensor, Tensor, Tensor]:
    """Largest product of each item with another one, that item, and the smallest product of two items.

    Entry 0, the padding, is no item. Scores are computed in blocks of items.
    """
    best, nearest, least = [], [], []
    for block in torch.arange(len(table), device=table.device).split(_ITEMS_AT_ONCE):
        scores = table[block] @ table.T
        row = torch.arange(len(block), device=table.device)
        scores[:, 0] = scores[row, block] = torch.nan
        least.append(scores.nan_to_num(nan=torch.inf)[block > 0].amin() if len(table) > 2 else scores.new_zeros(()))
        value, index = scores.nan_to_num(nan=-torch.inf).max(dim=1)
        is_alone = value == -torch.inf  # the only item of a catalogue
        best.append(torch.where(is_alone, 0, value))
        nearest.append(torch.where(is_alone, block, index))
    return torch.cat(best), torch.cat(nearest), torch.stack(least).amin()
