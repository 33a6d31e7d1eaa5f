import pytest
import torch

from athwe_core.nn.multiply_add import sum_of_products


@pytest.mark.parametrize("count", [1, 2, 5])
def test_is_the_sum_of_the_products_with_broadcasting(count: int) -> None:
    torch.manual_seed(count)
    pairs = [(torch.randn(3, 1, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)) for _ in range(count)]
    found = sum_of_products(pairs)
    expected = torch.stack([a * b for a, b in pairs]).sum(0)
    torch.testing.assert_close(found, expected)
    inputs = [tensor for pair in pairs for tensor in pair]
    ours = torch.autograd.grad(found.square().sum(), inputs)
    for mine, theirs in zip(ours, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        torch.testing.assert_close(mine, theirs)
