"""Fusion in the frequency domain: matrices against FFTs, the product against a circular convolution by loops."""

import pytest
import torch

from athwe_core.nn.frequency_fusion import FrequencyFusion, signal_matrix, spectrum_matrix

B, L, D = 2, 5, 3


def signals() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, L, D, generator=generator), torch.randn(B, L, D, generator=generator)


def fusion(
    *, has_filter: bool = True, has_product: bool = True, reads_all: bool = True, length: int = L
) -> FrequencyFusion:
    found = FrequencyFusion(
        length=length, hidden_size=D, has_filter=has_filter, has_product=has_product, reads_all=reads_all
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(generator=generator)
    return found


@pytest.mark.parametrize("length", [1, 5, 6])
def test_matrices_are_the_transform_and_its_inverse(length: int) -> None:
    x = torch.randn(length, D, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(x, dim=0, norm="ortho")
    found = spectrum_matrix(length) @ x
    torch.testing.assert_close(found, torch.cat([spectrum.real, spectrum.imag]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(signal_matrix(length) @ found, x, atol=1e-6, rtol=1e-5)
    other = torch.complex(*torch.randn(2, length // 2 + 1, D, generator=torch.Generator().manual_seed(1)).unbind())
    back = torch.fft.irfft(other, n=length, dim=0, norm="ortho")
    joined = torch.cat([other.real, other.imag])
    torch.testing.assert_close(signal_matrix(length) @ joined, back, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_product_is_a_circular_convolution() -> None:
    module, (x, y) = fusion(has_filter=False), signals()
    gate = module.product_gate
    assert gate is not None
    expected = torch.zeros(B, L, D)
    for t in range(L):
        for s in range(L):
            expected[:, t] += x[:, s] * y[:, (t - s) % L] / L**0.5
    torch.testing.assert_close(module(x, y), 2 * expected * torch.sigmoid(gate(expected)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_filter_multiplies_the_spectrum() -> None:
    module, (x, _) = fusion(has_product=False), signals()
    assert module.filter is not None
    assert module.filter_gate is not None
    complex_filter = torch.complex(*module.filter.chunk(2))
    expected = torch.fft.irfft(torch.fft.rfft(x, dim=1) * complex_filter, n=L, dim=1)
    gated = 2 * expected * torch.sigmoid(module.filter_gate(expected))
    torch.testing.assert_close(module(x, None), gated, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 5, 6])
def test_without_what_wraps_around_the_sums_end_at_the_slot(length: int) -> None:
    x, y = torch.randn(2, B, length, D, generator=torch.Generator().manual_seed(0))
    product = fusion(has_filter=False, reads_all=False, length=length)
    filtered = fusion(has_product=False, reads_all=False, length=length)
    assert product.product_gate is not None
    assert filtered.filter is not None
    assert filtered.filter_gate is not None
    kernel = torch.fft.irfft(torch.complex(*filtered.filter.chunk(2)), n=length, dim=0, norm="ortho")
    for module, other, gate in ((product, y, product.product_gate), (filtered, kernel[None], filtered.filter_gate)):
        expected = torch.zeros(B, length, D)
        for t in range(length):
            for s in range(t + 1):
                expected[:, t] += x[:, s] * other[:, t - s] / length**0.5
        found = module(x, y if module is product else None)
        torch.testing.assert_close(found, 2 * expected * torch.sigmoid(gate(expected)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_both_are_added() -> None:
    module, (x, y) = fusion(), signals()
    parts = []
    for has_filter in (True, False):
        part = FrequencyFusion(length=L, hidden_size=D, has_filter=has_filter, has_product=not has_filter)
        names = part.state_dict().keys()
        part.load_state_dict({name: value for name, value in module.state_dict().items() if name in names})
        parts.append(part(x, None if has_filter else y))
    torch.testing.assert_close(module(x, y), parts[0] + parts[1])
