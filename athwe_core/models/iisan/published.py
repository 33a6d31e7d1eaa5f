"""The published IISAN network, cached form, as ours."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.models.golden import Golden
from athwe_core.models.iisan.config import IISANConfig
from athwe_core.models.iisan.network import IISAN
from athwe_core.models.protocol import LossInputs, ModelInputs
from athwe_core.models.registry import build_config, replace_in
from athwe_core.nn.transformer import ONE, AttentionGrid

MASKED = -1e4
TOWERS = {
    "image": ("cv", "cv_pre_fc", "fc_cv"),
    "text": ("bert", "bert_pre_fc", "fc_bert"),
    "both": ("mm", "fc_mm_down", "fc_mm"),
}
"""Published names of each tower's adapters and gates, last linear layer, and the one before it."""


@torch.no_grad()
def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output."""
    model, batch = published_iisan(golden), golden.batch()
    by_tower = model.tables.by_tower({name: model.tables.get_buffer(f"{name}_states") for name in ("text", "image")})
    pairs = {f"item_{ours}": (by_tower[tower], golden[f"out.item_{ours}"]) for ours, tower in _ITEM_OUTPUTS.items()}
    table = model.item_table()
    pairs["item_emb"] = (table, golden["out.item_emb"])
    grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
    tokens, found = model.embed(table[batch.item_ids], model.slots(batch)), {}
    for number, layer in enumerate(model.transformer.layers):
        tokens = layer(tokens, grid, ONE)
        found[f"block_{number}"] = tokens[0]
    found |= {"states": tokens[0], "seq": model.user_vectors(batch)}
    found["scores"] = found["seq"] @ table.T
    pairs |= {name: golden.pair(name, ours, batch) for name, ours in found.items() if f"out.{name}" in golden}
    ranked = found["scores"].index_put((batch.rows, batch.item_ids), torch.tensor(-torch.inf))[:, 1:]
    published = golden.at_rows("out.scores_ranked", batch)
    published = published[:, 1:] if published.shape[1] == len(table) else published
    pairs["scores_ranked"] = (ranked.nan_to_num(neginf=MASKED), published.nan_to_num(neginf=MASKED))
    return pairs | _loss_pairs(model, golden, table)


_ITEM_OUTPUTS = {"image": "image", "text": "text", "mm": "both"}


def _loss_pairs(model: IISAN, golden: Golden, table: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The published logits column by column, and our loss over distinct items on the same rows."""
    samples, log_mask = golden["in.sample_items_id"], golden["in.log_mask"].bool()
    width = samples.shape[1]
    # a row is its items and its target, of which every item but the first is predicted
    batch = golden.all_supervised(golden.batch(), "in.item_seq")
    states = model.user_vectors(batch)
    by_slot = torch.zeros(*log_mask.shape, states.shape[1])
    by_slot[batch.user_index[batch.rows], golden.first_slot[batch.user_index[batch.rows]] + batch.positions] = states
    flat = samples.flatten()
    row, slot = log_mask.nonzero(as_tuple=True)
    labels = row * width + slot + 1
    logits = by_slot[log_mask] @ table[flat].T - golden["in.pop_prob"].log()[flat]
    is_held = (samples[row][:, :, None] == flat).any(1) & ~F.one_hot(labels, len(flat)).bool()
    logits = logits.masked_fill(is_held | (flat == 0), MASKED)
    found = {"loss_logits": logits, "loss_labels": labels}
    targets = samples[
        batch.user_index[batch.rows], golden.first_slot[batch.user_index[batch.rows]] + batch.positions + 1
    ]
    found["loss_ce"] = model.losses(replace(batch, target_ids=targets), LossInputs())["ce"]
    return {name: (ours, golden[f"out.{name}"]) for name, ours in found.items() if f"out.{name}" in golden}


def published_iisan(golden: Golden) -> IISAN:
    """Our network with the published weights of a golden file, in evaluation mode.

    Raises: CheckpointError for a missing weight.
    """
    golden.require("in.image_states", "in.text_states", "in.pop_prob", "cfg.side_states")
    encoder = "user_encoder.transformer_encoder."
    position, block = golden.weight(f"{encoder}position_embedding.weight"), f"{encoder}transformer_blocks."
    chosen = golden["cfg.side_states"]
    states = {name: golden[f"in.{name}_states"][:, chosen] for name in ("text", "image")}
    num_layers = sum(f"w.{block}{n}.feed_forward.w_1.weight" in golden for n in range(100))
    settings = [
        f"model.hidden_size={position.shape[1]}",
        f"model.inner_size={len(golden.weight(f'{block}0.feed_forward.w_1.weight'))}",
        f"model.num_layers={num_layers}",
        f"model.num_heads={golden.setting('heads', 2)}",
        f"model.max_length={len(position)}",
        f"model.adapter_size={len(golden.weight('mm_encoder.cv_adapter_list.0.fc_down.bias'))}",
        "model.positions_from=newest",
    ]
    config = cast(IISANConfig, replace_in(build_config("iisan"), settings))
    catalogue = Catalogue(num_item_rows=len(states["text"]), layer_states=states)
    model = IISAN(config, ModelInputs(catalogue, TimeRange(0, 1, 1)))
    model.log_popularity.copy_(golden["in.pop_prob"].log())
    state = {"position": position}
    for kind in ("weight", "bias"):
        state[f"input_norm.{kind}"] = golden.weight(f"{encoder}layer_norm.{kind}")[None, None]
        state[f"tables.join.{kind}"] = golden.weight(f"com_dense.{kind}")
        for tower, (adapters, outer, inner) in TOWERS.items():
            state[f"tables.towers.{tower}.outer.{kind}"] = golden.weight(f"mm_encoder.{outer}.{kind}")
            state[f"tables.towers.{tower}.inner.{kind}"] = golden.weight(f"mm_encoder.{inner}.{kind}")
            for n in range(len(chosen)):
                for half in ("down", "up"):
                    name = f"mm_encoder.{adapters}_adapter_list.{n}.fc_{half}.{kind}"
                    state[f"tables.towers.{tower}.{half}.{n}.{kind}"] = golden.weight(name)
    for tower in TOWERS:
        gates = [golden.weight(f"mm_encoder.side_gate_params_{_GATES[tower]}.{n}") for n in range(len(chosen))]
        state[f"tables.towers.{tower}.gates"] = torch.cat(gates)
    for n in range(num_layers):
        state |= {f"transformer.layers.{n}.{name}": value for name, value in _block(golden, f"{block}{n}.").items()}
    model.load_state_dict(state)
    return model.eval()


_GATES = {"image": "cv", "text": "text", "both": "mm"}


def _block(golden: Golden, prefix: str) -> dict[str, Tensor]:
    """Weights of one block of the user encoder by our names."""
    attention, feed = f"{prefix}multi_head_attention.", f"{prefix}feed_forward."
    qkv = [golden.weight(f"{attention}w_{name}.weight").T for name in "QKV"]
    state = {"qkv_weight": torch.cat(qkv, dim=1)[None], "out_weight": golden.weight(f"{attention}fc.weight").T[None]}
    for ours, published in (("inner", "w_1"), ("outer", "w_2")):
        state[f"{ours}_weight"] = golden.weight(f"{feed}{published}.weight").T[None]
        state[f"{ours}_bias"] = golden.weight(f"{feed}{published}.bias")[None, None]
    for ours, published in (("attention", attention), ("feed_forward", feed)):
        for kind in ("weight", "bias"):
            state[f"{ours}_norm.{kind}"] = golden.weight(f"{published}layer_norm.{kind}")[None, None]
    return state
