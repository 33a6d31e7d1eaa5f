"""The device to train on, the dtype in which its products are fast, and its free memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from athwe_core.distributed import are_several, local_rank
from athwe_core.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The torch device of a name.

    Of several processes that torchrun started, each gets the CUDA device of its local rank.

    Args:
        name: a torch device such as `cpu`, `cuda`, `cuda:1` or `mps`; or `auto`: CUDA if the machine has it, else the CPU.
            `auto` never chooses Apple's GPU (`mps`), which is not faster for models of this size.
    Returns: the device; a CUDA device has its index where several processes run.
    Raises:
        ConfigError: The machine does not have this device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device == torch.device("cuda") and are_several():
        device = torch.device("cuda", local_rank())
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[device.type]
    if (device.index or 0) >= count:
        raise ConfigError("training.device", f"must exist: this machine has {count} of {device.type}", name, "Use auto")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware: AVX512-BF16 or AMX on a CPU, Ampere or newer on CUDA.

    Args:
        device: that runs the products.
    Returns: False for types other than `cpu` and `cuda`.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(probe is not None and probe() for probe in probes)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a model's large products in training; weights and losses stay in float32.

    Args:
        name: `fp32`, `bf16`, or `auto`: bfloat16 if the device has it in hardware.
        device: that runs the products.
    Returns: float32 or bfloat16.
    """
    if name == "auto":
        name = "bf16" if has_fast_bf16(device) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def available_memory(device: torch.device) -> int | None:
    """Free memory in bytes.

    Args:
        device: for `cuda` its free memory; for `cpu` what Linux reports as available, within the limit of the control group.
    Returns: bytes; None where it is not known.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [left for left in (_left_of_machine(), *_left_of_groups(Path("/sys/fs/cgroup"))) if left is not None]
    return min(found, default=None)


def _left_of_machine() -> int | None:
    """Available memory of the machine, as Linux reports it."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _left_of_groups(root: Path) -> list[int]:
    """Free memory within the limits of control groups, version 2 and 1; a container sees its own group as the root."""
    found = []
    for limit, used, folder in (
        ("memory.max", "memory.current", root),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", root / "memory"),
    ):
        with suppress(OSError, ValueError):  # no such file, or the limit is `max`
            most = int((folder / limit).read_text(encoding="ascii"))
            found.append(max(0, most - int((folder / used).read_text(encoding="ascii")) + _reclaimable(folder)))
    return found


def _reclaimable(folder: Path) -> int:
    """Bytes of cached file pages that the kernel can reclaim from the group."""
    with suppress(OSError, ValueError, IndexError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, value = line.split()
            if name == "inactive_file":
                return int(value)
    return 0
