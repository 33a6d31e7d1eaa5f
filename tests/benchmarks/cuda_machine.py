"""A device and how fast its matrix products and copies are, as JSON: python tests/benchmarks/cuda_machine.py cuda|cpu."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Median time of a call, of 10 after 3 that warm up."""
    found = []
    for _ in range(13):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return median(found[3:])


def machine(device: torch.device) -> dict[str, Any]:
    """Names, versions and rates of a device."""
    is_cuda = device.type == "cuda"
    size, copied = (8192, 2**30) if is_cuda else (128, 2**24)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rates[name] = 2 * size**3 / seconds(lambda a=a, b=b: a @ b, device)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        "capability": list(torch.cuda.get_device_capability(device)) if is_cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "matrix_flops_per_second": rates,
        "copy_bytes_per_second": 2 * copied / seconds(lambda: target.copy_(source), device),
    }


if __name__ == "__main__":
    print(json.dumps(machine(torch.device(sys.argv[1])), indent=2))
