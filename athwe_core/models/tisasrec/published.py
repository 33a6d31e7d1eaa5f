"""The published TiSASRec networks, of the PyTorch and of the TensorFlow version, as ours."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.models.golden import Golden
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.tisasrec.network import NO_INTERVAL, TiSASRec, TiSASRecConfig


def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output; `_keymask` is the form that does not attend to padding."""
    if golden.setting("variant") == "tf":
        return _form_pairs(golden, "", attends_padding=False)
    pairs = _form_pairs(golden, "", attends_padding=True)
    return pairs | _form_pairs(golden, "_keymask", attends_padding=False)


@torch.no_grad()
def _form_pairs(golden: Golden, ending: str, *, attends_padding: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of the outputs whose names have an ending."""
    model, rows = published_tisasrec(golden, attends_padding=attends_padding), golden.batch()
    batch, table = golden.all_supervised(rows, "in.pos"), model.item_table()
    last = rows.offsets[1:] - 1
    gap = golden.at_rows("in.target_timestamps", rows) - rows.timestamps[last]  # the published unit knows the target
    units = model.units(rows, torch.where(gap > 0, gap, NO_INTERVAL))
    layers = model.layer_states(table[batch.item_ids], batch, units)
    states = model.output_norm(layers[-1])
    ranked = table.clone()
    if golden.setting("variant") == "tf":
        ranked[0] = 0  # the TensorFlow version reads the padding as zeros
    found = {f"block_{n}": state for n, state in enumerate(layers)}
    found |= {"states": states, "seq": states[last], "scores": states[last] @ ranked.T}
    found["pos_logits"], found["neg_logits"] = (
        (states * table[golden.at_tokens(f"in.{kind}", rows)]).sum(1) for kind in ("pos", "neg")
    )
    positive, negative = F.softplus(-found["pos_logits"]).mean(), F.softplus(found["neg_logits"]).mean()
    found |= {"loss_bce_pos": positive, "loss_bce_neg": negative, "loss_bce": positive + negative}
    weight = golden.setting("l2_emb")
    norms, squared = (weight * _with_penalty(model, kind).table_penalty() for kind in ("norm", "squared"))
    used = squared if golden.setting("variant") == "tf" else norms
    found |= {"loss_l2": used, "loss_l2_squared": squared, "loss_total": positive + negative + used}
    pairs = {}
    for name, ours in found.items():
        if f"out.{name}{ending}" in golden:
            is_logit = name.endswith("_logits")
            published = golden.at_tokens(f"out.{name}{ending}", rows) if is_logit else None
            pairs[name + ending] = golden.pair(name + ending, ours, rows) if published is None else (ours, published)
    return pairs


def _with_penalty(model: TiSASRec, kind: Literal["squared", "norm"]) -> TiSASRec:
    model.penalty = model.penalty.model_copy(update={"kind": kind})
    return model


def published_tisasrec(golden: Golden, *, attends_padding: bool) -> TiSASRec:
    """Our network with the published weights of a golden file, in its published form and in evaluation mode.

    Args:
        golden: of the PyTorch version, or with `cfg.variant` tf of the TensorFlow version.
        attends_padding: whether items attend to the padding before them.
    Raises: CheckpointError for a missing weight.
    """
    state = _published_weights(golden)
    table = state["tables.id.weight"]
    config = replace_in(
        build_config("tisasrec"),
        [
            f"model.hidden_size={table.shape[1]}",
            f"model.num_layers={golden.setting('layers', 2)}",
            f"model.num_heads={golden.setting('heads', 1)}",
            f"model.max_length={golden['in.item_seq'].shape[1]}",
            f"model.time_span={len(state['relation_tables.key_interval']) - 1}",
            *("model.positions_from=newest", "model.interval_unit=row", f"model.attends_padding={attends_padding}"),
        ],
    )
    inputs = ModelInputs(Catalogue(num_item_rows=len(table)), TimeRange(0, 1, 1))
    model = TiSASRec(cast(TiSASRecConfig, config), inputs)
    model.load_state_dict(state)
    return model.eval()


def _published_weights(golden: Golden) -> dict[str, Tensor]:
    """Weights by our names, of either version."""
    is_tf = golden.setting("variant") == "tf"
    tables = {"tables.id.weight": "input_embeddings" if is_tf else "item_emb"}
    for side in ("K", "V"):
        ours = {"K": "key", "V": "value"}[side]
        tables[f"relation_tables.{ours}_position"] = f"abs_pos_{side}" if is_tf else f"abs_pos_{side}_emb"
        tables[f"relation_tables.{ours}_interval"] = f"dec_time_{side}" if is_tf else f"time_matrix_{side}_emb"
    state = {
        ours: golden.weight(f"SASRec/{name}/lookup_table" if is_tf else f"{name}.weight")
        for ours, name in tables.items()
    }
    norms, products = {"output_norm": "ln" if is_tf else "last_layernorm"}, {}
    for n in range(golden.setting("layers", 2)):
        block, layer = f"num_blocks_{n}/", f"layers.{n}."
        norms[f"{layer}attention_norm"] = f"{block}ln" if is_tf else f"attention_layernorms.{n}"
        norms[f"{layer}feed_forward_norm"] = f"{block}ln_1" if is_tf else f"forward_layernorms.{n}"
        for ours, torch_name, tf_name in (
            ("query", f"attention_layers.{n}.Q_w", "self_attention/dense"),
            ("key", f"attention_layers.{n}.K_w", "self_attention/dense_1"),
            ("value", f"attention_layers.{n}.V_w", "self_attention/dense_2"),
            ("inner", f"forward_layers.{n}.conv1", "multihead_attention/conv1d"),
            ("outer", f"forward_layers.{n}.conv2", "multihead_attention/conv1d_1"),
        ):
            products[layer + ours] = block + tf_name if is_tf else torch_name
    kinds = {"weight": "Variable_1", "bias": "Variable"}
    for ours, name in norms.items():
        for kind, tf_kind in kinds.items():
            state[f"{ours}.{kind}"] = golden.weight(f"SASRec/{name}/{tf_kind}" if is_tf else f"{name}.{kind}")
    for ours, name in products.items():
        weight = golden.weight(f"SASRec/{name}/kernel" if is_tf else f"{name}.weight").squeeze()
        state[f"{ours}.weight"] = weight.T if is_tf else weight
        state[f"{ours}.bias"] = golden.weight(f"SASRec/{name}/bias" if is_tf else f"{name}.bias")
    return state
