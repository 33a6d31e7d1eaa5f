"""Which device, and which dtype its products are fast in."""

from __future__ import annotations

import torch

from athwe_core.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU (Apple's GPU when asked for: at these sizes it is not faster).

    Raises: ConfigError when the device asked for is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[device.type]
    if (device.index or 0) >= count:
        raise ConfigError(
            "training.device", f"must be there: this machine has {count} of {device.type}", name, "Use auto"
        )
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware: AVX512-BF16 or AMX on a CPU, Ampere or newer on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(probe is not None and probe() for probe in probes)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the catalogue's and the features' products; weights, softmax and losses stay in float32."""
    if name == "auto":
        name = "bf16" if has_fast_bf16(device) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
