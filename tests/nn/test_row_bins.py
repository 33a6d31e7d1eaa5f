"""Bins of rows: places, masks by a slow twin, distinct labels."""

import torch

from athwe_core.data.packing import pack_histories
from athwe_core.nn.row_bins import RowBins, first_of_each, hidden_pairs, hidden_pairs_within

ROWS = torch.tensor([[0, 0, 1, 1, -1], [2, 2, 2, -1, -1]])
LABELS = torch.tensor([[4, 4, 4, 0, 0], [9, 1, 9, 0, 0]])


def test_tokens_come_back_from_their_slots() -> None:
    batch = pack_histories([([5, 6, 7], [0, 0, 0]), ([8], [0]), ([9, 3], [0, 0])])
    bins = RowBins(batch.grid_tokens, batch.token_slots, batch.rows)
    values = torch.arange(12.0).view(6, 2)
    torch.testing.assert_close(bins.take(bins.place(values), torch.tensor([5, 0, 3])), values[[5, 0, 3]])
    assert (bins.rows >= 0).sum() == 6


def test_a_label_counts_once_in_each_row() -> None:
    expected = [[True, False, True, True, True], [True, True, False, True, False]]
    assert first_of_each(ROWS, LABELS).tolist() == expected


def test_a_slot_attends_within_its_row_to_keys_that_are_there() -> None:
    mask = torch.tensor([[True, False, True, True, False], [True, True, False, False, False]])
    keys = torch.cat([ROWS, ROWS[:, :2]], dim=1)
    key_mask = torch.cat([mask, mask[:, :2]], dim=1)
    found = hidden_pairs(ROWS, keys, key_mask, num_heads=2)
    within = hidden_pairs_within(ROWS, mask, num_heads=2)
    for g in range(2):
        for h in range(2):
            for q in range(5):
                for k in range(7):
                    is_same = ROWS[g, q] == keys[g, k]
                    assert found[2 * g + h, q, k] == (not (is_same and (key_mask[g, k] or keys[g, k] < 0)))
                for k in range(5):
                    allowed = ROWS[g, q] == ROWS[g, k] and (mask[g, k] or ROWS[g, k] < 0 or q == k)
                    assert within[2 * g + h, q, k] == (not allowed)
    assert not within.all(-1).any()
