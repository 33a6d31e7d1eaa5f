"""Weights of the published HM4SR and ATHWE code, read into our network.

The published checkpoints are RecBole `.pth` files; the golden files are `.npz` archives with `w.*` entries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from athwe_core.batch import Catalogue, TimeRange
from athwe_core.errors import CheckpointError
from athwe_core.models.athwe.config import AthweConfig
from athwe_core.models.athwe.model import Athwe
from athwe_core.models.golden import read_npz
from athwe_core.models.protocol import ModelInputs
from athwe_core.models.registry import build_config, replace_in

PARTS = {"id": "item", "text": "txt", "image": "img"}
"""Our modality -> the published code's name in most places."""

_RESAVE = (
    "In the environment it was made in, run: import torch; "
    "state = torch.load('FILE.pth', weights_only=False)['state_dict']; "
    "torch.save({k: v.cpu() for k, v in state.items()}, 'weights.pth')"
)


def read_published_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a published `.pth`/`.pt` checkpoint or in the `w.*` entries of an `.npz`, under published names.

    Raises: CheckpointError when the file is missing, is no such file, or holds pickled objects beside tensors (the remedy
        prints the lines that save its state dict again).
    """
    if not path.is_file():
        raise CheckpointError(str(path), "must be a file", remedy="Check the path")
    if path.suffix == ".npz":
        return {k[2:]: torch.from_numpy(v) for k, v in read_npz(path).items() if k.startswith("w.")}
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            str(path), f"cannot be read as tensors only ({type(error).__name__})", remedy=_RESAVE
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(str(path), "must hold a state dict of tensors", remedy=_RESAVE)
    return {str(k): v for k, v in state.items()}


def published_config(weights: Mapping[str, Tensor]) -> AthweConfig:
    """The preset and sizes that published weights were made with: HM4SR with times in seconds, or ATHWE."""
    is_athwe = "fusion_weights" in weights
    D = _shape(weights, "item_embedding.weight")[1]
    layers = 1 + max((int(m[1]) for k in weights if (m := re.match(r"item_seq\.layer\.(\d+)\.", k))), default=-1)
    overrides = [
        "training.batching=prefix",
        "model.time_encoding.time_unit=seconds",
        f"model.hidden_size={D}",
        f"model.inner_size={_shape(weights, 'item_seq.layer.0.feed_forward.dense_1.weight')[0]}",
        f"model.num_layers={layers}",
        f"model.max_length={_shape(weights, 'position_embedding.weight')[0]}",
    ]
    if is_athwe:
        experts = _shape(weights, "time_moe.moe.router.gate.weight")[0]
        levels = len({k.split(".")[4] for k in weights if k.startswith("time_moe.wavelet_aligner.high_g.item.")})
        overrides += [f"model.wavelet.levels={levels}", f"model.temporal_moe.num_experts={experts}"]
    else:
        experts = _shape(weights, "time_moe.gate.weight")[0]
        overrides += [
            f"model.time_encoding.num_buckets={_shape(weights, 'time_moe.time_embedding.weight')[0]}",
            f"model.interactive_moe.num_experts={_shape(weights, 'start_moe.gate_id.weight')[0]}",
            f"model.temporal_moe.num_experts={experts}",
            f"model.temporal_moe.top_k={experts}",
        ]
    return cast(AthweConfig, replace_in(build_config("athwe-published" if is_athwe else "hm4sr"), overrides))


def published_network(
    weights: Mapping[str, Tensor], catalogue: Catalogue, *, draw_missing_experts: bool = False
) -> tuple[Athwe, AthweConfig]:
    """Our network with published weights, in evaluation mode, and its configuration.

    Args:
        weights: by published name.
        catalogue: the item features the weights were trained with.
        draw_missing_experts: the published code never saves the temporal experts and draws new ones at each start; with
            True they are drawn here too, otherwise their absence is an error.
    Raises: CheckpointError for a missing weight or one of the wrong shape.
    """
    config = published_config(weights)
    time_range = TimeRange(first=0, last=1, longest_interval=1)
    network = Athwe(config, ModelInputs(catalogue, time_range))
    D = config.model.hidden_size
    state = _translate(weights, config)
    for modality in network.cluster_heads:  # trained on as many clusters as there were, however many items lie in them
        network.cluster_heads[modality] = nn.Linear(D, state[f"cluster_heads.{modality}.bias"].shape[0])
    own = network.state_dict()
    for name in ("experts", "shared_experts"):
        key = f"temporal_moe.{name}"
        if key in own and key not in state:
            if not draw_missing_experts:
                raise CheckpointError(
                    "published weights",
                    "lack the temporal experts, which the published code does not save",
                    remedy="Add them under their attribute names, or pass draw_missing_experts=True",
                )
            state[key] = own[key]
    state["time_encoding.origin"] = own["time_encoding.origin"]
    for key, value in own.items():
        if key not in state:
            raise CheckpointError(
                "published weights", f"lack what becomes {key}", remedy="Is it another network's file?"
            )
        if state[key].shape != value.shape:
            rule = f"must have shape {tuple(value.shape)} as {key}"
            raise CheckpointError("published weights", rule, tuple(state[key].shape), f"Hidden size was read as {D}")
    network.load_state_dict({key: state[key] for key in own})
    return network.eval(), config


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in weights:
        raise CheckpointError("published weights", f"lack {name}", remedy="Is it a checkpoint of HM4SR or ATHWE?")
    return tuple(weights[name].shape)


def _translate(weights: Mapping[str, Tensor], config: AthweConfig) -> dict[str, Tensor]:
    """Published names and layouts to ours; ours keeps matrices input-first and stacked over modalities."""
    w = _Weights(weights)
    state = {
        "tables.id.weight": w["item_embedding.weight"],
        "position": w["position_embedding.weight"],
        "category_head.weight": w["cat_linear.weight"],
        "category_head.bias": w["cat_linear.bias"],
        "input_norm.weight": w.stack("{}_ln.weight")[:, None],
        "input_norm.bias": w.stack("{}_ln.bias")[:, None],
    }
    for kind in ("weight", "bias"):
        for modality in ("text", "image"):
            state[f"tables.projections.{modality}.{kind}"] = w[f"{PARTS[modality]}_projection.{kind}"]
        state[f"placeholders.{kind}"] = torch.cat([w[f"placeholder_txt.{kind}"], w[f"placeholder_img.{kind}"]])
    for layer in range(config.model.num_layers):
        source, ours = f"{{}}_seq.layer.{layer}", f"transformer.layers.{layer}"
        attention, feed = f"{source}.multi_head_attention", f"{source}.feed_forward"
        qkv = ("query", "key", "value")
        state[f"{ours}.qkv_weight"] = torch.cat([w.matrices(f"{attention}.{part}.weight") for part in qkv], dim=2)
        state[f"{ours}.qkv_bias"] = torch.cat([w.stack(f"{attention}.{part}.bias") for part in qkv], dim=1)[:, None]
        for name, published in (
            ("out", f"{attention}.dense"),
            ("inner", f"{feed}.dense_1"),
            ("outer", f"{feed}.dense_2"),
        ):
            state[f"{ours}.{name}_weight"] = w.matrices(f"{published}.weight")
            state[f"{ours}.{name}_bias"] = w.stack(f"{published}.bias")[:, None]
        for name, published in (("attention", attention), ("feed_forward", feed)):
            for kind in ("weight", "bias"):
                state[f"{ours}.{name}_norm.{kind}"] = w.stack(f"{published}.LayerNorm.{kind}")[:, None]
    state |= _translate_athwe(w, config) if "fusion_weights" in weights else _translate_hm4sr(w, config)
    return {k: v for k, v in state.items() if v is not None}


def _translate_hm4sr(w: _Weights, config: AthweConfig) -> dict[str, Any]:
    D, E = config.model.hidden_size, config.model.interactive_moe.num_experts
    experts = torch.stack([w[f"start_moe.expert.{i}.weight"] for i in range(E)], dim=1)  # (M*D out, E, M*D in)
    biases = torch.stack([w[f"start_moe.expert.{i}.bias"] for i in range(E)], dim=1)
    return {
        "interactive_moe.alpha": w["start_moe.weight"],
        "interactive_moe.gate_weight": torch.stack([w[f"start_moe.gate_{p}.weight"] for p in ("id", "txt", "img")]),
        "interactive_moe.gate_bias": torch.stack([w[f"start_moe.gate_{p}.bias"] for p in ("id", "txt", "img")]),
        "interactive_moe.expert_weight": experts.view(-1, D, E, experts.shape[2]).transpose(1, 2),
        "interactive_moe.expert_bias": biases.view(-1, D, E).transpose(1, 2),
        "time_encoding.table": w["time_moe.time_embedding.weight"],
        "time_encoding.phase_weight": w["time_moe.absolute_w.weight"][:, 0],
        "time_encoding.phase_bias": w["time_moe.absolute_w.bias"],
        "temporal_moe.gate_weight": w["time_moe.gate.weight"],
        "temporal_moe.gate_bias": w["time_moe.gate.bias"],
        "temporal_moe.experts": w.get("time_moe.expert"),
    }


def _translate_athwe(w: _Weights, config: AthweConfig) -> dict[str, Any]:
    num_buckets = config.model.time_encoding.num_buckets
    assert num_buckets is not None
    aligner = "time_moe.wavelet_aligner"
    bands = [f"{aligner}.low_g.{{}}"] + [f"{aligner}.high_g.{{}}.{j}" for j in range(config.model.wavelet.levels)]
    gates = [
        torch.stack([w.matrices(f"{band}.{source}.weight").transpose(0, 1).flatten(1) for source in range(3)])
        for band in bands
    ]
    heads = {
        f"cluster_heads.{modality}.{kind}": w[f"{PARTS[modality]}_classifier.{kind}"]
        for modality in ("text", "image")
        for kind in ("weight", "bias")
    }
    return heads | {
        "score_weights": w["fusion_weights"],
        "wavelet.gates": torch.stack(gates),
        "wavelet.weight": w[f"{aligner}.weight"],
        "time_encoding.table": w["time_moe.time_embed.weight"][: num_buckets + 1],
        "temporal_moe.routing_weight": w["time_moe.time_routing_proj.weight"],
        "temporal_moe.routing_bias": w["time_moe.time_routing_proj.bias"],
        "temporal_moe.gate_weight": w["time_moe.moe.router.gate.weight"],
        "temporal_moe.gate_bias": w["time_moe.moe.router.gate.bias"],
        "temporal_moe.experts": w.get("time_moe.moe.routed_experts"),
        "temporal_moe.shared_experts": w.get("time_moe.moe.shared_experts"),
    }


class _Weights:
    """Published weights by name, with the two ways they are stacked over modalities."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> Tensor:
        _shape(self._weights, name)
        return self._weights[name].float()

    def get(self, name: str) -> Tensor | None:
        return self[name] if name in self._weights else None

    def stack(self, template: str) -> Tensor:
        return torch.stack([self[template.format(part)] for part in PARTS.values()])

    def matrices(self, template: str) -> Tensor:
        """(M, in, out) from three (out, in)."""
        return self.stack(template).transpose(1, 2)
