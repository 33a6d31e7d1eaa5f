from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from athwe_core.nn.transformer import AttentionGrid, Encoders, StackedLayerNorm, StackedTransformer, TransformerLayer

M, D, INNER = 3, 8, 12
ALL: Encoders = (slice(0, M),)


def transformer(
    num_heads: int = 2, num_layers: int = 2, dropout_rate: float = 0.0, **variant: Any
) -> StackedTransformer:
    stack = StackedTransformer(
        num_modalities=M,
        hidden_size=D,
        inner_size=INNER,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout_rate=dropout_rate,
        **variant,
    )
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.normal_(0, 0.5)
    return stack.eval()


def bins(layout: list[list[int]], num_slots: int) -> tuple[AttentionGrid, list[int]]:
    """A grid from row lengths by bin: `[[3, 2], [4]]` is rows of 3 and 2 tokens in the first bin, 4 in the second."""
    grid = torch.full((len(layout), num_slots), -1)
    slots, rows, lengths, token = [], [], [], 0
    for bin_, row_lengths in enumerate(layout):
        begin = 0
        for length in row_lengths:
            grid[bin_, begin : begin + length] = torch.arange(token, token + length)
            slots += range(bin_ * num_slots + begin, bin_ * num_slots + begin + length)
            rows += [len(lengths)] * length
            lengths.append(length)
            begin, token = begin + length, token + length
    return AttentionGrid(grid, torch.tensor(slots), torch.tensor(rows)), lengths


def plain_layer(layer: TransformerLayer, m: int, x: Tensor, num_heads: int, weights: Tensor | None = None) -> Tensor:
    """One encoder layer of one modality on one row (n, D): separate q, k, v, a loop over heads, textbook post-norm.

    `weights` (heads, n, n) take the place of the softmax where given.
    """

    def norm(x: Tensor, weights: StackedLayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + weights.eps).sqrt() * weights.weight[m]
            + weights.bias[m]
        )

    q_w, k_w, v_w = layer.qkv_weight[m].split(D, dim=1)
    q_b, k_b, v_b = (0, 0, 0) if layer.qkv_bias is None else layer.qkv_bias[m].split(D, dim=1)
    query, key, value = x @ q_w + q_b, x @ k_w + k_b, x @ v_w + v_b
    width = D // num_heads
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    heads = []
    for h in range(num_heads):
        part = slice(h * width, (h + 1) * width)
        scores = (query[:, part] @ key[:, part].T / width**0.5).masked_fill(future, -torch.inf)
        heads.append((scores.softmax(-1) if weights is None else weights[h]) @ value[:, part])
    out_b = 0 if layer.out_bias is None else layer.out_bias[m]
    x = norm(x + torch.cat(heads, 1) @ layer.out_weight[m] + out_b, layer.attention_norm)
    inner = x @ layer.inner_weight[m] + layer.inner_bias[m]
    is_gelu = layer.activation is F.gelu
    inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5)) if is_gelu else inner.clamp(min=0)
    return norm(x + inner @ layer.outer_weight[m] + layer.outer_bias[m], layer.feed_forward_norm)


def run(stack: StackedTransformer, x: Tensor, grid: AttentionGrid, encoders: Encoders = ALL) -> Tensor:
    """States of every token."""
    return stack(x, grid, encoders, None)


LAYOUTS = [([[1]], 1), ([[4]], 4), ([[4]], 7), ([[3, 2], [4]], 5), ([[1, 1, 2], [4], [2, 1]], 6)]


@pytest.mark.parametrize(("layout", "num_slots"), LAYOUTS)
@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_the_stack_is_a_plain_encoder_for_each_row_and_modality(
    layout: list[list[int]], num_slots: int, num_heads: int
) -> None:
    stack = transformer(num_heads)
    grid, lengths = bins(layout, num_slots)
    x = torch.randn(M, sum(lengths), D)
    found = run(stack, x, grid)
    for m in range(M):
        begin = 0
        for length in lengths:
            row = x[m, begin : begin + length]
            for layer in stack.layers:
                row = plain_layer(layer, m, row, num_heads)
            torch.testing.assert_close(found[m, begin : begin + length], row, atol=2e-5, rtol=1e-5)
            begin += length


@pytest.mark.parametrize("attention_bias", [True, False])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_variants_with_relu_without_biases_and_with_another_eps(attention_bias: bool, eps: float) -> None:
    stack = transformer(activation="relu", attention_bias=attention_bias, eps=eps)
    assert ("layers.0.out_bias" in stack.state_dict()) == attention_bias
    grid, lengths = bins([[4]], 5)
    x = torch.randn(M, 4, D)
    found = run(stack, x, grid)
    for m in range(M):
        row = x[m]
        for layer in stack.layers:
            row = plain_layer(layer, m, row, 2)
        torch.testing.assert_close(found[m], row, atol=2e-5, rtol=1e-5)
    assert lengths == [4]


def test_tokens_that_are_not_kept_are_read_by_themselves_alone() -> None:
    """The states of kept tokens are those of the row without the others."""
    stack, x = transformer(), torch.randn(M, 6, D)
    layout, kept = [[4, 2]], torch.tensor([True, False, True, False, False, True])
    whole, _ = bins(layout, 7)
    grid_tokens = torch.tensor([[0, 1, 2, 3, 4, 5, -1]])
    grid = AttentionGrid(grid_tokens, whole.token_slots, torch.tensor([0, 0, 0, 0, 1, 1]), kept=kept)
    short, _ = bins([[2, 1]], 3)
    expected = run(stack, x[:, kept], short)
    torch.testing.assert_close(run(stack, x, grid)[:, kept], expected, atol=2e-5, rtol=1e-5)
    assert run(stack, x, grid).isfinite().all()


