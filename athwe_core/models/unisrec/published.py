"""The published UniSRec network as ours."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.contrastive import contrastive_loss, exclusion_bias
from athwe_core.models.golden import Golden
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, replace_in
from athwe_core.models.sasrec import published_state
from athwe_core.models.unisrec.config import UniSRecConfig
from athwe_core.models.unisrec.network import UniSRec, same_target_as_one
from athwe_core.nn.transformer import ONE, AttentionGrid

VARIANTS = {"": True, "_inductive": False}
"""Endings of the outputs of a variant, and whether it has ids."""


@torch.no_grad()
def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output; those of the network once more with padded rows."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for ending, has_ids in VARIANTS.items():
        model = published_unisrec(golden, id_embedding=has_ids)
        for padded in ("", " (padded rows)"):
            batch = golden.batch(is_padded=bool(padded))
            for name, ours in _outputs(model, golden, batch).items():
                if f"out.{name}{ending}" in golden:
                    found[f"{name}{ending}{padded}"] = golden.pair(f"{name}{ending}", ours, batch)
    batch, model = golden.batch(), published_unisrec(golden, id_embedding=False)
    if "out.adapted_items" in golden:
        found["adapted_items"] = (model.tables(), golden["out.adapted_items"])
    for name, ours in _pre_training(model, golden, batch).items():
        if f"out.{name}" in golden:
            found[name] = golden.pair(name, ours, batch)
    return found


def _outputs(model: UniSRec, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """The network, its scores, and its loss without and with gate noise."""
    text, items = model.tables.features, model.tables()
    grid = AttentionGrid(batch.grid_tokens, batch.token_slots, batch.rows)
    tokens = model.embed(items[batch.item_ids], batch.positions)
    found = {"adapted_seq": model.tables.adaptor(text[batch.item_ids]), "input_emb": tokens[0]}
    for number, layer in enumerate(model.transformer.layers):
        tokens = layer(tokens, grid, ONE)
        found[f"layer{number}"] = tokens[0]
    found["seq"] = model.encode(items[batch.item_ids], batch)
    found["scores"] = model.user_vectors(batch) @ model.item_table().T
    found["loss_ce"] = _with_padding(model, found["seq"], items, batch)
    if "in.noise_seq" in golden:
        noisy = _vectors(model, text[batch.item_ids], batch.item_ids, golden.at_tokens("in.noise_seq", batch))
        every = torch.arange(len(text))
        table = _vectors(model, text, every, golden["in.noise_items"])
        found["loss_ce_noise"] = _with_padding(model, model.encode(noisy, batch), table, batch)
    return found


def _vectors(model: UniSRec, text: Tensor, items: Tensor, noise: Tensor | None) -> Float[Tensor, "n D"]:
    """Item vectors with gate noise of each use, as published."""
    found = model.tables.adaptor(text, noise=noise)
    return found if model.tables.id is None else found + model.tables.id(items)


def _with_padding(model: UniSRec, states: Tensor, table: Tensor, batch: PackedBatch) -> Float[Tensor, ""]:
    """The cross-entropy in which the padding counts as an item."""
    return catalogue_cross_entropy(*model.scored(states, table, None), batch.target_ids)


def _pre_training(model: UniSRec, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """Both kinds of copies, without and with gate noise, and the denominators as coded, plain, and as meant."""
    text, targets = model.tables.features, batch.target_ids
    is_same = (targets[:, None] == targets).fill_diagonal_(False)
    found: dict[str, Tensor] = {}
    for kind in ("drop", "word"):
        if f"in.keep_{kind}" not in golden:
            continue
        kept = golden.at_tokens(f"in.keep_{kind}", batch)
        copied = text[batch.item_ids]
        if kind == "word":
            copied = torch.where(kept[:, None], copied, golden["in.features_aug"][batch.item_ids])
        kept = model.kept_tokens(batch, kept) if kind == "drop" else torch.ones_like(kept)
        for noise in ("", "noise_"):
            draws = _noise(golden, batch, kind, kept) if noise else (None, None, None)
            states = model.encode(_vectors(model, text[batch.item_ids], batch.item_ids, draws[0]), batch)
            positive = _vectors(model, text[targets], targets, draws[1])
            copies = model.encode_kept(_vectors(model, copied, batch.item_ids, draws[2]), batch, kept)
            if not noise:
                found[f"seq_aug_{kind}"] = copies
            terms = {"si": (states, positive), "ss": (states, copies)}
            for term, (anchors, candidates) in terms.items():
                name = f"loss_pre_{term}_{noise}{kind}"
                found[name] = same_target_as_one(anchors, candidates, targets, model.temperature)
                for ending, excluded in (("plain_own", torch.zeros_like(is_same)), ("excl_own", is_same)):
                    bias = exclusion_bias(excluded)
                    temperatures = [model.temperature]
                    (loss,) = contrastive_loss(anchors[None], candidates[None], bias, temperatures=temperatures)
                    found[f"{name}_{ending}"] = loss
            si, ss = (found[f"loss_pre_{term}_{noise}{kind}"] for term in terms)
            found[f"loss_pre_total_{noise}{kind}"] = si + golden["in.lambda"] * ss
    return found


def _noise(golden: Golden, batch: PackedBatch, kind: str, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Recorded gate noise of the tokens, the targets and the copies' tokens, in the order of the batch."""
    places = f"in.noise_pre_aug_{kind}"
    # the recorded copy has its kept items side by side
    slot = kept.long().cumsum(0) - 1
    first = slot[batch.offsets[:-1]]
    slot = slot - torch.where(kept[batch.offsets[:-1]], first, first + 1)[batch.rows]
    copies = golden[places][batch.user_index[batch.rows], slot.clamp(min=0)]
    return (
        golden.at_tokens(f"in.noise_pre_seq_{kind}", batch),
        golden.at_rows(f"in.noise_pre_pos_{kind}", batch),
        copies,
    )


