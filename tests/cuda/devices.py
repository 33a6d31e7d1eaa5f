"""The devices of the tests of this folder: CUDA (pytest -m gpu), and the CPU for the twins, unless a file names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
import torch
from torch import Tensor

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ON_CUDA = [pytest.param("cuda", marks=pytest.mark.gpu)]


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """The gradient of each weight, on the CPU."""
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: grad.to_dense().detach().cpu().float() for name, grad in found.items() if grad is not None}


def largest_difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest |found - expected| / |expected| in Euclidean norm, and whose it is."""
    assert found.keys() == expected.keys()

    def differences() -> Iterable[tuple[float, str]]:
        for name, value in expected.items():
            one, other = found[name].detach().cpu().float(), value.detach().cpu().float()
            yield float((one - other).norm()) / max(float(other.norm()), 1e-6), name

    return max(differences())
