import pytest
import torch
from torch import Tensor

from athwe_core.nn.parallel_scan import linear_recurrence

LENGTHS = [1, 5, 2, 8, 1, 7]
"""Lengths around powers of two, and rows of one token at the beginning and in the middle."""


def row_positions(lengths: list[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])


def loop(x: Tensor, decay: Tensor, positions: Tensor) -> Tensor:
    states: list[Tensor] = []
    for value, position in zip(x, positions.tolist(), strict=True):
        states.append(value + (decay * states[-1] if position > 0 else 0))
    return torch.stack(states)


def inputs(dtype: torch.dtype, lengths: list[int] = LENGTHS, channels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    x = torch.randn(sum(lengths), channels, generator=generator, dtype=dtype)
    decay = torch.randn(channels, generator=generator, dtype=dtype)
    decay = decay / decay.abs() * torch.tensor([0.3, 0.9, 0.999, 1.0])[:channels]
    return x.requires_grad_(), decay.requires_grad_(), row_positions(lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("max_length", [8, 9, 50])
def test_states_and_gradients_are_those_of_the_loop(dtype: torch.dtype, max_length: int) -> None:
    x, decay, positions = inputs(dtype)
    ours, plain = linear_recurrence(x, decay, positions, max_length=max_length), loop(x, decay, positions)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    slope = torch.randn_like(plain)
    found, expected = (torch.autograd.grad((y * slope.conj()).sum().abs(), (x, decay)) for y in (ours, plain))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", range(1, 18))
def test_one_row_of_any_length_is_the_loop(length: int) -> None:
    x, decay, positions = inputs(torch.complex128, [length])
    found = linear_recurrence(x, decay, positions, max_length=length)
    torch.testing.assert_close(found, loop(x, decay, positions))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradcheck(dtype: torch.dtype) -> None:
    x, decay, positions = inputs(dtype, [3, 1, 4])
    assert torch.autograd.gradcheck(lambda x, a: linear_recurrence(x, a, positions, max_length=4), (x, decay))


def test_a_constant_input_by_hand() -> None:
    x, decay = torch.ones(5, 1), torch.tensor([0.5])
    found = linear_recurrence(x, decay, torch.tensor([0, 1, 2, 0, 1]), max_length=3)
    assert found.flatten().tolist() == [1, 1.5, 1.75, 1, 1.5]


def test_a_row_depends_on_nothing_but_its_own_earlier_tokens() -> None:
    x, decay, positions = inputs(torch.complex64)
    before = linear_recurrence(x, decay, positions, max_length=8)
    changed = x.detach().clone()
    changed[10] = torch.nan  # token 2 of the row at 8..15
    after = linear_recurrence(changed, decay, positions, max_length=8)
    reached = after.isnan().any(1)
    assert reached.nonzero().flatten().tolist() == [10, 11, 12, 13, 14, 15]
    torch.testing.assert_close(after[~reached], before[~reached], atol=0, rtol=0)


def test_no_gradient_crosses_the_start_of_a_row() -> None:
    x, decay, positions = inputs(torch.float64)
    linear_recurrence(x, decay, positions, max_length=8)[12].sum().backward()
    assert x.grad.any(1).nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("decay_dtype", "state_dtype"), [(torch.complex64, torch.complex64), (torch.float32, torch.float32)]
)
def test_bfloat16_inputs_are_cast_up_and_get_their_gradient_back(
    decay_dtype: torch.dtype, state_dtype: torch.dtype
) -> None:
    x, decay, positions = inputs(decay_dtype)
    half = x.detach().real.bfloat16().requires_grad_()
    found = linear_recurrence(half, decay, positions, max_length=8)
    assert found.dtype == state_dtype
    torch.testing.assert_close(found, loop(half.to(state_dtype), decay, positions), atol=1e-5, rtol=1e-5)
    found.abs().sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.abs().min() > 0


def test_one_input_may_need_no_gradient() -> None:
    x, decay, positions = inputs(torch.float64)
    linear_recurrence(x.detach(), decay, positions, max_length=8).sum().backward()
    assert decay.grad.abs().min() > 0


def test_an_empty_stream_has_no_states() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert linear_recurrence(torch.zeros(0, 3), torch.ones(3), empty, max_length=8).shape == (0, 3)
