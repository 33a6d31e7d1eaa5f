"""The published FEARec network as ours."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.models.fearec.config import FEARecConfig
from athwe_core.models.fearec.network import FEARec
from athwe_core.models.golden import Golden, outputs_of
from athwe_core.models.protocol import LossInputs, ModelInputs, total_loss
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.sasrec import published_state
from athwe_core.nn.frequency_attention import FrequencyAttentionLayer

TERMS = {"unsupervised": "loss_nce_unsup", "supervised": "loss_nce_sem", "frequency": "loss_fredom"}
"""Recorded names of our terms."""


@torch.no_grad()
def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output: evaluation, then training without dropout."""
    model, batch = published_fearec(golden), golden.batch()
    table = model.item_table()
    states = model.user_vectors(batch, table)
    found = {"seq": states, "scores": states @ table.T} | _layer_outputs(model, golden, ending="", delays="eval")
    model.train()
    items = table[batch.item_ids]
    states = model.encode(items, batch)
    ce = catalogue_cross_entropy(states, table, batch.target_ids)  # the padding counts as an item
    found |= {"seq_train": states, "loss_ce": ce}
    found |= _layer_outputs(model, golden, ending="_train", delays="train")
    if "in.sem_aug" in golden:
        item_ids = golden.at_rows("in.sem_aug", batch)
        found["seq_sem_train"] = model.encode_rows(table[item_ids], item_ids > 0)
        terms = model.further_losses(states, items, batch, LossInputs(draws={"same_target": item_ids}))
        found |= {TERMS[name]: value for name, value in terms.items()}
        found["loss_total"] = total_loss({"ce": ce} | terms, model.loss_weights)
    else:
        found["loss_total"] = ce
    recorded = {name: ours for name, ours in found.items() if f"out.{name}" in golden}
    of_batch = [name for name in recorded if name.startswith("delay") and name.endswith("_train")]  # not of each row
    pairs = {name: golden.pair(name, ours, batch) for name, ours in recorded.items() if name not in of_batch}
    return pairs | {name: (recorded[name], golden[f"out.{name}"]) for name in of_batch}


def _layer_outputs(model: FEARec, golden: Golden, *, ending: str, delays: str) -> dict[str, Tensor]:
    """States of all slots after each layer, in the order of the batch's tokens, and the delays of each layer."""
    batch = golden.batch()
    rows = batch.padded_to(model.max_length)
    x = model.embed(model.with_padding(model.item_table()[batch.item_ids], rows))
    found = {f"input_emb{ending}": rows.unpad(x)}
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, FrequencyAttentionLayer)
        q, k, _ = layer.projections(x)
        picked = layer.pick(layer.correlation(q, k), rows.mask.any(1))
        found[f"delay{number}_{delays}"] = picked if delays == "eval" else picked[0]
        with outputs_of({"attention": layer.attention_norm}) as seen:
            x = layer(x, rows.mask)
        found[f"layer{number}_attn{ending}"] = rows.unpad(seen["attention"].view(x.shape))
        found[f"layer{number}{ending}"] = rows.unpad(x)
    return found


def published_fearec(golden: Golden) -> FEARec:
    """Our network with the published weights of a golden file, in evaluation mode, without dropout.

    Raises: CheckpointError for a missing weight.
    """
    names = {"encoder": "item_encoder", "attention": "hybrid_attention", "projection": "{}_layer"}
    sizes, state = published_state(golden, **names)
    config = replace_in(build_config("fearec"), [*sizes, *_settings(golden)])
    catalogue = Catalogue(num_item_rows=len(state["tables.id.weight"]))
    model = FEARec(cast(FEARecConfig, config), ModelInputs(catalogue, TimeRange(0, 1, 1)))
    model.load_state_dict({name.removeprefix("transformer."): value for name, value in state.items()})
    return model.eval()


def _settings(golden: Golden) -> list[str]:
    """The settings of a golden file as overrides."""
    contrast = golden.setting("contrast", "none")
    weights = {
        "unsupervised_weight": golden.setting("lmd", 0.0) if contrast == "us" else 0.0,
        "supervised_weight": golden.setting("lmd_sem", 0.0) if contrast in ("us", "us_x") else 0.0,
        "frequency_weight": 0.1 if golden.setting("fredom", False) else 0.0,
    }
    return [
        "model.dropout=0",
        f"model.num_heads={golden.setting('num_heads', 2)}",
        f"model.global_ratio={golden.setting('global_ratio')}",
        f"model.topk_factor={golden.setting('topk_factor')}",
        f"model.dual_domain={golden.setting('dual_domain')}",
        f"model.filters_time_branch={golden.setting('std')}",
        f"model.spatial_ratio={golden.setting('spatial_ratio')}",
        *(f"losses.contrastive.{name}={weight}" for name, weight in weights.items()),
        f"losses.contrastive.anchor={'first' if contrast == 'us' else 'second'}",
        f"losses.contrastive.similarity={'cosine' if golden.setting('sim', 'dot') == 'cos' else 'dot'}",
        f"losses.contrastive.temperature={golden.setting('tau', 1.0)}",
    ]
