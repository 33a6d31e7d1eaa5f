"""Which device, which dtype its products are fast in, and how much memory it has left."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from athwe_core.distributed import are_several, local_rank
from athwe_core.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU (Apple's GPU when asked for: at these sizes it is not faster).

    Of several processes on a machine, each has the CUDA device of its own number.

    Raises: ConfigError when the device asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device == torch.device("cuda") and are_several():
        device = torch.device("cuda", local_rank())
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


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken: free on CUDA; on a CPU what Linux and the control group leave; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [left for left in (_left_of_machine(), *_left_of_groups(Path("/sys/fs/cgroup"))) if left is not None]
    return min(found, default=None)


def _left_of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _left_of_groups(root: Path) -> list[int]:
    """What control groups of both versions leave of their limits, as a container sees its own at the root."""
    found = []
    for limit, used, folder in (
        ("memory.max", "memory.current", root),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", root / "memory"),
    ):
        with suppress(OSError, ValueError):  # not there, or `max`
            most = int((folder / limit).read_text(encoding="ascii"))
            found.append(max(0, most - int((folder / used).read_text(encoding="ascii")) + _reclaimable(folder)))
    return found


def _reclaimable(folder: Path) -> int:
    """File pages that the group gives back when it must."""
    with suppress(OSError, ValueError, IndexError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, value = line.split()
            if name == "inactive_file":
                return int(value)
    return 0