def test_gradients_agree_with_the_plain_encoder() -> None:
    stack = transformer()
    grid, lengths = bins([[3, 2], [4]], 6)
    x = torch.randn(M, 9, D)
    slope = torch.randn(M, 9, D)
    names = [name for name, _ in stack.named_parameters()]
    fused = torch.autograd.grad((run(stack, x, grid) * slope).sum(), list(stack.parameters()))
    rows = []
    for m in range(M):
        for row in x[m].split(lengths):
            rows.append(row)
            for layer in stack.layers:
                rows[-1] = plain_layer(layer, m, rows[-1], 2)
    plain = torch.autograd.grad((torch.cat(rows).view(M, 9, D) * slope).sum(), list(stack.parameters()))
    for name, ours, theirs in zip(names, fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


RUNS = [(slice(0, 1),), (slice(1, 3),), (slice(2, 3), slice(0, 1)), (slice(0, 3), slice(1, 3))]


@pytest.mark.parametrize("encoders", RUNS)
def test_runs_of_encoders_give_their_parts_of_the_whole(encoders: Encoders) -> None:
    stack = transformer()
    grid, _ = bins([[3, 2]], 6)
    x = torch.randn(M, 5, D)
    chosen = torch.cat([x[part] for part in encoders])
    whole = run(stack, x, grid)
    torch.testing.assert_close(run(stack, chosen, grid, encoders), torch.cat([whole[part] for part in encoders]))


@pytest.mark.parametrize("chosen", [[0], [4], [1, 2, 8], list(range(9))])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_states_of_some_tokens_are_those_of_all(chosen: list[int], num_layers: int) -> None:
    stack = transformer(num_layers=num_layers)
    grid, _ = bins([[3, 2], [4]], 6)
    x = torch.randn(M, 9, D)
    found = stack(x, grid, ALL, torch.tensor(chosen))
    torch.testing.assert_close(found, run(stack, x, grid)[:, chosen])


def test_no_state_depends_on_later_tokens_or_on_other_rows_of_its_bin() -> None:
    stack = transformer()
    grid, _ = bins([[4, 3]], 9)
    x = torch.randn(M, 7, D, requires_grad=True)
    run(stack, x, grid)[:, 5].sum().backward()  # second token of the second row
    reached = x.grad.abs().sum((0, 2)) > 0
    assert reached.tolist() == [False] * 4 + [True, True, False]


def test_the_grid_lets_a_slot_see_itself_and_earlier_slots_of_its_row_only() -> None:
    grid, _ = bins([[2, 1], [3]], 4)
    expected = torch.tensor(
        [
            [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
            [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]],
        ]
    ).bool()
    assert torch.equal(grid.allowed, expected)


@pytest.mark.parametrize(("layout", "num_slots"), [([[1]], 1), ([[5]], 5), ([[5]], 64)])
@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("encoders", RUNS)
def test_attention_of_one_row_sums_to_1_over_earlier_tokens_and_gives_the_layers_output(
    layout: list[list[int]], num_slots: int, num_heads: int, encoders: Encoders
) -> None:
    stack = transformer(num_heads)
    grid, (length,) = bins(layout, num_slots)
    modalities = [m for part in encoders for m in range(M)[part]]
    x = torch.randn(len(modalities), length, D)
    found = stack.attention(x, grid, encoders)
    assert len(found) == len(stack.layers)
    for layer, weights in zip(stack.layers, found, strict=True):
        assert weights.shape == (len(x), num_heads, length, length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(x), num_heads, length))
        assert torch.equal(weights.triu(1), torch.zeros_like(weights))
        ours = layer(x, grid, encoders)
        for index, m in enumerate(modalities):
            theirs = plain_layer(layer, m, x[index], num_heads, weights[index])
            torch.testing.assert_close(ours[index], theirs, atol=2e-5, rtol=1e-5)
        x = ours


def test_attention_of_rows_in_one_bin_stays_within_each_row() -> None:
    stack = transformer()
    grid, _ = bins([[3, 2]], 8)
    x = torch.randn(M, 5, D)
    alone, _ = bins([[2]], 2)
    for together, single in zip(stack.attention(x, grid, ALL), stack.attention(x[:, 3:], alone, ALL), strict=True):
        assert not together[:, :, 3:, :3].any()
        torch.testing.assert_close(together[:, :, 3:, 3:], single)


def test_dropout_acts_in_training_only() -> None:
    stack = transformer(dropout_rate=0.5)
    grid, _ = bins([[4]], 4)
    x = torch.randn(M, 4, D)
    assert torch.equal(run(stack, x, grid), run(stack, x, grid))
    stack.train()
    assert not torch.equal(run(stack, x, grid), run(stack, x, grid))


def test_the_stacked_layer_norm_is_torchs_for_each_modality() -> None:
    layer = StackedLayerNorm(num_modalities=M, hidden_size=D)
    torch.manual_seed(7)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(M, 5, D)
    found = layer(x, ALL)
    for m in range(M):
        expected = F.layer_norm(x[m], (D,), layer.weight[m, 0], layer.bias[m, 0], eps=1e-12)
        torch.testing.assert_close(found[m], expected)
    torch.testing.assert_close(layer(x[1:], (slice(1, M),)), found[1:])


@pytest.mark.parametrize("encoders", RUNS)
def test_bfloat16_tokens_give_bfloat16_states_near_the_exact_ones(encoders: Encoders) -> None:
    stack = transformer()
    grid, _ = bins([[3, 2]], 6)
    x = torch.randn(sum(part.stop - part.start for part in encoders), 5, D)
    exact = run(stack, x, grid, encoders)
    found = run(stack, x.bfloat16(), grid, encoders)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(found.float(), exact)
