"""Both networks once more, from the papers' equations and the published weights alone: padded, looped, nothing shared."""

import math
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.models.athwe.parity import golden_catalogue
from athwe_core.models.athwe.published import published_network
from athwe_core.models.golden import Golden

PARTS = ("id", "txt", "img")
ENCODERS = {"id": "item", "txt": "txt", "img": "img"}
Arrays = dict[str, Tensor]


def load(name: str) -> Arrays:
    with np.load(Path(__file__).parents[2] / "golden" / f"{name}.npz", allow_pickle=False) as archive:
        return {k: torch.from_numpy(archive[k]) for k in archive.files}


def linear(g: Arrays, name: str, x: Tensor) -> Tensor:
    return F.linear(x, g[f"w.{name}.weight"], g[f"w.{name}.bias"])


def tables(g: Arrays) -> Arrays:
    projected = {part: linear(g, f"{part}_projection", g[f"in.{part}_emb"]) for part in ("txt", "img")}
    return {"id": g["w.item_embedding.weight"], **projected}


def intervals(g: Arrays, first: int) -> Tensor:
    times = g["in.timestamps"]
    return torch.cat([torch.full_like(times[:, :1], first), times.diff(dim=1)], 1).clamp(min=0)


def encode(g: Arrays, part: str, x: Tensor) -> Tensor:
    """LayerNorm and the Transformer of one modality over padded (B, L, D) rows."""
    name, (B, L, D), H = ENCODERS[part], x.shape, 2

    def norm(x: Tensor, layer_norm: str) -> Tensor:
        return F.layer_norm(x, (D,), g[f"w.{layer_norm}.weight"], g[f"w.{layer_norm}.bias"], eps=1e-12)

    x = norm(x, f"{name}_ln")
    for layer in range(2):
        attention, feed = (f"{name}_seq.layer.{layer}.{part}" for part in ("multi_head_attention", "feed_forward"))
        query, key, value = (
            linear(g, f"{attention}.{part}", x).view(B, L, H, D // H).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(D // H)
        scores = scores + torch.full((L, L), -math.inf).triu(1)
        attended = (scores.softmax(-1) @ value).transpose(1, 2).reshape(B, L, D)
        x = norm(x + linear(g, f"{attention}.dense", attended), f"{attention}.LayerNorm")
        inner = F.gelu(linear(g, f"{feed}.dense_1", x))
        x = norm(x + linear(g, f"{feed}.dense_2", inner), f"{feed}.LayerNorm")
    return x


def interactive(g: Arrays, e: Arrays) -> Arrays:
    everything = torch.cat([e[part] for part in PARTS], -1)
    mixed = {}
    for m, part in enumerate(PARTS):
        gates = linear(g, f"start_moe.gate_{part}", e[part]).softmax(-1)
        total = torch.zeros_like(e[part])
        for i in range(gates.shape[-1]):
            total = (
                total
                + gates[..., i : i + 1] * linear(g, f"start_moe.expert.{i}", everything)[..., 64 * m : 64 * m + 64]
            )
        mixed[part] = e[part] + g["w.start_moe.weight"][m] * total
    return mixed


def time_hm4sr(g: Arrays) -> Tensor:
    bucket = (100 * torch.log2(intervals(g, first=0).double() + 1)).floor().long()
    phase = linear(g, "time_moe.absolute_w", g["in.timestamps"].float()[..., None])
    absolute = torch.cos(phase / 10_000 ** (torch.arange(64) / 64))
    return torch.cat([g["w.time_moe.time_embedding.weight"][bucket], absolute], -1)


def temporal_dense(g: Arrays, e: Tensor, time: Tensor) -> Tensor:
    gates = linear(g, "time_moe.gate", time).softmax(-1)
    return sum(gates[..., i : i + 1] * (expert * e) for i, expert in enumerate(g["w.time_moe.expert"]))


def time_athwe(g: Arrays) -> Tensor:
    share = 1 - torch.exp(-intervals(g, first=1).clamp(min=1).double() / 1.5e7)
    return g["w.time_moe.time_embed.weight"][(200 * share).round().long()]


def temporal_sparse(g: Arrays, e: Tensor, time: Tensor) -> Tensor:
    routing = torch.relu(linear(g, "time_moe.time_routing_proj", time))
    gates = linear(g, "time_moe.moe.router.gate", routing).softmax(-1)
    total = g["w.time_moe.moe.shared_experts"].sum(0) * e
    best = gates.topk(6, dim=-1)
    for weight, index in zip(best.values.unbind(-1), best.indices.unbind(-1), strict=True):
        total = total + (weight / best.values.sum(-1))[..., None] * g["w.time_moe.moe.routed_experts"][index] * e
    return total


def wavelet(g: Arrays, e: Arrays) -> Arrays:
    """Level by level with PyWavelets, one row at its true length at a time."""
    rows: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    for b, length in enumerate(g["in.lengths"].tolist()):
        bands: dict[str, list[Tensor]] = {}
        lengths = []
        for part in PARTS:
            low, highs, lengths = e[part][b, :length].numpy(), [], []
            for _ in range(4):
                lengths.append(len(low))
                low, high = pywt.dwt(low, "db4", mode="zero", axis=0)
                highs.append(torch.from_numpy(high))
            bands[part] = [torch.from_numpy(low), *highs]
        for m, part in enumerate(PARTS):
            target = "item" if part == "id" else part
            merged = []
            for number in range(5):
                gate = "w.time_moe.wavelet_aligner." + (
                    f"low_g.{target}" if number == 0 else f"high_g.{target}.{number - 1}"
                )
                sources = [bands[source][number] for source in PARTS]
                merged.append(
                    sum(torch.sigmoid(x @ g[f"{gate}.{s}.weight"].T) * x for s, x in enumerate(sources)).numpy()
                )
            rebuilt = merged[0]
            for high, n in zip(reversed(merged[1:]), reversed(lengths), strict=True):
                rebuilt = pywt.idwt(rebuilt[: len(high)], high, "db4", mode="zero", axis=0)[:n]
            own = e[part][b]
            change = torch.zeros_like(own)
            change[:length] = g["w.time_moe.wavelet_aligner.weight"][m] * (torch.from_numpy(rebuilt) - own[:length])
            rows[part].append(own + change)
    return {part: torch.stack(rows[part]) for part in PARTS}


def contrast(anchors: Tensor, candidates: Tensor, targets: Tensor, temperature: float) -> Tensor:
    cosine = F.cosine_similarity(anchors[:, None], candidates[None], dim=-1) / temperature
    same = (targets[:, None] == targets).fill_diagonal_(False)
    return (cosine.masked_fill(same, -math.inf).logsumexp(1) - cosine.diagonal()).mean()


def reference(g: Arrays, name: str) -> Arrays:
    """Every recorded output but the wavelet residuals and the diversity, from the inputs and weights in `g`."""
    items, lengths, targets = g["in.item_seq"], g["in.lengths"], g["in.targets"]
    B, L = items.shape
    real = torch.arange(L) < lengths[:, None]
    table = tables(g)
    e = {part: table[part][items] + g["w.position_embedding.weight"][:L] for part in PARTS}
    if name == "hm4sr":
        e, time, temporal = interactive(g, e), time_hm4sr(g), temporal_dense
    else:
        e, time, temporal = wavelet(g, e), time_athwe(g), temporal_sparse
    moe = dict(zip(PARTS, temporal(g, torch.cat(list(e.values()), -1), time).split(64, -1), strict=True))

    def last(x: Tensor) -> Tensor:
        return x[torch.arange(B), lengths - 1]

    seq = {part: last(encode(g, part, moe[part])) for part in PARTS}
    scale = g["w.fusion_weights"].softmax(0) if name == "athwe" else torch.ones(3)
    scores = sum(scale[m] * seq[part] @ table[part].T for m, part in enumerate(PARTS))
    logits = linear(g, "cat_linear", torch.cat([table[part][items] for part in PARTS], -1))
    bce = F.binary_cross_entropy_with_logits(logits, g["in.categories"][items].float(), reduction="none")
    temperature = 0.2 if name == "hm4sr" else 0.1
    mask = g.get("in.placeholder_mask", torch.zeros(B, L, dtype=torch.bool))
    pcl = torch.zeros(())
    for part in ("txt", "img"):
        masked = torch.where(mask[..., None], linear(g, f"placeholder_{part}", time), moe[part])
        pcl = pcl + contrast(seq[part], last(encode(g, part, masked)), targets, 1.0) / 2
    found = {
        "scores": scores,
        "time_embedding": time,
        "loss_ce": F.cross_entropy(scores, targets),
        "loss_idcl": contrast(seq["id"], table["id"][targets], targets, temperature),
        "loss_cp": bce[real].mean(),
        "loss_pcl" if name == "hm4sr" else "loss_tcl_no_mask": pcl,
    }
    if name == "athwe":
        cluster = []
        for part in ("txt", "img"):
            labels = g[f"in.{part}_clusters"][items][real]
            logits = linear(g, f"{part}_classifier", table[part][items][real])
            cluster.append(F.cross_entropy(logits[labels >= 0], labels[labels >= 0]))
        found["loss_cluster"] = (cluster[0] + cluster[1]) / 2
    return found | {f"moe_{p}": moe[p] for p in PARTS} | {f"seq_{p}": seq[p] for p in PARTS}


TOLERANCE = {"scores": 1e-3}


@pytest.mark.parametrize("name", ["hm4sr", "athwe"])
def test_the_reference_gives_the_recorded_outputs(name: str) -> None:
    g = load(name)
    real = torch.arange(g["in.item_seq"].shape[1]) < g["in.lengths"][:, None]
    for key, value in reference(g, name).items():
        by_token = key.startswith("moe_") or key == "time_embedding"
        found, expected = (v[real] if by_token else v for v in (value, g[f"out.{key}"]))
        torch.testing.assert_close(found.double(), expected.double(), atol=TOLERANCE.get(key, 1e-4), rtol=0, msg=key)


@pytest.mark.parametrize("name", ["hm4sr", "athwe"])
def test_the_network_gives_what_the_reference_gives_on_other_inputs(name: str) -> None:
    g = load(name)
    generator = torch.Generator().manual_seed(20)
    B, L = g["in.item_seq"].shape
    lengths = torch.randint(1, L + 1, (B,), generator=generator)
    lengths[:3] = torch.tensor([1, 2, 17])
    real = torch.arange(L) < lengths[:, None]
    days = torch.randint(0, 60, (B, L), generator=generator).cumsum(1) + 14_000
    g |= {
        "in.lengths": lengths,
        "in.item_seq": torch.randint(1, 27, (B, L), generator=generator) * real,
        "in.timestamps": days * 86_400 * real,
    }
    file = Golden(Path(name), {k: v.numpy() for k, v in g.items()})
    network, _ = published_network(file.weights, golden_catalogue(file))
    batch = file.batch()
    with torch.no_grad():
        outputs = network(batch)
        expected = reference(g, name)
    user = batch.user_index
    for m, part in enumerate(PARTS):
        moe = expected[f"moe_{part}"][user[batch.rows], batch.positions]
        torch.testing.assert_close(outputs.mixed[:, m], moe, atol=1e-4, rtol=0)
        torch.testing.assert_close(outputs.states[m], expected[f"seq_{part}"][user], atol=1e-4, rtol=0)
    scores = network.score_vectors(outputs.states) @ outputs.table.T
    torch.testing.assert_close(scores, expected["scores"][user], atol=1e-3, rtol=0)
