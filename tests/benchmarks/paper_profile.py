"""A training step on paper: kernels, operations and bytes, without a device: python tests/benchmarks/paper_profile.py --help.

The step runs on torch's meta device, which computes shapes only. There it takes the branches of CUDA; the fused attention and
the Triton kernel, which the meta device does not have, are counted by hand. Times are bounds by the rates of a card's data
sheet: no kernel is faster, none takes less than LAUNCH_SECONDS.
"""

from __future__ import annotations

import argparse
import json
import math
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from athwe_core.analysis.benchmark.generated import build_generated, generate_bench_data
from athwe_core.analysis.benchmark.step_time import training_batches
from athwe_core.config import parse_override
from athwe_core.data.packing import FIXED_PADDING
from athwe_core.losses import catalogue_ce
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.build import TrainingSetup
from athwe_core.training.step import compute_gradients, gradient_norm

LAUNCH_SECONDS = 2e-6
"""Least time of a kernel inside a graph."""
HOST_SECONDS = 6e-6
"""Time for Python and torch to start one kernel, an assumption."""
ADAM_TENSORS = 36
"""Weights that one launch of torch's fused Adam takes."""


@dataclass(frozen=True)
class Card:
    """Rates of a data sheet, a second."""

    bf16_flops: float
    fp32_flops: float
    memory_bytes: float


CARDS = {
    "A100 40 GB": Card(312e12, 19.5e12, 1.555e12),
    "H100": Card(989e12, 67e12, 3.35e12),
    "H200": Card(989e12, 67e12, 4.8e12),
}


@dataclass(frozen=True)
class Kernel:
    """One kernel, or one operation that is a few."""

    name: str
    flops: float
    moved: int
    """Bytes read and written."""
    is_low: bool
    """Whether its products are in half precision."""

    def seconds(self, card: Card) -> float:
        """The least time on a card."""
        rate = card.bf16_flops if self.is_low else card.fp32_flops
        return max(self.flops / rate, self.moved / card.memory_bytes)


class Kernels(TorchDispatchMode):
    """The operations that start a kernel, and the most bytes of results that are alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Kernel] = []
        self.alive, self.peak, self.is_counting = 0, 0, True
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for value in results:
            self._keep(value)
        if self.is_counting and not _is_free(function):
            count = flop_registry.get(function.overloadpacket)
            flops = 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
            is_low = any(value.dtype in (torch.bfloat16, torch.float16) for value in tensors)
            moved = sum(map(_size, {id(value): value for value in (*tensors, *results)}.values()))
            self.found.append(Kernel(str(function.overloadpacket), flops, moved, is_low))
        return result

    def add(self, name: str, flops: float, *tensors: Tensor) -> None:
        """Count a kernel by hand."""
        self.found.append(Kernel(name, flops, sum(map(_size, tensors)), tensors[0].dtype != torch.float32))

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Count nothing but memory."""
        self.is_counting = False
        yield
        self.is_counting = True

    def _keep(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._release, id(storage), size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def _is_free(function: Any) -> bool:
    """Whether an operation starts no kernel: views, and memory that is not filled."""
    name = str(function.overloadpacket).removeprefix("aten.")
    return function.is_view or name.startswith(("empty", "new_empty", "_unsafe_view", "_reshape_alias", "lift_fresh"))


def _size(value: Tensor) -> int:
    """Bytes of the elements, a repeated one once."""
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())


def fused_attention(kernels: Kernels) -> Any:
    """A stand-in for torch's fused attention: one kernel there, two back."""

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(query, key, value, bias)
            with kernels.by_hand():
                out = torch.empty_like(value)
            kernels.add("fused attention", 4 * query.numel() * key.shape[-2], query, key, value, bias, out)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            query, key, value, bias = ctx.saved_tensors
            with kernels.by_hand():
                grads = [torch.empty_like(x) for x in (query, key, value)]
            kernels.add("fused attention, sums of rows", 0, grad, value)
            kernels.add(
                "fused attention, back", 10 * query.numel() * key.shape[-2], query, key, value, bias, grad, *grads
            )
            return (*grads, None)

    def call(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor, **_: Any) -> Tensor:
        return Attention.apply(query, key, value, attn_mask)

    return call


def residual(kernels: Kernels) -> Any:
    """A stand-in for the Triton kernel of the catalogue loss, one launch for each problem."""

    def call(scores: Tensor, targets: Tensor, **_: Any) -> Tensor:
        with kernels.by_hand():
            losses = torch.empty(*scores.shape[:-2], len(targets), dtype=torch.float32, device=scores.device)
        for _ in range(math.prod(scores.shape[:-2])):
            kernels.add("residual kernel (Triton)", 0, scores, scores)
        return losses

    return call


def profile(setup: TrainingSetup, batch: Any, config: Any) -> dict[str, Any]:
    """Count one step.

    Args:
        setup: on the CPU; moved to the meta device.
        batch: on the CPU.
        config: of the setup.
    Returns: kernels by name, totals, bounds for each card.
    """
    model = setup.model
    setup.loss_module.to("meta")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    kernels = Kernels()
    with (
        patch.object(F, "scaled_dot_product_attention", fused_attention(kernels)),
        patch.object(F, "dropout", lambda x, rate: torch.native_dropout(x, rate, True)[0]),
        patch.object(catalogue_ce, "softmax_residual_", residual(kernels)),
        kernels,
    ):
        compute_gradients(setup, batch.to("meta"), config, epoch=0, step=0)
        with kernels.by_hand():
            gradient_norm(model)
        kernels.add("gradient norm", 0, *(weight.grad for weight in weights if weight.grad is not None))
    for _ in range(3):  # their norms in one launch, the norm of these, whether it is finite
        kernels.add("gradient norm", 0, torch.empty(0))
    elements = sum(weight.numel() for weight in weights)
    for _ in range(math.ceil(len(weights) / ADAM_TENSORS)):
        kernels.add("Adam", 0, torch.empty(0))
    kernels.found.append(Kernel("Adam, bytes", 0, 28 * elements, False))
    found = kernels.found
    launches = len(found) - 1
    return {
        "kernels": launches,
        "tera_operations": sum(one.flops for one in found) / 1e12,
        "giga_bytes": sum(one.moved for one in found) / 1e9,
        "peak_bytes_above_state": kernels.peak,
        "tokens": batch.num_tokens,
        "by_name": dict(Counter(one.name for one in found).most_common()),
        "milliseconds": {
            name: {
                "without launches": 1e3 * sum(one.seconds(card) for one in found),
                "as a graph": 1e3 * sum(max(one.seconds(card), LAUNCH_SECONDS) for one in found),
                "started one by one": 1e3 * max(launches * HOST_SECONDS, sum(one.seconds(card) for one in found)),
            }
            for name, card in CARDS.items()
        },
        "cards": {name: asdict(card) for name, card in CARDS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="hm4sr")
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--feature-width", type=int, default=768)
    parser.add_argument("--set", action="append", default=[], help="configuration, key=value")
    args = parser.parse_args()
    settings = ["training.device=cpu", "training.precision=bf16"]
    config = build_config(args.preset, [parse_override(text) for text in args.set])
    config = replace_in(config, settings)
    data = generate_bench_data(num_users=args.users, num_items=args.items, mean_length=8.9)
    setup = build_generated(data, config, num_items=args.items, feature_width=args.feature_width)
    batch, _ = next(training_batches(data, config, padding=FIXED_PADDING))
    print(json.dumps(profile(setup, batch, config), indent=2))


if __name__ == "__main__":
    main()
