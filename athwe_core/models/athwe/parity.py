"""Do the published networks and ours compute the same? Outputs recorded in a golden file against ours.

A golden `.npz` has `w.*` (published weights), `in.*` (inputs) and `out.*` (outputs) entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from athwe_core.batch import Catalogue, PackedBatch
from athwe_core.config import Config
from athwe_core.data.packing import pack_histories
from athwe_core.errors import CheckpointError
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.models.athwe.network import Network, Outputs
from athwe_core.models.athwe.objective import loss_terms
from athwe_core.models.athwe.published import PARTS, published_network, read_npz

_GOLDEN_INPUTS = ("item_seq", "lengths", "timestamps", "targets", "txt_emb", "img_emb", "categories")


def parity_differences(path: Path) -> dict[str, float]:
    """Largest absolute difference from each output recorded in a golden `.npz`, each row taken as one prefix.

    Raises: CheckpointError when the file is no such archive.
    """
    golden = {k: torch.from_numpy(v) for k, v in read_npz(path).items()}
    missing = [f"in.{name}" for name in _GOLDEN_INPUTS if f"in.{name}" not in golden]
    if not any(key.startswith("out.") for key in golden):
        missing.append("out.*")
    if missing:
        raise CheckpointError(str(path), f"must have the entries of a golden file: it lacks {', '.join(missing)}")
    weights = {k[2:]: v for k, v in golden.items() if k.startswith("w.")}
    catalogue = golden_catalogue(golden)
    network, config = published_network(weights, catalogue)
    batch = golden_batch(golden)
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
    expected = {k[4:]: v for k, v in golden.items() if k.startswith("out.")}
    return {
        name: float((value.double() - _select(name, expected[name], batch).double()).abs().max())
        for name, value in found.items()
        if name in expected
    }


def golden_catalogue(golden: Mapping[str, Tensor]) -> Catalogue:
    """Features, categories and clusters of a golden file."""
    clusters = {m: golden[f"in.{p}_clusters"] for m, p in PARTS.items() if f"in.{p}_clusters" in golden}
    features = {"text": golden["in.txt_emb"], "image": golden["in.img_emb"]}
    num_item_rows = features["text"].shape[0]
    return Catalogue(
        num_item_rows=num_item_rows, features=features, categories=golden["in.categories"], clusters=clusters
    )


def golden_batch(golden: Mapping[str, Tensor]) -> PackedBatch:
    """The rows of a golden file as a token stream; `user_index` is the golden row."""
    lengths = golden["in.lengths"].tolist()
    histories = [
        (golden["in.item_seq"][b, :n].tolist(), golden["in.timestamps"][b, :n].tolist()) for b, n in enumerate(lengths)
    ]
    return pack_histories(histories, next_items=golden["in.targets"].tolist())


def _select(name: str, expected: Tensor, batch: PackedBatch) -> Tensor:
    """A golden output in the order of our token stream: (B, L, ...) by token, (B, ...) by row, scalars as they are."""
    user = batch.user_index
    if name.startswith("moe_") or name == "time_embedding":
        return expected[user[batch.rows], batch.positions]
    if name.startswith("seq_") or name == "scores":
        return expected[user]
    return expected


def _golden_outputs(
    network: Network,
    config: Config,
    outputs: Outputs,
    batch: PackedBatch,
    catalogue: Catalogue,
) -> dict[str, Tensor]:
    states = outputs.states
    vectors = network.user_vectors(states)
    found = {"scores": vectors @ outputs.table.T}
    if outputs.time is not None:
        found["time_embedding"] = outputs.time
    for m, modality in enumerate(network.modalities):
        part = "id" if modality == "id" else PARTS[modality]
        found[f"moe_{part}"] = outputs.mixed[:, m]
        found[f"seq_{part}"] = states[m]
    terms = loss_terms(network, outputs, batch, catalogue, config.losses)
    found |= {f"loss_{name}": value for name, value in terms.items()}
    found["loss_ce"] = catalogue_cross_entropy(vectors, outputs.table, batch.target_ids)  # padding row in, as published
    return found


def _golden_wavelet(network: Network, tokens: Tensor) -> dict[str, Tensor]:
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
