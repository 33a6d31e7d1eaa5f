"""The compiled training step for a CUDA device that is not here: Inductor's kernels for it, by Triton, as machine code.

    python ahead_harness.py PRESET CAPABILITY

Prints as JSON how many kernels were compiled, forward and backward; each of the sizes that Inductor would try for a kernel
counts. The step is traced on the CPU, with its backward pass. Its operations are traced again as CUDA's, with tensors that
hold nothing, and go through Inductor with the properties of an H100 and the CAPABILITY given. Nothing is run but the first
trace. Two things differ from a step on a device: the catalogue loss is the twin of its own kernel in torch's operations, and
attention is spelt out.

Reaches into the inside of Inductor, as it is in torch 2.13.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from spread_harness import SMALL, Data, network_of
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config as inductor_config
from torch._inductor import scheduler
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.replace_random import replace_random_passes
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from athwe_core.data.packing import FIXED_PADDING, pack
from athwe_core.data.rows import training_rows
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training.step import compute_gradients

ops = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Part(NamedTuple):
    """The forward or the backward pass of a step."""

    name: str
    graph: GraphModule
    inputs: list[Any]
    """(shape, stride, dtype) of each tensor, and numbers."""


def traced(preset: str) -> list[Part]:
    """Both passes of a step on the CPU, in the operations that Inductor knows."""
    parts: list[Part] = []

    def keep(name: str) -> Callable[..., Any]:
        def compiler(graph: GraphModule, inputs: list[Any]) -> Any:
            shapes = [(i.shape, i.stride(), i.dtype) if isinstance(i, Tensor) else i for i in inputs]
            parts.append(Part(name, graph, shapes))
            return make_boxed_func(graph.forward)

        return compiler

    data = Data()
    config = replace_in(build_config(preset), [*SMALL, "model.dropout=0.2", "training.device=cpu"])
    setup = network_of(config, data)
    backend = aot_autograd(
        fw_compiler=keep("forward"),
        bw_compiler=keep("backward"),
        decompositions=select_decomp_table(),
        partition_fn=min_cut_rematerialization_partition,
    )
    compiled = torch.compile(setup.loss_module, backend=backend, dynamic=False, fullgraph=True)
    rows = training_rows(data.split, batching="packed", max_length=6)
    batch = pack(data, rows, np.arange(7), max_length=6, padding=FIXED_PADDING)
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's own attention is no operation of CUDA
        compute_gradients(replace(setup, compiled=compiled), batch, config, epoch=0, step=0)
    return parts


def on_cuda(part: Part) -> tuple[FakeTensorMode, GraphModule, list[Any]]:
    """The pass as of tensors on a CUDA device; inputs for it, which hold nothing."""
    graph = part.graph.graph
    for node in list(graph.nodes):
        if node.op == "get_attr":  # a number, such as minus infinity, that the trace keeps as a tensor of the CPU
            value, (use,) = getattr(part.graph, node.target), node.users
            with graph.inserting_before(use):
                options = {"dtype": value.dtype, "device": CUDA}
                use.replace_all_uses_with(graph.call_function(ops.full.default, ([], value.item()), options))
            graph.erase_node(use)
            graph.erase_node(node)
        elif node.kwargs.get("device") == CPU:
            node.kwargs = {**node.kwargs, "device": CUDA}
    part.graph.recompile()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs = [
            torch.empty_strided(given[0], given[1], dtype=given[2], device=CUDA) if isinstance(given, tuple) else given
            for given in part.inputs
        ]
        made = make_fx(part.graph)(*inputs)
        with V.set_fake_mode(mode):
            replace_random_passes(made)
        return mode, made, inputs


def pretend(capability: int) -> ExitStack:
    """A CUDA device with the properties of an H100 and this capability, while the stack is open."""
    major, minor = divmod(capability, 10)
    properties = SimpleNamespace(
        major=major,
        minor=minor,
        multi_processor_count=132,
        regs_per_multiprocessor=65_536,
        max_threads_per_multi_processor=2_048,
        max_threads_per_block=1_024,
        warp_size=32,
    )
    device = {
        "get_device_properties": lambda *_: properties,
        "get_compute_capability": lambda *_: capability,
        "is_available": lambda: True,
        "raise_if_triton_unavailable": lambda *_: None,
        "current_device": lambda: 0,
    }
    stack = ExitStack()
    stack.enter_context(patch.multiple(CudaInterface, **{name: staticmethod(f) for name, f in device.items()}))
    stack.enter_context(patch.object(torch.cuda, "get_device_properties", lambda *_: properties))
    stack.enter_context(patch.object(torch.cuda, "get_device_capability", lambda *_: (major, minor)))
    stack.enter_context(patch.object(scheduler, "has_triton", lambda *_: True))
    stack.enter_context(patch.object(triton_helpers, "set_driver_to_gpu", lambda: None))
    stack.enter_context(patch.object(torch._C, "_cuda_getCurrentRawStream", lambda _: 0, create=True))
    # Methods of Python look for the device of their tensor first; operations on tensors that hold nothing do not.
    stack.enter_context(patch.object(Tensor, "copy_", lambda a, b, wait=False: ops.copy_.default(a, b, wait)))
    chosen = Tensor.__getitem__
    one = lambda a, i: ops.select.int(a, 0, i) if isinstance(i, int) else chosen(a, i)  # noqa: E731 - as those beside it
    stack.enter_context(patch.object(Tensor, "__getitem__", one))
    stack.enter_context(patch.object(Tensor, "__invert__", lambda a: ops.bitwise_not.default(a)))  # noqa: PLW0108 - bound
    stack.enter_context(inductor_config.patch(use_static_triton_launcher=False, fx_graph_cache=False))
    target = GPUTarget("cuda", capability, 32)
    active = SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0)
    stack.enter_context(patch.object(driver, "_active", active))
    return stack


def main(preset: str, capability: int) -> None:
    made: dict[str, int] = {}
    parts = traced(preset)
    machine = f".target sm_{capability}"

    def precompile(self: CachingAutotuner, *_: Any, **__: Any) -> None:
        for choice in self.configs:
            kernel = self._precompile_config(choice).kernel
            assert kernel.asm["cubin"]
            assert machine in kernel.asm["ptx"]
            made[part.name] = made.get(part.name, 0) + 1

    for part in parts:
        with pretend(capability), patch.object(CachingAutotuner, "precompile", precompile):
            mode, graph, inputs = on_cuda(part)
            with mode:
                compile_fx_inner(graph, inputs, cudagraphs=False, is_backward=part.name == "backward")
    print(json.dumps(made))


if __name__ == "__main__":
    inductor_config.compile_threads = 1  # in this process
    main(sys.argv[1], int(sys.argv[2]))
