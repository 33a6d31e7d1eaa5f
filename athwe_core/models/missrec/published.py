"""The published MISSRec network as ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch, TimeRange
from athwe_core.models.golden import Golden
from athwe_core.models.missrec.config import MISSRecConfig
from athwe_core.models.missrec.interests import density_peaks, one_pass_of_absolutes
from athwe_core.models.missrec.network import MISSRec, RowTokens
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, replace_in

Rows = Int64[Tensor, "B L"]


@torch.no_grad()
def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) of each recorded output: interests, the network, its variants, and both kinds of pre-training."""
    model, batch = published_missrec(golden), golden.batch()
    found = _network(model, golden, batch)
    for ending, settings in (
        ("inductive", ("model.id_embedding=false",)),
        ("static", ("model.fusion=static",)),
        ("contextual", ("model.fusion=contextual",)),
    ):
        variant = published_missrec(golden, *settings)
        found[f"scores_{ending}"] = variant.scores(variant.user_vectors(batch), variant.item_table(), None)
    if "in.item_drop_keep" in golden:
        found |= _pre_training(published_missrec(golden, "model.id_embedding=false"), golden, batch)
    pairs = {name: golden.pair(name, ours, batch) for name, ours in found.items() if f"out.{name}" in golden}
    if "out.scores_ranked" in golden:
        pairs["scores_ranked"] = (found["scores"][:, 1:], golden.at_rows("out.scores_ranked", batch)[:, 1:])
    return pairs | _interests(model, golden)


