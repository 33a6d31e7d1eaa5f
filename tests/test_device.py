import pytest
import torch

from athwe_core.device import has_fast_bf16, resolve_device, resolve_precision
from athwe_core.errors import ConfigError


def test_auto_is_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_device_that_is_not_there_is_refused() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=f"this machine has {count} of cuda, got 'cuda:99'"):
        resolve_device("cuda:99")


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == torch.float32
    assert resolve_precision("bf16", cpu) == torch.bfloat16
    assert resolve_precision("auto", cpu) == (torch.bfloat16 if has_fast_bf16(cpu) else torch.float32)
