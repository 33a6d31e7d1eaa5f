"""The meter counts what is alive, not what was made, and refuses more than its limit."""

import pytest
import torch

from athwe_core.training.memory_meter import MemoryMeter, peak_bytes

FLOATS = 1000
CPU = torch.device("cpu")


def test_the_peak_is_of_tensors_alive_at_the_same_time() -> None:
    def work() -> None:
        for _ in range(5):
            one = torch.zeros(FLOATS)
            two = one + 1
            del one, two

    assert peak_bytes(work, CPU) == 2 * 4 * FLOATS


def test_views_and_tensors_of_before_take_nothing() -> None:
    given = torch.zeros(FLOATS)
    assert peak_bytes(lambda: given.view(10, -1).t().add_(1), CPU) == 0


def test_a_backward_pass_is_counted_with_its_gradient() -> None:
    weight = torch.zeros(FLOATS, requires_grad=True)
    with MemoryMeter() as meter:
        weight.exp().sum().backward()
        assert meter.alive == 4 * FLOATS  # the gradient stays
    assert 3 * 4 * FLOATS <= meter.peak + 4 * FLOATS <= 4 * 4 * FLOATS


def test_the_meta_device_holds_nothing() -> None:
    assert peak_bytes(lambda: torch.zeros(FLOATS, device="meta") + 1, CPU) == 0


def test_more_than_the_limit_is_refused_as_a_device_does() -> None:
    given = torch.zeros(FLOATS)
    with MemoryMeter(limit=4 * FLOATS - 1) as meter, pytest.raises(torch.OutOfMemoryError, match="hold 4000 of 3999"):
        given.exp()
    assert meter.refused == 1


def test_a_new_peak_begins_at_what_is_alive() -> None:
    with MemoryMeter() as meter:
        kept = torch.zeros(FLOATS)
        kept.add(1)
        meter.forget_peak()
    assert meter.peak == 4 * FLOATS
