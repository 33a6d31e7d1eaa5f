import pytest
import torch

from athwe_core.errors import ConfigError
from athwe_core.training.device import has_fast_bf16, resolve_device, resolve_precision
from athwe_core.training.randomness import keyed_generator, keyed_rng, keyed_seed


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


def test_seeds_depend_on_every_part_of_the_key() -> None:
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert keyed_seed(0, "a", 1) == keyed_seed(0, "a", 1)
    assert 0 <= keyed_seed(5) < 2**63


def test_generators_of_one_key_draw_the_same() -> None:
    assert keyed_rng(3, "x").random() == keyed_rng(3, "x").random()
    draws = [torch.rand(2, generator=keyed_generator(3, "x")) for _ in range(2)]
    assert torch.equal(*draws)
