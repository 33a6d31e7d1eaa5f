"""Recorded outputs of HM4SR and ATHWE against ours."""

from __future__ import annotations

import torch
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.models.athwe.config import AthweConfig
from athwe_core.models.athwe.model import Athwe
from athwe_core.models.athwe.network import Outputs
from athwe_core.models.athwe.objective import loss_terms
from athwe_core.models.athwe.published import PARTS, published_network
from athwe_core.models.golden import Golden
from athwe_core.models.protocol import LossInputs

_GOLDEN_INPUTS = ("in.timestamps", "in.txt_emb", "in.img_emb", "in.categories")


def golden_pairs(golden: Golden) -> dict[str, tuple[Tensor, Tensor]]:
    """(ours, published) for each recorded output, each row taken as one prefix.

    Raises: CheckpointError when the file is not of HM4SR or ATHWE.
    """
    golden.require(*_GOLDEN_INPUTS)
    catalogue = golden_catalogue(golden)
    network, config = published_network(golden.weights, catalogue)
    batch = golden.batch()
    with torch.no_grad():
        mask = golden.get("in.placeholder_mask")
        user = batch.user_index[batch.rows]
        replaced = torch.zeros_like(batch.rows, dtype=torch.bool) if mask is None else mask[user, batch.positions]
        outputs = network(batch, replaced=replaced)
        found = _golden_outputs(network, config, outputs, batch, catalogue)
        if mask is None:
            found["loss_tcl_no_mask"] = found.pop("loss_pcl")
        if "out.wavelet_input" in golden:
            found |= _golden_wavelet(network, golden["out.wavelet_input"])
    return {name: (value, _select(golden, name, batch)) for name, value in found.items() if f"out.{name}" in golden}


def golden_catalogue(golden: Golden) -> Catalogue:
    """Features, categories and clusters of a golden file."""
    clusters = {m: golden[f"in.{p}_clusters"] for m, p in PARTS.items() if f"in.{p}_clusters" in golden}
    features = {"text": golden["in.txt_emb"], "image": golden["in.img_emb"]}
    num_item_rows = features["text"].shape[0]
    return Catalogue(
        num_item_rows=num_item_rows, features=features, categories=golden["in.categories"], clusters=clusters
    )


def _select(golden: Golden, name: str, batch: PackedBatch) -> Tensor:
    """A recorded output in the order of the batch: (B, L, ...) by token, (B, ...) by row, scalars as they are."""
    if name.startswith("moe_") or name == "time_embedding":
        return golden.at_tokens(f"out.{name}", batch)
    if name.startswith("seq_") or name == "scores":
        return golden.at_rows(f"out.{name}", batch)
    return golden[f"out.{name}"]


def _golden_outputs(
    network: Athwe,
    config: AthweConfig,
    outputs: Outputs,
    batch: PackedBatch,
    catalogue: Catalogue,
) -> dict[str, Tensor]:
    states = outputs.states
    vectors = network.score_vectors(states)
    found = {"scores": vectors @ outputs.table.T}
    if outputs.time is not None:
        found["time_embedding"] = outputs.time
    for m, modality in enumerate(network.modalities):
        part = "id" if modality == "id" else PARTS[modality]
        found[f"moe_{part}"] = outputs.mixed[:, m]
        found[f"seq_{part}"] = states[m]
    terms = loss_terms(network, outputs, batch, catalogue, config.losses, inputs=LossInputs())
    found |= {f"loss_{name}": value for name, value in terms.items()}
    found["loss_ce"] = catalogue_cross_entropy(vectors, outputs.table, batch.target_ids)  # padding row in, as published
    return found


def _golden_wavelet(network: Athwe, tokens: Tensor) -> dict[str, Tensor]:
    """The wavelet stage alone on the recorded input: its weighted residual for each modality."""
    assert network.wavelet is not None
    B, L, _ = tokens.shape
    x = tokens.reshape(B * L, len(network.modalities), network.hidden_size)
    offsets = torch.arange(B + 1) * L
    residual = (network.wavelet(x, torch.arange(L).repeat(B), offsets) - x).view(B, L, *x.shape[1:])
    return {
        f"wavelet_residual_{'id' if m == 'id' else PARTS[m]}": residual[:, :, i]
        for i, m in enumerate(network.modalities)
    }
