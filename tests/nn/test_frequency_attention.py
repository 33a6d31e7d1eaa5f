"""Frequency attention: bands as recorded, matrices against FFTs, correlations and delays by loops, masks."""

from pathlib import Path

import pytest
import torch

from athwe_core.models.golden import Golden
from athwe_core.nn.frequency_attention import (
    FrequencyAttentionLayer,
    band_matrix,
    disjoint_bands,
    energy_shares,
    frequency_bands,
)

GOLDEN = Path(__file__).parents[1] / "golden"
B, L, D = 3, 6, 8


def layer(
    *, time: bool = True, filters: bool = False, share: float = 0.5, reads_all: bool = True
) -> FrequencyAttentionLayer:
    found = FrequencyAttentionLayer(
        length=L,
        band=(1, 3),
        topk_factor=1.5,
        dual_domain=time,
        spatial_ratio=share,
        filters_time_branch=filters,
        reads_all=reads_all,
        hidden_size=D,
        inner_size=12,
        num_heads=2,
        dropout_rate=0.0,
        attention_dropout=0.0,
    )
    seeded = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0, 0.5, generator=seeded)
    return found.eval()


def tokens() -> torch.Tensor:
    return torch.randn(B, L, D, generator=torch.Generator().manual_seed(1))


LENGTHS = torch.tensor([6, 2, 4])
IS_ITEM = torch.arange(L) < LENGTHS[:, None]


@pytest.mark.parametrize("name", ["FEARec", "FEARec_local", "FEARec_recbole"])
def test_bands_are_those_of_the_published_code(name: str) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    bands = frequency_bands(length=12, num_layers=2, global_ratio=golden.setting("global_ratio"))
    assert [list(band) for band in bands] == [golden[f"in.band{n}"].tolist() for n in range(2)]


def test_bands_by_hand() -> None:
    """L = 50 has 26 frequencies: 0.6 of them are 15.6, and the two bands are floor(26 * 0.4) = 10 apart."""
    assert frequency_bands(length=50, num_layers=2, global_ratio=0.6) == [(10, 26), (0, 16)]
    assert frequency_bands(length=50, num_layers=1, global_ratio=0.3) == [(0, 26)]
    assert frequency_bands(length=4, num_layers=3, global_ratio=0.1) == [(2, 3), (1, 2), (0, 1)]


