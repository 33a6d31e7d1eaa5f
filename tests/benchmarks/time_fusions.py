"""Gain of each fusion of a training step over its naive form: python tests/benchmarks/time_fusions.py.

Forward and backward, twin and ours interleaved, medians; sizes of a step of 1,024 targets on a Beauty-sized catalogue. The
tests hold the same twins against ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.losses.auxiliary import expert_diversity
from athwe_core.losses.catalogue_ce import catalogue_cross_entropy
from athwe_core.losses.contrastive import contrastive_loss, exclusion_bias
from athwe_core.nn.dropout import dropout
from athwe_core.nn.item_embeddings import table_and_items
from athwe_core.nn.moe import DenseTemporalMoE, InteractiveMoE
from athwe_core.nn.transformer import AttentionGrid, StackedTransformer, TransformerLayer
from athwe_core.nn.wavelet import WaveletAlignment, causal_decompose
from athwe_core.training.allocator import keep_freed_memory

T, V, M, D, E, R = 1024, 12_102, 3, 64, 4, 128
K = M * D

Pair = tuple[Callable[[], Tensor], Callable[[], Tensor], list[Tensor]]


def catalogue(dtype: torch.dtype) -> Pair:
    states, table = (0.05 * torch.randn(T, K)).requires_grad_(), torch.randn(V, K, requires_grad=True)
    targets = torch.randint(1, V, (T,))
    return (
        lambda: F.cross_entropy(states @ table[1:].T, targets - 1),
        lambda: catalogue_cross_entropy(states, table, targets, first_row=1, compute_dtype=dtype),
        [states, table],
    )


def byte_dropout() -> Pair:
    x = torch.randn(5, T, D, requires_grad=True)
    return lambda: F.dropout(x, 0.5).sum(), lambda: dropout(x, 0.5, training=True).sum(), [x]


def interactive_experts() -> Pair:
    layer = InteractiveMoE(hidden_size=D, num_modalities=M, num_experts=E, alpha_init=(1.0,) * M)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    tokens = torch.randn(T, M, D, requires_grad=True)

    def twin() -> Tensor:
        outputs = []
        for m in range(M):
            gates = (tokens[:, m] @ layer.gate_weight[m].T + layer.gate_bias[m]).softmax(-1)
            experts = [tokens.flatten(1) @ layer.expert_weight[m, e].T + layer.expert_bias[m, e] for e in range(E)]
            outputs.append(sum(gates[:, e, None] * experts[e] for e in range(E)))
        return torch.stack(outputs).sum()  # type: ignore[arg-type]

    def ours() -> Tensor:
        return layer(tokens).tokens.sum()

    return twin, ours, [tokens, *layer.parameters()]


def temporal_experts() -> Pair:
    layer = DenseTemporalMoE(hidden_size=D, num_modalities=M, time_width=R, num_experts=E, experts_trainable=True)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tokens, seen = torch.randn(T, M, D, requires_grad=True), torch.randn(T, R)

    def twin() -> Tensor:
        gates = (seen @ layer.gate_weight.T + layer.gate_bias).softmax(-1)
        experts = torch.stack([weight * tokens.flatten(1) for weight in layer.experts], 1)  # (T, E, M D)
        return (gates[..., None] * experts).sum(1).sum()

    def ours() -> Tensor:
        return layer(tokens, seen).tokens.sum()

    return twin, ours, [tokens, *layer.parameters()]


def diversity() -> Pair:
    experts, tokens = torch.randn(8, K, requires_grad=True), torch.randn(T, K, requires_grad=True)
    weight = torch.ones(T)

    def twin() -> Tensor:
        outputs = F.normalize((experts[:, None] * tokens).flatten(1), dim=-1)
        cosine = outputs @ outputs.T
        return (cosine.sum() - cosine.diagonal().sum()) / 56

    return twin, lambda: expert_diversity(experts, tokens, weight), [experts, tokens]


def table_gradient() -> Pair:
    table, rows = torch.randn(V, K, requires_grad=True), torch.randint(1, V, (2 * T,))

    def twin() -> Tensor:
        return table[rows[:T]].sum() + table[rows[T:]].sum() + (table[1:] * table[1:]).sum()

    def ours() -> Tensor:
        whole, found = table_and_items(table, rows)
        return found.sum() + (whole * whole).sum()

    return twin, ours, [table]


def aligned_bands() -> Pair:
    layer = WaveletAlignment(
        hidden_size=D, num_modalities=M, name="haar", levels=2, form="causal", weight_init=(0.1, 1.0, 1.0)
    )
    torch.nn.init.normal_(layer.gates)
    torch.nn.init.normal_(layer.weight)
    tokens, positions, offsets = (
        torch.randn(T, M, D, requires_grad=True),
        torch.arange(T) % 8,
        torch.arange(0, T + 1, 8),
    )

    def twin() -> Tensor:
        low, highs = causal_decompose(tokens.flatten(1), positions, taps=layer.taps, levels=2)
        merged = torch.zeros_like(tokens)
        for band, weight in zip([low, *highs], layer.gates, strict=True):
            sources = band.view_as(tokens)
            gates = torch.einsum("tsd,sdk->tsk", sources, weight).sigmoid().view(T, M, M, D)
            merged = merged + torch.einsum("tsmd,tsd->tmd", gates, sources)
        return (tokens + layer.weight[:, None] * (merged - tokens)).sum()

    return twin, lambda: layer(tokens, positions, offsets).sum(), [tokens, layer.gates, layer.weight]


def contrastive() -> Pair:
    anchors, candidates = (torch.randn(M, T, D, requires_grad=True) for _ in range(2))
    bias, temperatures = exclusion_bias(torch.rand(T, T) < 0.01), [0.3, 0.8, 0.8]

    def loss(part: slice) -> Tensor:
        return contrastive_loss(anchors[part], candidates[part], bias, temperatures=temperatures[part]).sum()

    return (
        lambda: loss(slice(0, 1)) + loss(slice(1, 2)) + loss(slice(2, 3)),
        lambda: loss(slice(None)),
        [anchors, candidates],
    )


def encoders(dtype: torch.dtype, *, twice: bool) -> Pair:
    """Attention on rows of 6 tokens: padded to 50 each, or passes of each modality alone, against one pass of all."""
    stack = StackedTransformer(
        num_modalities=M, hidden_size=D, inner_size=256, num_layers=2, num_heads=2, dropout_rate=0.5
    )
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    rows = torch.arange(T) // 6
    slots = rows // 5 * 32 + rows % 5 * 6 + torch.arange(T) % 6
    tokens = torch.full((int(slots.max()) // 32 + 1, 32), -1).flatten()
    tokens[slots] = torch.arange(T)
    grid = AttentionGrid(tokens.view(-1, 32), slots, rows)
    x = torch.randn(M, T, D, requires_grad=True)
    both = (slice(0, M), slice(1, M))

    def twin() -> Tensor:
        passes = [stack(x[m : m + 1], grid, (slice(m, m + 1),), None) for m in (0, 1, 2, 1, 2)]
        return torch.cat(passes).sum()

    def ours() -> Tensor:
        if twice:
            return stack(x, grid, (slice(0, M),), None).sum() + stack(x[1:], grid, (slice(1, M),), None).sum()
        return stack(torch.cat([x, x[1:]]).to(dtype), grid, both, None).float().sum()

    return twin, ours, [x, *stack.parameters()]


def ranking_attention() -> Pair:
    """One layer on 8,192 tokens, forward alone: weights, softmax and sum by themselves against torch's fused kernel."""
    count = 8 * T
    layer = TransformerLayer(num_modalities=M, hidden_size=D, inner_size=256, num_heads=2, dropout_rate=0.0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    token = torch.arange(count)
    grid = AttentionGrid(token.view(-1, 32), token, token // 8)
    x = torch.randn(M, count, D)

    def run(*, is_training: bool) -> Tensor:
        with torch.inference_mode():
            return layer.train(is_training)(x, grid, (slice(0, M),)).sum()

    return lambda: run(is_training=True), lambda: run(is_training=False), []


PAIRS: dict[str, Callable[[], Pair]] = {
    "catalogue loss, gradient in the forward pass": lambda: catalogue(torch.float32),
    "the same with bf16 products": lambda: catalogue(torch.bfloat16),
    "dropout from random bytes": byte_dropout,
    "interactive experts as one product": interactive_experts,
    "temporal experts without (T, E, M D)": temporal_experts,
    "expert diversity from the metric": diversity,
    "table gradient without dense zeros": table_gradient,
    "wavelet gates with a backward pass of their own": aligned_bands,
    "three contrastive losses at once": contrastive,
    "attention of ranking in one kernel (one layer, 8,192 tokens, forward)": ranking_attention,
    "encoders stacked, two passes": lambda: encoders(torch.float32, twice=True),
    "encoders stacked, one pass": lambda: encoders(torch.float32, twice=False),
    "the same in bf16": lambda: encoders(torch.bfloat16, twice=False),
}


def seconds(call: Callable[[], Tensor], inputs: list[Tensor]) -> float:
    """One forward and backward pass; forward alone where nothing is trained."""
    for value in inputs:
        value.grad = None
    began = time.perf_counter()
    result = call()
    if inputs:
        result.backward()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    print("| fusion | twin ms | ours ms | gain |\n|---|---|---|---|")
    for name, make in PAIRS.items():
        twin, ours, inputs = make()
        found = [(seconds(twin, inputs), seconds(ours, inputs)) for _ in range(args.rounds + 3)][3:]
        before, after = (1e3 * median(part) for part in zip(*found, strict=True))
        print(f"| {name} | {before:.2f} | {after:.2f} | {before / after:.1f} x |", flush=True)


if __name__ == "__main__":
    main()
