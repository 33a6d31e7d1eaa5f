import pytest
import torch

from athwe_core.nn.dropout import dropout, random_bytes


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_each_of_the_8_byte_lanes_of_a_word_takes_values_in_both_halves() -> None:
    lanes = random_bytes(8 * 4096).view(-1, 8).float()
    assert ((lanes >= 128).float().mean(0) - 0.5).abs().max() < 0.05
    assert lanes.amin(0).max() == 0
    assert lanes.amax(0).min() == 255


def test_each_of_the_8_byte_lanes_is_both_kept_and_dropped() -> None:
    kept = dropout(torch.ones(4096, 8), 0.5, training=True) != 0
    assert (kept.float().mean(0) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1001])
def test_random_bytes_are_as_many_as_requested(count: int) -> None:
    assert random_bytes(count).shape == (count,)
    assert random_bytes(count).dtype == torch.uint8


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_rate_and_expectation(rate: float) -> None:
    n = 90_000
    dropped = dropout(torch.ones(n), rate, training=True)
    threshold = round(rate * 256)
    four_sigma = 4 * (rate * (1 - rate) / n) ** 0.5
    assert (dropped == 0).float().mean().item() == pytest.approx(threshold / 256, abs=four_sigma)
    assert dropped.mean().item() == pytest.approx(1, abs=four_sigma * 256 / (256 - threshold))
    torch.testing.assert_close(dropped.max(), torch.tensor(256 / (256 - threshold)))


def test_the_highest_rate_still_scales_finitely() -> None:
    assert dropout(torch.ones(4096), 0.9999, training=True).isfinite().all()


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_is_the_identity_when_not_training_or_without_rate(rate: float, training: bool) -> None:
    x = torch.randn(5, 3)
    assert dropout(x, rate, training=training) is x


def test_the_gradient_is_the_mask_with_its_scale() -> None:
    x = torch.ones(7, 13, requires_grad=True)
    y = dropout(x, 0.3, training=True)
    slope = torch.randn(7, 13)
    (y * slope).sum().backward()
    torch.testing.assert_close(x.grad, y.detach() * slope)


def test_works_on_a_transposed_view_and_leaves_its_input_alone() -> None:
    x = torch.randn(6, 4)
    before = x.clone()
    y = dropout(x.T, 0.5, training=True)
    assert torch.equal(x, before)
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * x.T[kept])


def test_repeats_with_the_seed_and_differs_without() -> None:
    x = torch.ones(1000)
    first = dropout(x, 0.5, training=True)
    assert not torch.equal(dropout(x, 0.5, training=True), first)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.5, training=True), first)
