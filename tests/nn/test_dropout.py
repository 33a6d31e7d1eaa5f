from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from athwe_core.nn.dropout import dropout, dropout_generator, random_bytes, replayed_dropout, with_fast_dropout


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


@pytest.mark.parametrize("rate", [0.0005, 0.001, 0.01, 0.999])
def test_a_rate_far_from_every_multiple_of_a_byte_is_exact(rate: float) -> None:
    n = 2_000_000
    x = torch.ones(n, requires_grad=True)
    dropped = dropout(x, rate, training=True)
    five_sigma = 5 * (rate * (1 - rate) / n) ** 0.5
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=five_sigma)
    assert dropped.max().item() == pytest.approx(1 / (1 - rate), rel=1e-5)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


@pytest.mark.parametrize("rate", [0.001, 0.5])
def test_rates_of_both_kinds_draw_from_the_generator_of_the_thread(rate: float) -> None:
    drawn = []
    for seed in (1, 1, 2):
        with dropout_generator(torch.Generator().manual_seed(seed)):
            drawn.append(dropout(torch.ones(20_000), rate, training=True))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


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


def test_a_generator_of_its_own_draws_what_the_default_generator_draws_and_leaves_that_alone() -> None:
    x = torch.ones(1000)
    expected = dropout(x, 0.5, training=True)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with dropout_generator(torch.Generator().manual_seed(0)):
        assert torch.equal(dropout(x, 0.5, training=True), expected)
        assert not torch.equal(dropout(x, 0.5, training=True), expected)
    assert torch.equal(torch.get_rng_state(), before)
    dropout(x, 0.5, training=True)
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_generator_holds_for_its_thread_and_until_its_block_ends() -> None:
    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    with ThreadPoolExecutor(1) as pool, dropout_generator(first):
        before = first.get_state()
        pool.submit(random_bytes, 8).result()
        assert torch.equal(first.get_state(), before)
        with dropout_generator(torch.Generator()):
            random_bytes(8)
        assert torch.equal(first.get_state(), before)
        assert torch.equal(random_bytes(64), random_bytes_of(second, 64))


def random_bytes_of(generator: torch.Generator, count: int) -> torch.Tensor:
    with dropout_generator(generator):
        return random_bytes(count)


def test_activation_checkpointing_draws_the_same_again() -> None:
    x = torch.ones(500, requires_grad=True)

    def both(value: torch.Tensor) -> torch.Tensor:
        return dropout(dropout(value.sin(), 0.3, training=True).cos(), 0.3, training=True).exp()

    generator = torch.Generator().manual_seed(3)
    with dropout_generator(generator):
        both(x).sum().backward()
    expected, x.grad = x.grad, None
    after = generator.get_state()
    generator.manual_seed(3)
    with dropout_generator(generator):
        checkpoint(both, x, use_reentrant=False, context_fn=replayed_dropout).sum().backward()
    assert torch.equal(x.grad, expected)
    assert torch.equal(generator.get_state(), after)


@pytest.mark.parametrize("kind", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_layers_of_torch_draw_from_the_generator_of_the_step(kind: type[nn.Module]) -> None:
    layer = with_fast_dropout(kind(4, 1, 8, 0.5, batch_first=True))
    x = torch.randn(2, 3, 4)
    inputs = (x,) if kind is nn.TransformerEncoderLayer else (x, x)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(1)  # of the attention
        with dropout_generator(torch.Generator().manual_seed(seed)):
            return layer.train()(*inputs)

    assert torch.equal(run(2), run(2))
    assert not torch.equal(run(2), run(3))
    torch.testing.assert_close(layer.eval()(*inputs), layer.eval()(*inputs))
    assert not [part for part in layer.children() if type(part) is nn.Dropout]
