from itertools import pairwise

import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from athwe_core.nn.wavelet import WaveletAlignment, causal_decompose, causal_reconstruct, smoothing_filter

WAVELETS = ("haar", "db2", "db4", "sym5", "coif1", "bior2.2", "bior3.1", "rbio1.3")
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def stream(lengths: list[int], width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random rows end to end, with positions and offsets."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.cat([torch.arange(n) for n in lengths])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randn(len(positions), width, generator=generator), positions, offsets


def alignment(
    form: str, *, num_modalities: int = 3, hidden_size: int = 4, name: str = "db2", levels: int = 2
) -> WaveletAlignment:
    layer = WaveletAlignment(
        hidden_size=hidden_size,
        num_modalities=num_modalities,
        name=name,
        levels=levels,
        form=form,
        weight_init=(1.0,) * num_modalities,
    )
    torch.manual_seed(4)
    with torch.no_grad():
        layer.gates.normal_()
        layer.weight.copy_(torch.tensor([0.3, 1.0, 0.7][:num_modalities]))
    return layer


def sequence_filter(x: Tensor, taps: Tensor, step: int) -> Tensor:
    """One row: sum_k c_k x[t - k step], the first value repeated before the row."""
    return torch.stack([sum(c * x[max(t - k * step, 0)] for k, c in enumerate(taps)) for t in range(len(x))])


@pytest.mark.parametrize("name", WAVELETS)
def test_the_filter_keeps_a_constant_and_has_its_weight_on_recent_tokens(name: str) -> None:
    taps = torch.tensor(smoothing_filter(name), dtype=torch.float64)
    delay = (torch.arange(len(taps)) * taps).sum()
    assert taps.sum().item() == pytest.approx(1, abs=1e-6)
    assert delay <= (len(taps) - 1) / 2 + 1e-6
    published = torch.tensor(pywt.Wavelet(name).rec_lo, dtype=torch.float64)
    published = published / published.sum()
    close = [torch.allclose(taps, taps_, atol=1e-6) for taps_ in (published, published.flip(0))]
    assert any(close)


@given(LENGTHS, st.sampled_from(WAVELETS), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_causal_decomposition_is_the_formula_row_by_row_and_sums_to_its_input(
    lengths: list[int], name: str, levels: int
) -> None:
    x, positions, offsets = stream(lengths, width=2)
    x = x.double()
    low, highs = causal_decompose(x, positions, taps=smoothing_filter(name), levels=levels)
    torch.testing.assert_close(causal_reconstruct(low, highs), x)
    taps = torch.tensor(smoothing_filter(name), dtype=torch.float64)
    expected = [x]
    for level in range(levels):
        rows = [sequence_filter(expected[-1][a:b], taps, 2**level) for a, b in pairwise(offsets)]
        expected.append(torch.cat(rows))
    torch.testing.assert_close(low, expected[-1])
    for level, high in enumerate(highs):
        torch.testing.assert_close(high, expected[level] - expected[level + 1])


@given(LENGTHS, st.sampled_from(WAVELETS), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_constant_row_stays_constant_at_every_position(lengths: list[int], name: str, levels: int) -> None:
    _, positions, offsets = stream(lengths, width=1)
    values = torch.arange(1.0, len(lengths) + 1).repeat_interleave(offsets.diff())[:, None]
    low, highs = causal_decompose(values, positions, taps=smoothing_filter(name), levels=levels)
    torch.testing.assert_close(low, values, atol=1e-5, rtol=1e-5)
    for high in highs:
        torch.testing.assert_close(high, torch.zeros_like(values), atol=2e-5, rtol=0)


def test_haar_by_hand() -> None:
    x = torch.tensor([[4.0], [2.0], [8.0], [0.0]])
    low, highs = causal_decompose(x, torch.arange(4), taps=smoothing_filter("haar"), levels=2)
    # level 1: means of neighbours 4 3 5 4; level 2: means of values two apart, 4 3.5 4.5 3.5
    assert low.flatten().tolist() == pytest.approx([4, 3.5, 4.5, 3.5])
    assert highs[0].flatten().tolist() == pytest.approx([0, -1, 3, -4])
    assert highs[1].flatten().tolist() == pytest.approx([0, -0.5, 0.5, 0.5])


@pytest.mark.parametrize("name", WAVELETS)
@pytest.mark.parametrize("t", [0, 1, 6, 10])
def test_the_causal_form_has_no_gradient_from_later_tokens_or_other_rows(name: str, t: int) -> None:
    layer = alignment("causal", name=name, levels=3)
    x, positions, offsets = stream([5, 12, 4], width=12)
    tokens = x.view(-1, 3, 4).requires_grad_()
    layer(tokens, positions, offsets)[5 + t].sum().backward()
    reached = tokens.grad.abs().sum((1, 2)) > 0
    assert reached[5 + t]
    assert not reached[:5].any()
    assert not reached[5 + t + 1 :].any()


@pytest.mark.parametrize("name", ["haar", "db4", "bior2.2"])
def test_the_causal_form_does_not_see_a_change_of_later_tokens(name: str) -> None:
    layer = alignment("causal", name=name, levels=4)
    x, positions, offsets = stream([9, 7], width=12)
    changed = x.clone()
    changed[5:9] += 3
    before, after = (layer(v.view(-1, 3, 4), positions, offsets) for v in (x, changed))
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[9:], after[9:])
    assert not torch.allclose(before[5:9], after[5:9])


def align_loop(layer: WaveletAlignment, bands: list[Tensor]) -> list[Tensor]:
    """sum_s sigmoid(G_ms band_s) * band_s of (n, M, D) bands, literally."""
    _, M, D = layer.gates.shape[:3]
    aligned = []
    for number, band in enumerate(bands):
        target = torch.zeros_like(band)
        for m in range(M):
            for s in range(M):
                matrix = layer.gates[number, s, :, m * D : (m + 1) * D]
                target[:, m] += torch.sigmoid(band[:, s] @ matrix) * band[:, s]
        aligned.append(target)
    return aligned


@pytest.mark.parametrize("num_modalities", [1, 2, 3])
def test_causal_alignment_is_the_double_loop_over_targets_and_sources(num_modalities: int) -> None:
    layer = alignment("causal", num_modalities=num_modalities)
    x, positions, offsets = stream([1, 8, 3], width=4 * num_modalities)
    tokens = x.view(-1, num_modalities, 4)
    low, highs = causal_decompose(x, positions, taps=smoothing_filter("db2"), levels=2)
    merged = sum(align_loop(layer, [band.view_as(tokens) for band in (low, *highs)]))
    expected = tokens + layer.weight[:, None] * (merged - tokens)
    torch.testing.assert_close(layer(tokens, positions, offsets), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "levels"), [("haar", 1), ("db2", 2), ("db4", 4)])
@pytest.mark.parametrize("num_modalities", [1, 3])
def test_centred_alignment_is_pytorch_wavelets_on_each_row_at_its_true_length(
    name: str, levels: int, num_modalities: int
) -> None:
    from pytorch_wavelets import DWT1DForward, DWT1DInverse

    layer = alignment("centred", num_modalities=num_modalities, name=name, levels=levels)
    x, positions, offsets = stream([1, 7, 16, 7, 2], width=4 * num_modalities)
    tokens = x.view(-1, num_modalities, 4)
    forward, inverse = DWT1DForward(J=levels, wave=name, mode="zero"), DWT1DInverse(wave=name, mode="zero")
    expected = []
    for a, b in pairwise(offsets):
        low, highs = forward(x[a:b].T[None])
        bands = [band[0].T.reshape(-1, num_modalities, 4) for band in (low, *highs)]
        aligned = [band.flatten(1).T[None] for band in align_loop(layer, bands)]
        merged = inverse((aligned[0], aligned[1:]))[0].T[: b - a].reshape(-1, num_modalities, 4)
        expected.append(tokens[a:b] + layer.weight[:, None] * (merged - tokens[a:b]))
    torch.testing.assert_close(layer(tokens, positions, offsets), torch.cat(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["causal", "centred"])
@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_the_bands_of_a_row_are_those_that_are_aligned(form: str, length: int) -> None:
    layer = alignment(form)
    x, positions, offsets = stream([length], width=12)
    tokens = x.view(-1, 3, 4)
    bands = layer.decompose(tokens)
    assert len(bands) == 3
    aligned = [band.flatten(1) for band in align_loop(layer, bands)]
    if form == "causal":
        merged = sum(aligned)
    else:
        from pytorch_wavelets import DWT1DInverse

        inverse = DWT1DInverse(wave="db2", mode="zero")
        merged = inverse((aligned[0].T[None], [band.T[None] for band in aligned[1:]]))[0].T[:length]
    expected = tokens + layer.weight[:, None] * (merged.reshape(-1, 3, 4) - tokens)
    torch.testing.assert_close(layer(tokens, positions, offsets), expected, atol=1e-5, rtol=1e-5)


def test_the_centred_form_looks_ahead_but_not_into_other_rows() -> None:
    layer = alignment("centred")
    x, positions, offsets = stream([6, 6], width=12)
    tokens = x.view(-1, 3, 4).requires_grad_()
    layer(tokens, positions, offsets)[0].sum().backward()
    reached = tokens.grad.abs().sum((1, 2)) > 0
    assert reached[1:6].any()
    assert not reached[6:].any()


@pytest.mark.parametrize("form", ["causal", "centred"])
def test_a_residual_weight_of_0_leaves_a_modality_alone(form: str) -> None:
    layer = alignment(form)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.0, 1.0, 0.0]))
    x, positions, offsets = stream([6, 2], width=12)
    tokens = x.view(-1, 3, 4)
    found = layer(tokens, positions, offsets)
    assert torch.equal(found[:, [0, 2]], tokens[:, [0, 2]])
    assert not torch.allclose(found[:, 1], tokens[:, 1])


@pytest.mark.parametrize("form", ["causal", "centred"])
def test_gates_and_weights_have_the_gradient_of_finite_differences(form: str) -> None:
    layer = alignment(form, hidden_size=2, name="haar", levels=1).double()
    x, positions, offsets = stream([3, 2], width=6)
    tokens = x.double().view(-1, 3, 2).requires_grad_()

    def run(tokens: Tensor, gates: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"gates": gates, "weight": weight}, (tokens, positions, offsets))

    assert torch.autograd.gradcheck(run, (tokens, layer.gates, layer.weight), fast_mode=True)


def test_ranking_before_training_leaves_nothing_behind_that_training_cannot_use() -> None:
    """A filter kept from inference mode could not be differentiated through."""
    smoothing_filter.cache_clear()
    positions = torch.arange(4)
    with torch.inference_mode():
        causal_decompose(torch.ones(4, 2), positions, taps=smoothing_filter("haar"), levels=1)
    low, _ = causal_decompose(torch.ones(4, 2, requires_grad=True), positions, taps=smoothing_filter("haar"), levels=1)
    low.sum().backward()
