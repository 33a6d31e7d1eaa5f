"""The published TiCoSeRec network as ours."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.data.similar_items import item_similarity
from athwe_core.losses.pairwise import binary_cross_entropy
from athwe_core.models.golden import Golden
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.sasrec import published_state
from athwe_core.models.ticoserec.config import OPERATORS, TiCoSeRecConfig
from athwe_core.models.ticoserec.network import TiCoSeRec
from athwe_core.nn.interval_views import (
    Mode,
    by_gap,
    counts_of,
    crop,
    insert,
    mask,
    reorder,
    substitute,
    window_start,
)
from athwe_core.nn.transformer import ONE, AttentionGrid


@torch.no_grad()
def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output: the network, its losses, and the operators where their inputs are there."""
    model, rows = published_ticoserec(golden, reads_padding=True), golden.batch()
    table, grid = model.item_table(), AttentionGrid(rows.grid_tokens, rows.token_slots, rows.rows)
    tokens = model.embed(table[rows.item_ids], model.slots(rows))
    found: dict[str, Tensor] = {}
    for number, layer in enumerate(model.transformer.layers):
        tokens = layer(tokens, grid, ONE)
        found[f"block_{number}"] = tokens[0]
    found |= {"states": tokens[0], "seq": model.user_vectors(rows)}
    found["scores"] = found["seq"] @ table.T
    found["scores_ranked"] = found["scores"].index_put((rows.rows, rows.item_ids), torch.zeros(()))
    targets, negatives = (golden.at_tokens(f"in.{kind}", rows) for kind in ("pos", "neg"))
    positive, negative = ((tokens[0] * table[items]).sum(1) for items in (targets, negatives))
    found["loss_rec"] = binary_cross_entropy(positive, negative[:, None], targets)
    pairs = {name: golden.pair(name, ours, rows) for name, ours in found.items() if f"out.{name}" in golden}
    if "in.aug_seq" in golden:
        views = golden["in.aug_seq"].transpose(0, 1).flatten(0, 1)
        every = torch.ones(len(views) // 2, dtype=torch.bool)
        contrast = model.view_loss(views, every)
        total = found["loss_rec"] + golden.setting("cf_weight", 0.1) * contrast
        for number, states in enumerate(model.view_states(views).chunk(2), start=1):
            pairs[f"aug_states_{number}"] = (states, golden[f"out.aug_states_{number}"])
        plain = published_ticoserec(golden, reads_padding=False).view_loss(views, every)
        for name, ours in (("loss_cl", contrast), ("loss_total", total), ("loss_cl_no_padding", plain)):
            pairs[name] = (ours, golden[f"out.{name}"])
    return pairs | (_operator_pairs(golden) if "in.full_items" in golden else {})


def _operator_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of similarities, windows and views, in the order of the file. Views are right-filled with -1.

    The published operators read the time of the target too, and all gaps of a window but its last one. An item without
    neighbour gets a random one there: rows that hold such an item are not compared.
    """
    n, V = golden["in.lengths"], len(golden["out.offline_similarity"])
    L = golden["in.item_seq"].shape[1]
    place = torch.arange(L)
    items = torch.where(place < n[:, None], golden["in.full_items"][:, :L], 0)
    gaps = torch.where(place < n[:, None], golden["in.full_times"].diff(dim=1)[:, :L], 0)
    users = torch.arange(len(n)).repeat_interleave(n)
    similarity = item_similarity(users.numpy(), items[items > 0].numpy(), num_item_rows=V).toarray()
    pairs = {"offline_similarity": (torch.from_numpy(similarity), golden["out.offline_similarity"])}
    rates = {name: round(golden.setting(f"{name}_rate"), 6) for name in OPERATORS}  # recorded in float32
    counts = {name: counts_of(n, rate) for name, rate in rates.items()}

    def compare(name: str, view: Tensor, lengths: Tensor, rows: Tensor | slice = slice(None)) -> None:
        published = golden[f"out.op_{name}"]
        view = F.pad(view, (0, published.shape[1] - view.shape[1]))
        is_view = torch.arange(published.shape[1]) < lengths[:, None]
        pairs[f"op_{name}"] = (torch.where(is_view, view, -1)[rows], published[rows])

    neighbours = golden["out.offline_top1"]
    has_all = ((neighbours[items] >= 0) | (items == 0)).all(1)
    modes: tuple[Mode, ...] = ("minimum", "maximum")
    for mode in modes:
        starts = {}
        for name, least in (("crop", 3), ("reorder", 2)):
            count = counts[name]
            for form, unread in (("", 2), ("_full_window", 1)):
                start = window_start(gaps, n, count.clamp(min=1), mode, num_gaps=count - unread)
                starts[name + form] = start
                key = f"window_start_{name}_{mode}{form}"
                pairs[key] = (torch.where(count >= least, start, -1), golden[f"out.{key}"])
        is_short = counts["crop"] <= 2
        start = torch.where(is_short, golden[f"in.op_crop_{mode}_random_start"], starts["crop"])
        compare(f"crop_{mode}", *crop(items, start, torch.where(is_short, 1, counts["crop"])))
        order = golden[f"in.op_reorder_{mode}_perm"].clamp(min=0)
        moved = torch.where(counts["reorder"] < 2, 0, counts["reorder"])
        compare(f"reorder_{mode}", reorder(items, starts["reorder"], moved, order), n)
        hidden = by_gap(gaps, n, torch.where(n > 1, counts["mask"], 0), mode)
        compare(f"mask_{mode}", mask(items, hidden), n)
        replaced = by_gap(gaps, n, torch.where(n > 1, counts["substitute"].clamp(min=1), 0), mode)
        if has_all.any():
            compare(f"substitute_{mode}", substitute(items, replaced, neighbours), n, has_all)
        grown = by_gap(gaps, n, counts["insert"].clamp(min=1), mode)
        if has_all.any():
            compare(f"insert_{mode}", *insert(items, n, grown, neighbours, max_length=2 * L), has_all)
    drawn = golden["in.op_mask_random_pos"]
    hidden = ((drawn[:, :, None] == place) & (drawn >= 0)[:, :, None]).any(1)
    compare("mask_random", mask(items, hidden), n)
    return pairs


def published_ticoserec(golden: Golden, *, reads_padding: bool) -> TiCoSeRec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Args:
        golden: of TiCoSeRec.
        reads_padding: whether the states of padding count in a view.
    Raises: CheckpointError for a missing weight.
    """
    sizes, state = published_state(golden)
    settings = [
        *sizes,
        f"model.num_heads={golden.setting('n_heads', 2)}",
        "model.positions_from=newest",
        f"losses.contrastive.temperature={golden.setting('temperature', 1.0)}",
        f"losses.contrastive.reads_padding={reads_padding}",
    ]
    config = replace_in(build_config("ticoserec"), settings)
    catalogue = Catalogue(num_item_rows=len(state["tables.id.weight"]))
    model = TiCoSeRec(cast(TiCoSeRecConfig, config), ModelInputs(catalogue, TimeRange(0, 1, 1)))
    model.load_state_dict(state | {"similar": model.similar})
    return model.eval()
