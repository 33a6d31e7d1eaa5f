"""Another training row with the same target, for each target of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from athwe_core.batch import Histories, PackedBatch, to_device


class SameTargetRows(nn.Module):
    """The training rows by target: the row of an interaction is the latest L items before it.

    Args:
        histories: the training interactions; they belong to the data set and are not saved with the weights.
        max_length: L.
    """

    item_ids: Tensor
    first: Tensor
    """Of the interactions of an interaction's user."""
    keys: Tensor
    """Target and user of each row as one number, ascending."""
    interactions: Tensor
    """The target of each of these rows."""

    def __init__(self, histories: Histories, *, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        lengths = histories.offsets.diff()
        self.num_users = len(lengths)
        user = torch.arange(self.num_users, device=lengths.device).repeat_interleave(lengths)
        is_target = torch.ones_like(user, dtype=torch.bool)
        is_target[histories.offsets[:-1][lengths > 0]] = False  # nothing comes before a user's first item
        targets = is_target.nonzero().flatten()
        keys, order = (histories.item_ids * self.num_users + user)[targets].sort(stable=True)
        self.register_buffer("item_ids", histories.item_ids, persistent=False)
        self.register_buffer("first", histories.offsets[:-1][user], persistent=False)
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("interactions", targets[order], persistent=False)

    def draw(self, batch: PackedBatch, generator: torch.Generator) -> Int64[Tensor, "N L"]:
        """A row of another user with the same target, each with the same probability.

        Args:
            batch: prefix rows.
            generator: CPU generator.
        Returns: item ids, right-padded with 0. The target's own row where no other user has one.
        """
        L, U, row = self.max_length, self.num_users, batch.rows[batch.target_index]
        own = batch.padded_to(L).pad(batch.item_ids)[row]
        if len(self.keys) == 0:
            return own
        item, user = batch.target_ids.clamp(min=0), batch.user_index[row].clamp(min=0)
        begin, end, own_begin, own_end = (
            torch.searchsorted(self.keys, key)
            for key in (item * U, (item + 1) * U, item * U + user, item * U + user + 1)
        )
        others = (end - begin) - (own_end - own_begin)
        draws = to_device(torch.randint(2**62, (len(item),), generator=generator), item.device)
        place = begin + draws % others.clamp(min=1)
        place = torch.where(place >= own_begin, place + own_end - own_begin, place).clamp(max=len(self.keys) - 1)
        target = self.interactions[place]
        index = torch.maximum(self.first[target], target - L)[:, None] + torch.arange(L, device=item.device)
        is_item = index < target[:, None]
        found = torch.where(is_item, self.item_ids[index.clamp(max=len(self.item_ids) - 1)], 0)
        return torch.where((others > 0)[:, None], found, own)
