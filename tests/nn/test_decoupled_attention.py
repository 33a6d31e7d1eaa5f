"""Scores from several sources: the product of joined queries is the sum of scores, one slot is that slot of all."""

import torch
from torch import Tensor

from athwe_core.nn.decoupled_attention import FusedScoresLayer, SummedScoresLayer
from athwe_core.nn.fusion import FusionKind
from athwe_core.nn.transformer import AttentionGrid, LayerSizes

B, L, D, SIDE = 3, 5, 8, 4
SIZES = LayerSizes(hidden_size=D, inner_size=12, num_heads=2, dropout_rate=0.0, attention_dropout=0.0)
LENGTHS = torch.tensor([5, 1, 3])
IS_ITEM = torch.arange(L) < LENGTHS[:, None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fused(kind: FusionKind, *, reads_all: bool) -> FusedScoresLayer:
    layer = FusedScoresLayer(
        fusion=kind, length=L, reads_all=reads_all, items_at=1, side_sizes=[SIDE, D], **SIZES
    ).eval()
    seeded = generator()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5, generator=seeded)
    return layer


def inputs() -> tuple[Tensor, list[Tensor]]:
    """Items, and two sides: an attribute of each slot, and positions that all rows share."""
    seeded = generator()
    x, attribute, position = (torch.randn(n, L, d, generator=seeded) for n, d in ((B, D), (B, SIDE), (1, D)))
    return x, [attribute, position]


@torch.no_grad()
def test_summed_scores_are_those_of_each_source_added() -> None:
    x, sides = inputs()
    rectangle = fused("sum", reads_all=True)
    layer = SummedScoresLayer(side_sizes=[SIDE, D], **SIZES).eval()
    layer.load_state_dict(rectangle.state_dict())
    rows = torch.arange(B).repeat_interleave(L)
    tokens = torch.arange(B * L)
    grid = AttentionGrid(tokens.view(B, L), tokens, rows)
    flat = [side.expand(B, -1, -1).flatten(0, 1) for side in sides]
    found = layer(x.flatten(0, 1)[None], flat, grid)[0].view(B, L, D)
    torch.testing.assert_close(found[IS_ITEM], rectangle(x, sides, IS_ITEM)[IS_ITEM])


@torch.no_grad()
def test_one_slot_of_each_row_is_that_slot_of_all() -> None:
    x, sides = inputs()
    for kind in ("concat", "gate"):
        for reads_all in (True, False):
            layer = fused(kind, reads_all=reads_all)
            every, last = layer(x, sides, IS_ITEM), layer(x, sides, IS_ITEM, LENGTHS - 1)
            torch.testing.assert_close(last[:, 0], every[torch.arange(B), LENGTHS - 1])


@torch.no_grad()
def test_fusion_and_softmax_of_one_query_by_loops() -> None:
    x, sides = inputs()
    layer = fused("concat", reads_all=True)
    _, sources = layer.sources(x, sides)
    row, head, query = 2, 1, 1
    joined = torch.cat([q[min(row, len(q) - 1), head, query] @ k[min(row, len(k) - 1), head].T for q, k in sources])
    expected = layer.fusion.joined.weight @ joined + layer.fusion.joined.bias
    torch.testing.assert_close(layer.fusion(layer.scores(sources))[row, head, query], expected)


@torch.no_grad()
def test_only_the_published_form_reads_later_slots_and_padding() -> None:
    x, sides = inputs()
    changed = x.clone()
    changed[:, 3:] += 1
    for reads_all in (True, False):
        layer = fused("gate", reads_all=reads_all)
        first, second = (layer(given, sides, IS_ITEM)[:, :3] for given in (x, changed))
        assert torch.allclose(first[IS_ITEM[:, :3]], second[IS_ITEM[:, :3]], atol=1e-6) != reads_all