def _interests(model: MISSRec, golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """The tokens and both clusterings."""
    tokens = model.interest_tokens()
    found = {"interest_tokens": tokens}
    if "in.kmeans_init" in golden:
        found["kmeans_labels"], found["kmeans_centroids"] = one_pass_of_absolutes(tokens, golden["in.kmeans_init"])
    if "cfg.knn_local_size" in golden:
        num_clusters, num_neighbours = golden.setting("num_interest"), golden.setting("knn_local_size")
        clusters = density_peaks(tokens, num_clusters, num_neighbours=num_neighbours)
        found["dpc_knn_labels"], found["dpc_knn_centroids"] = clusters
    return {name: (ours, golden[f"out.{name}"]) for name, ours in found.items() if f"out.{name}" in golden}


def _network(model: MISSRec, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """States, scores and losses of the transductive network; the padding counts as an item."""
    tokens = model.row_tokens(batch, model.tables(batch.item_ids))
    found = {"states": model.encode(replace(tokens, read=torch.arange(batch.num_tokens)), batch)[0]}
    states, _ = model.encode(tokens, batch)
    found["seq"] = F.normalize(states, dim=-1)
    found["scores"] = model.scores(model.user_vectors(batch), model.item_table(), None)
    found["loss_ce"] = F.cross_entropy(found["scores"], batch.target_ids)
    items = golden["in.item_seq"][batch.user_index]
    labels = distinct_interests(model, items, items)
    memory = padded_memory(model, labels)
    found |= {"interest_seq": labels, "memory": memory, "loss_orthogonal": orthogonal_as_coded(memory, labels)}
    found["loss_total"] = found["loss_ce"] + golden.setting("gamma", 1e-4) * found["loss_orthogonal"]
    return found


def distinct_interests(model: MISSRec, text_items: Rows, image_items: Rows) -> Int64[Tensor, "B W"]:
    """Sorted distinct interests of each row's texts and images, 0 where it has padding, right-filled with 0."""
    labels = torch.cat([model.text_interests[text_items], model.image_interests[image_items]], dim=1)
    return torch.nn.utils.rnn.pad_sequence([row.unique() for row in labels], batch_first=True)


def padded_memory(model: MISSRec, labels: Int64[Tensor, "B W"]) -> Float[Tensor, "B W D"]:
    """States of the interests as the published code has them: rows padded to the longest, the padding's states too."""
    memory = model.interest_embeddings[labels]
    for layer in model.encoder:
        memory = layer(memory, src_key_padding_mask=labels == 0)
    return cast(Tensor, model.encoder_norm(memory))


def orthogonal_as_coded(memory: Float[Tensor, "B W D"], labels: Int64[Tensor, "B W"]) -> Float[Tensor, ""]:
    """sum over rows of |share of interests among the columns * sum of all columns|^2 / D"""
    share = (labels > 0).float().mean(1, keepdim=True)
    return (share * memory.sum(1)).square().sum() / memory.shape[-1]


def _pre_training(model: MISSRec, golden: Golden, batch: PackedBatch) -> dict[str, Tensor]:
    """Losses of both kinds of copies as coded."""
    items, lengths = golden["in.item_seq"][batch.user_index], golden["in.lengths"][batch.user_index]
    parts, targets, weight = model.tables(batch.item_ids), batch.target_ids, golden.setting("gamma", 1e-4)
    states, _ = model.encode(model.row_tokens(batch, parts), batch)
    states = F.normalize(states, dim=-1)
    directions, own = model.item_table()[targets], torch.arange(len(targets))
    contrast = F.cross_entropy(model.scores(states / model.temperature, directions, None), own)
    labels = distinct_interests(model, items, items)
    orthogonal = orthogonal_as_coded(padded_memory(model, labels), labels)
    found = {"pretrain_seq": states}
    keep = {kind: golden[f"in.{kind}_keep"][batch.user_index] for kind in ("item_drop", "word_drop")}
    moved, moved_lengths = drop_as_coded(items, lengths, keep["item_drop"])
    aug = model.tables.project("text", golden["in.text_features_aug"])
    is_kept = keep["word_drop"][batch.rows, batch.positions]
    worded = replace(parts, text=torch.where(is_kept[:, None], parts.text, aug[batch.item_ids]))
    copies: dict[str, Any] = {
        "item_drop": (moved, items, moved_lengths, None),
        "item_drop_aligned": (moved, moved, moved_lengths, None),
        "word_drop": (items, items, lengths, worded),
    }
    for kind, (text_items, image_items, count, copied) in copies.items():
        tokens = _copy_tokens(model, batch, text_items, image_items, count, copied)
        others = F.normalize(model.encode(tokens, batch)[0], dim=-1)
        sequence = F.cross_entropy(states @ others.T / model.temperature, own)
        if kind == "item_drop_aligned":
            found["loss_item_drop_seq_seq_aligned"] = sequence
            continue
        labels = distinct_interests(model, text_items, image_items)
        more = orthogonal_as_coded(padded_memory(model, labels), labels)
        found |= {f"{kind}_seq": text_items, f"{kind}_len": count, f"{kind}_interest_seq": labels}
        found |= {f"loss_{kind}_seq_item": contrast, f"loss_{kind}_seq_seq": sequence}
        found |= {f"loss_{kind}_orthogonal": orthogonal, f"loss_{kind}_orthogonal_aug": more}
        total = contrast + golden.setting("lambda", 1e-3) * sequence + weight * (orthogonal + more)
        found[f"loss_{kind}_total"] = total
    return found


def drop_as_coded(items: Rows, lengths: Int64[Tensor, " B"], keep: Tensor) -> tuple[Rows, Int64[Tensor, " B"]]:
    """Rows after the published item drop: a dropped item takes the place of the kept one before it; the first is kept."""
    place = torch.arange(items.shape[1])
    keep = keep | (place == 0)
    ends = torch.where(place < lengths[:, None] - 1, keep.roll(-1, 1), place == lengths[:, None] - 1)
    order = torch.where(ends, place, items.shape[1]).argsort(dim=1, stable=True)
    count = ends.sum(1)
    return torch.where(place < count[:, None], items.gather(1, order), 0), count


def _copy_tokens(
    model: MISSRec,
    batch: PackedBatch,
    text_items: Rows,
    image_items: Rows,
    count: Int64[Tensor, " B"],
    copied: Any,
) -> RowTokens:
    """Copies of the rows in the slots of their tokens: the first `count` slots are there; images may be of other items."""
    text, image = (items[batch.rows, batch.positions] for items in (text_items, image_items))
    parts = replace(model.tables(text), image=model.tables(image).image) if copied is None else copied
    interests = model.text_interests[text], model.image_interests[image]
    there = batch.positions < count[batch.rows]
    return RowTokens(parts, interests, batch.positions, there, batch.offsets[:-1] + count - 1)


def published_missrec(golden: Golden, *overrides: str) -> MISSRec:
    """Our network with the published weights of a golden file, in evaluation mode.

    Args:
        overrides: settings of a variant.
    Raises: CheckpointError for a missing weight.
    """
    golden.require("in.text_features", "in.image_features", "w.text_adaptor.weight")
    weights, position = golden.weights, golden.weight("position_embedding.weight")
    num_layers = {
        part: 1 + max(int(name.split(".")[3]) for name in weights if name.startswith(f"trm_model.{part}.layers."))
        for part in ("encoder", "decoder")
    }
    num_interests = len(golden.weight("interest_embeddings")) - 1
    V = len(golden["in.text_features"])
    settings = [
        f"model.hidden_size={position.shape[1]}",
        f"model.inner_size={len(golden.weight('trm_model.encoder.layers.0.linear1.bias'))}",
        f"model.num_heads={golden.setting('n_heads', 2)}",
        f"model.max_length={len(position)}",
        f"model.interests.ratio={num_interests / (2 * (V - 1))}",
        f"losses.temperature={golden.setting('temperature', 0.07)}",
        "model.skips_missing=false",
        f"model.num_encoder_layers={num_layers['encoder']}",
        f"model.num_layers={num_layers['decoder']}",
        *overrides,
    ]
    config = cast(MISSRecConfig, replace_in(build_config("missrec"), settings))
    features = {name: golden[f"in.{name}_features"] for name in ("text", "image")}
    model = MISSRec(config, ModelInputs(Catalogue(num_item_rows=V, features=features), TimeRange(0, 1, 1)))
    state = {
        "position": position,
        "interest_embeddings": golden.weight("interest_embeddings"),
        "text_interests": golden["w.plm_interest_lookup_table"],
        "image_interests": golden["w.img_interest_lookup_table"],
    }
    if config.model.id_embedding:
        state["tables.id.weight"] = golden.weight("item_embedding.weight")
    if config.model.fusion != "static":
        state["preference"] = golden.weight("fusion_factor")
    for kind in ("weight", "bias"):
        state[f"input_norm.{kind}"] = golden.weight(f"LayerNorm.{kind}")
        for ours, published in (("text", "text_adaptor"), ("image", "img_adaptor")):
            state[f"tables.projections.{ours}.{kind}"] = golden.weight(f"{published}.{kind}")
        for part in num_layers:
            state[f"{part}_norm.{kind}"] = golden.weight(f"trm_model.{part}.norm.{kind}")
    for name in weights:
        _, part, middle, *rest = (*name.split("."), "", "")
        if part in num_layers and middle == "layers":
            state[".".join([part, *(each for each in rest if each)])] = golden.weight(name)
    model.load_state_dict(state)
    return model.eval()
