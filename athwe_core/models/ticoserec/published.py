"""The published TiCoSeRec network as ours."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.losses.pairwise import binary_cross_entropy
from athwe_core.models.golden import Golden
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.sasrec import ONE, published_state
from athwe_core.models.ticoserec.config import TiCoSeRecConfig
from athwe_core.models.ticoserec.network import TiCoSeRec
from athwe_core.nn.transformer import AttentionGrid


@torch.no_grad()
def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output of the network and its losses."""
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