@pytest.mark.parametrize("length", [5, 6])
def test_a_band_matrix_is_an_fft_and_back(length: int) -> None:
    x = torch.randn(length, 3, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(x, dim=0)
    spectrum[0], spectrum[2:] = 0, 0
    torch.testing.assert_close(band_matrix(length, (1, 2)) @ x, torch.fft.irfft(spectrum, n=length, dim=0))
    torch.testing.assert_close(band_matrix(length, (0, length // 2 + 1)), torch.eye(length), atol=1e-6, rtol=0)


@torch.no_grad()
def test_correlations_delays_and_shifted_values_by_loops() -> None:
    module, x = layer(time=False), tokens()
    q, k, v = module.projections(x)
    corr = module.correlation(q, k)
    filtered = band_matrix(L, (1, 3)) @ q
    for row in range(B):
        for delay in range(L):
            terms = [filtered[row, (t + delay) % L] @ k[row, t] for t in range(L)]
            torch.testing.assert_close(corr[row, delay], torch.stack(terms).sum() / D)
    assert module.num_delays == int(1.5 * 1.79)
    delays = module.pick(corr, IS_ITEM.any(1))
    assert torch.equal(delays, corr.topk(2).indices)
    context = torch.zeros(B, L, D)
    for row in range(B):
        weights = corr[row, delays[row]].softmax(-1)
        for t in range(L):
            context[row, t] = sum(w * v[row, (t + d) % L] for w, d in zip(weights, delays[row].tolist(), strict=True))
    expected = module._finish(x.flatten(0, 1)[None], context.flatten(0, 1)[None], (slice(0, 1),))
    torch.testing.assert_close(module(x, IS_ITEM), expected.view(B, L, D))


@torch.no_grad()
def test_without_wrapping_around_each_slot_has_its_own_delays_by_loops() -> None:
    module, x = layer(time=False, reads_all=False), tokens()
    q, k, v = module.projections(x)
    band = band_matrix(L, (1, 3))
    filtered, context = torch.zeros(B, L, D), torch.zeros(B, L, D)
    for t in range(L):
        for s in range(t + 1):
            filtered[:, t] += band[t, s] * q[:, s]
    for row in range(B):
        for t in range(L):
            corr = [sum(filtered[row, s] @ k[row, s - d] for s in range(d, t + 1)) / D for d in range(t + 1)]
            found = module.own_correlation(q, k)[row, t]
            torch.testing.assert_close(found[: t + 1], torch.stack(corr))
            assert torch.isinf(found[t + 1 :]).all()
            best = sorted(range(t + 1), key=lambda d: -corr[d])[:2]
            weights = torch.stack([corr[d] for d in best]).softmax(0)
            context[row, t] = sum(weight * v[row, t - d] for weight, d in zip(weights, best, strict=True))
    expected = module._finish(x.flatten(0, 1)[None], context.flatten(0, 1)[None], (slice(0, 1),)).view(B, L, D)
    torch.testing.assert_close(module(x, IS_ITEM), expected)
    torch.testing.assert_close(module.train()(x, IS_ITEM), expected)


@torch.no_grad()
@pytest.mark.parametrize("filters", [False, True])
def test_without_wrapping_around_later_slots_count_for_nothing(filters: bool) -> None:
    changed = tokens()
    changed[:, 3:] += 1
    module = layer(filters=filters, reads_all=False)
    torch.testing.assert_close(module(tokens(), IS_ITEM)[0, :3], module(changed, IS_ITEM)[0, :3])


@torch.no_grad()
def test_training_has_the_delays_of_the_mean_over_rows_with_items() -> None:
    module, x = layer().train(), tokens()
    q, k, _ = module.projections(x)
    corr = module.correlation(q, k)
    row_mask = torch.tensor([True, False, True])
    delays = module.pick(corr, row_mask)
    expected = corr[row_mask].mean(0).topk(2).indices
    assert torch.equal(delays, expected.expand(B, -1))
    assert not torch.equal(expected, corr[:2].mean(0).topk(2).indices)


@torch.no_grad()
@pytest.mark.parametrize("reads_all", [False, True])
@pytest.mark.parametrize("filters", [False, True])
def test_one_slot_of_each_row_is_that_slot_of_all(filters: bool, reads_all: bool) -> None:
    module, x = layer(filters=filters, reads_all=reads_all), tokens()
    every, last = module(x, IS_ITEM), module(x, IS_ITEM, LENGTHS - 1)
    torch.testing.assert_close(last[:, 0], every[torch.arange(B), LENGTHS - 1])


@torch.no_grad()
def test_the_time_branch_alone_is_causal_and_sees_no_padding() -> None:
    changed = tokens()
    changed[:, 3:] += 1
    for filters in (False, True):
        module = layer(filters=filters, share=1.0)
        first, second = (module(x, IS_ITEM)[0, :3] for x in (tokens(), changed))
        assert torch.allclose(first, second, atol=1e-6) != filters  # a band mixes all times


def test_disjoint_bands_by_hand() -> None:
    assert disjoint_bands([(10, 26), (0, 16)], length=50) == [(0, 10), (10, 16), (16, 26)]
    assert disjoint_bands([(2, 4), (1, 2)], length=6) == [(0, 1), (1, 2), (2, 4)]
    assert disjoint_bands([(0, 4)], length=6) == [(0, 4)]


def test_the_energy_of_waves_is_in_the_bands_of_their_frequencies() -> None:
    angle = 2 * torch.pi * torch.arange(8) / 8
    constant, slow, fast = torch.ones(8), torch.cos(angle), torch.cos(3 * angle)
    bands = [(0, 1), (1, 3), (3, 5)]
    for number, wave in enumerate((constant, slow, fast)):
        shares = energy_shares(wave[:, None], bands)
        assert shares == pytest.approx([float(number == n) for n in range(3)], abs=1e-6)
    both = torch.stack([constant, 2 * fast], dim=1)  # sums of squares 8 and 16
    assert energy_shares(both, bands) == pytest.approx([1 / 3, 0, 2 / 3], abs=1e-6)


@pytest.mark.parametrize("filters", [False, True])
@torch.no_grad()
def test_attention_of_the_last_item_by_loops(filters: bool) -> None:
    module, x, n = layer(share=0.25, filters=filters), tokens()[2:], 4
    whole, by_delay, over_time = module.attention_parts(x, IS_ITEM[2:])
    q, k, _ = module.projections(x)
    corr = module.correlation(q, k)[0]
    best = corr.topk(module.num_delays)
    weight = dict(zip(best.indices.tolist(), best.values.softmax(0).tolist(), strict=True))
    expected = [weight.get((slot - (n - 1)) % L, 0.0) for slot in range(n)]
    assert by_delay.tolist() == pytest.approx(expected, abs=1e-6)
    if filters:
        q, k = module.band @ q, module.band @ k
    heads = [(q[0, n - 1, part] @ k[0, :n, part].T / 2).softmax(0) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(over_time, (heads[0] + heads[1]) / 2)
    torch.testing.assert_close(whole, 0.75 * by_delay + 0.25 * over_time)
    alone = layer(time=False).attention_parts(x, IS_ITEM[2:])
    assert len(alone) == 1