def published_unisrec(golden: Golden, *, id_embedding: bool) -> UniSRec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Args:
        id_embedding: whether the model has ids.
    Raises: CheckpointError for a missing weight.
    """
    golden.require("in.features")
    sizes, state = published_state(golden)
    num_experts = golden.weight("moe_adaptor.w_gate").shape[1]
    settings = [
        *sizes,
        f"model.num_heads={golden.setting('num_heads', 2)}",
        f"model.id_embedding={str(id_embedding).lower()}",
        f"model.adaptor.num_experts={num_experts}",
        "losses.catalogue.kind=in_batch",
        "losses.sequence.weight=0.001",
        "losses.published_form=true",
        "training.batching=prefix",
    ]
    if "in.temperature" in golden:
        settings.append(f"losses.temperature={golden['in.temperature'].item()}")
    config = replace_in(build_config("unisrec"), settings)
    catalogue = Catalogue(num_item_rows=len(golden["in.features"]), features={"text": golden["in.features"]})
    model = UniSRec(cast(UniSRecConfig, config), ModelInputs(catalogue, TimeRange(0, 1, 1)))
    expert = "moe_adaptor.experts.{}."
    adaptor = {
        "gate_weight": golden.weight("moe_adaptor.w_gate"),
        "noise_weight": golden.weight("moe_adaptor.w_noise"),
        "shift_bias": torch.stack([golden.weight(f"{expert.format(k)}bias")[None] for k in range(num_experts)]),
        "expert_weight": torch.stack([golden.weight(f"{expert.format(k)}lin.weight").T for k in range(num_experts)]),
    }
    ids = state.pop("tables.id.weight")
    state |= {f"tables.adaptor.{name}": value for name, value in adaptor.items()}
    if id_embedding:
        state["tables.id.weight"] = ids
    model.load_state_dict(state)
    return model.eval()
