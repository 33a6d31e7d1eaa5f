"""The Triton kernel against its twin in torch: on a device (pytest -m gpu), and in Triton's interpreter on the CPU.

Triton must know that it interprets before it is imported: this file, run as a script, does all cases in a process of its own
and prints what failed.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from athwe_core.losses import catalogue_ce, residual_kernel
from athwe_core.losses.residual_kernel import LOSS_CAP, softmax_residual_, triton_softmax_residual_

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BLOCK = residual_kernel.WIDE_BLOCK
MARGIN = 64
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not installed: the test extra brings it on x86-64 Linux alone",
)


@dataclass
class Inputs:
    scores: Tensor
    targets: Tensor
    bias: Tensor | None
    first_row: int
    num_columns: int


def inputs(rows: int, columns: int, num_columns: int, first_row: int, has_bias: bool, dtype: torch.dtype) -> Inputs:
    """Scores within a larger memory of sevens."""
    generator = torch.Generator().manual_seed(columns)
    scores = torch.full((rows + 1, columns + MARGIN), 7.0, dtype=dtype)[:rows, :columns]
    scores.copy_(3 * torch.randn(rows, columns, generator=generator))
    targets = torch.randint(first_row, num_columns, (rows,), generator=generator)
    bias = torch.randn(rows, num_columns, generator=generator) if has_bias else None
    return Inputs(scores, targets, bias, first_row, num_columns)


SIZES = {
    f"{rows}x{columns}, {first_row}..{num_columns}{', bias' * has_bias}": (
        rows,
        columns,
        num_columns,
        first_row,
        has_bias,
    )
    for rows, columns, num_columns, first_row in [
        (1, 1, 1, 0),
        (1, 2, 2, 1),
        (3, 64, 50, 1),
        (2, 1024, 1024, 0),
        (2, 1025, 1025, 1),
        (2, BLOCK + 64, BLOCK, 1),
        (2, BLOCK + 1, BLOCK + 1, 0),
        (2, 2 * BLOCK + 64, 3, 0),
    ]
    for has_bias in (False, True)
}


def not_asked(x: Inputs) -> None:
    x.targets[1:] = -1


def huge(x: Inputs) -> None:
    x.scores *= 1e4


def at_both_ends_of_float32(x: Inputs) -> None:
    x.scores[:, ::2], x.scores[:, 1::2] = 3e38, -3e38


def tiny(x: Inputs) -> None:
    x.scores *= 1e-30


def highest_last(x: Inputs) -> None:
    x.scores[:, BLOCK:] += 10


def certain(x: Inputs) -> None:
    x.scores[torch.arange(len(x.targets)), x.targets] = 200


def targets_shut(x: Inputs) -> None:
    x.bias[torch.arange(len(x.targets)), x.targets] = -math.inf


def first_block_shut(x: Inputs) -> None:
    x.bias[:, :BLOCK] = -math.inf


def all_shut_in_a_row(x: Inputs) -> None:
    x.bias[1] = -math.inf


def nan_score(x: Inputs) -> None:
    x.scores[0, 3], x.scores[1, BLOCK + 3] = math.nan, math.nan


def nan_bias(x: Inputs) -> None:
    x.bias[0, 3], x.bias[1, x.targets[1]] = math.nan, math.nan


def nan_not_asked(x: Inputs) -> None:
    x.scores[1], x.targets[1] = math.nan, -1


def infinite_score(x: Inputs) -> None:
    x.scores[0, 3], x.scores[1, x.targets[1]] = math.inf, math.inf


def nan_outside(x: Inputs) -> None:
    x.scores[:, : x.first_row], x.scores[:, x.num_columns :] = math.nan, math.nan


def transposed_bias(x: Inputs) -> None:
    x.bias = x.bias.T.contiguous().T


def bias_of_one_row(x: Inputs) -> None:
    x.bias = x.bias[:1].expand_as(x.bias)


def bias_in_half_precision(x: Inputs) -> None:
    x.bias = x.bias.bfloat16()


def strided_targets(x: Inputs) -> None:
    x.targets = torch.stack([x.targets, x.targets], dim=1)[:, 0]


def rows_that_fill_up(x: Inputs) -> None:
    x.scores[2:] = 0
    x.targets, x.bias = x.targets[:2], x.bias[:2]


def several_problems(x: Inputs) -> None:
    x.scores = torch.full((3, *x.scores._base.shape), 7.0, dtype=x.scores.dtype)[:, :-1, :-MARGIN].copy_(
        torch.stack([x.scores, -x.scores, 2 * x.scores])
    )


EDITS: dict[str, Callable[[Inputs], None]] = {
    edit.__name__: edit
    for edit in (
        *(
            not_asked,
            huge,
            at_both_ends_of_float32,
            tiny,
            highest_last,
            certain,
            targets_shut,
            first_block_shut,
            all_shut_in_a_row,
        ),
        *(nan_score, nan_bias, nan_not_asked, infinite_score, nan_outside, transposed_bias, bias_of_one_row),
        *(bias_in_half_precision, strided_targets, rows_that_fill_up, several_problems),
    )
}


def check_size(size: str, dtype: str, device: str) -> None:
    check(inputs(*SIZES[size], DTYPES[dtype]), device)


def check_edit(edit: str, dtype: str, device: str) -> None:
    x = inputs(3, BLOCK + 128, BLOCK + 100, 1, True, DTYPES[dtype])
    EDITS[edit](x)
    check(x, device)


def check(x: Inputs, device: str) -> None:
    """The kernel makes what the twin makes in float32, rounded once to the scores' dtype, and writes nothing around it."""
    expected, dtype, count = x.scores.to(torch.float32, copy=True), x.scores.dtype, len(x.targets)
    limits = {"first_row": x.first_row, "num_columns": x.num_columns}
    expected_losses = softmax_residual_(expected, x.targets, bias=x.bias, **limits)
    around = x.scores._base.to(device, copy=True)
    scores = around.as_strided(x.scores.shape, x.scores.stride())
    bias = None if x.bias is None else moved(x.bias, device)
    losses = triton_softmax_residual_(scores, moved(x.targets, device), bias, x.first_row, x.num_columns)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.cpu(), expected_losses, rtol=1e-5, atol=2e-6, equal_nan=True)
    ulps = 1 if device == "cpu" else 0.5  # the interpreter cuts off, devices round
    rtol = 1e-5 if dtype == torch.float32 else ulps * torch.finfo(dtype).eps
    found = scores[..., :count, :].cpu().float()
    torch.testing.assert_close(found, expected[..., :count, :], rtol=rtol, atol=2e-7, equal_nan=True)
    assert scores[..., count:, :].isfinite().all()
    assert (around[..., -1, :] == 7).all()
    assert (around[..., -MARGIN:] == 7).all()


def moved(x: Tensor, device: str) -> Tensor:
    """On the device, with the strides that it has."""
    memory = torch.empty(x.untyped_storage().nbytes() // x.element_size(), dtype=x.dtype, device=device)
    return memory.as_strided(x.shape, x.stride()).copy_(x) if 0 not in x.stride() else x[:1].to(device).expand_as(x)


def check_loss(part: str, dtype: str, device: str) -> None:
    """The loss and its gradients, chunk by chunk, from the kernel and from the twin."""
    generator = torch.Generator().manual_seed(0)
    N, V, K = 80, 500, 8
    states, table = torch.randn(N, K, generator=generator), torch.randn(V, K, generator=generator)
    targets, bias = (
        torch.randint(-1, V, (N,), generator=generator),
        torch.randn(N, V, generator=generator),
    )
    targets[targets == 0] = 1
    results = []
    for run in (residual_kernel.torch_softmax_residual_, triton_softmax_residual_):

        def replacement(
            scores: Tensor, targets: Tensor, *, run: Callable[..., Tensor] = run, bias: Tensor | None, **limits: int
        ) -> Tensor:
            return run(scores, targets, bias, limits["first_row"], limits["num_columns"])

        h, w = states.to(device).requires_grad_(), table.to(device).requires_grad_()
        with patch.object(catalogue_ce, "softmax_residual_", replacement):
            loss = catalogue_ce.catalogue_cross_entropy(
                h,
                w,
                targets.to(device),
                bias=bias.to(device) if part == "bias" else None,
                first_row=1,
                compute_dtype=DTYPES[dtype],
                chunk_elements=64 * 512,
            )
        results.append([loss.detach(), *torch.autograd.grad(loss, (h, w))])
    epsilon = torch.finfo(DTYPES[dtype]).eps
    for name, found, expected in zip(("loss", "states", "table"), *results, strict=True):
        assert (found - expected).norm() <= 8 * epsilon * expected.norm(), name


CASES: dict[str, Callable[[str], None]] = {
    f"{name}, {dtype}": lambda device, do=do, name=name, dtype=dtype: do(name, dtype, device)
    for do, names in ((check_size, SIZES), (check_edit, EDITS), (check_loss, ("no bias", "bias")))
    for name in names
    for dtype in DTYPES
}


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """What failed in the interpreter, by case."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_the_interpreted_kernel_is_its_twin(case: str, failures: dict[str, str]) -> None:
    assert case not in failures, failures[case]


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_is_its_twin(case: str) -> None:
    CASES[case]("cuda")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "bias"), [("bf16", None), ("fp32", "*fp32")])
def test_the_kernel_compiles_and_moves_16_bytes_at_a_time(
    capability: int, dtype: str, bias: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    path = Path(residual_kernel.__file__).with_name("residual_triton.py")
    spec = importlib.util.spec_from_file_location("residual_triton", path)  # not through the checks of shapes
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = module.softmax_residual
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"CAP": LOSS_CAP, "BLOCK": BLOCK} | ({} if bias else {"bias": None})
    pointers = {"scores": f"*{dtype}", "targets": "*i64", "bias": bias, "losses": "*fp32"}
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in ("scores", "score_stride", "columns")
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
    assert made.asm["cubin"]
    assert "ld.global.v4.b32" in made.asm["ptx"]
    assert "st.global.v4.b32" in made.asm["ptx"]


def test_on_a_cpu_nothing_imports_triton() -> None:
    code = """
import sys, torch
from athwe_core.losses.residual_kernel import softmax_residual_
softmax_residual_(torch.randn(3, 5), torch.tensor([1, 2, -1]), first_row=1, num_columns=5)
print("triton" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_without_a_driver_there_are_no_kernels() -> None:
    assert residual_kernel._has_triton() is False


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_the_twin_is_the_gradient_of_the_cross_entropy(dtype: torch.dtype) -> None:
    x = inputs(3, 20, 17, 1, True, dtype)
    scores = (x.scores.double()[:, :17] + x.bias).requires_grad_()
    losses = torch.nn.functional.cross_entropy(scores[:, 1:], x.targets - 1, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    found = softmax_residual_(x.scores, x.targets, bias=x.bias, first_row=1, num_columns=17)
    epsilon = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), losses.detach(), atol=epsilon, rtol=epsilon)
    torch.testing.assert_close(x.scores[:, :17].double(), gradient, atol=epsilon, rtol=0)
    assert (x.scores[:, 17:] == 0).all()


@pytest.mark.gpu
@needs_triton
def test_cuda_scores_go_to_the_kernel_also_in_a_graph() -> None:
    assert residual_kernel._has_triton()
    x = inputs(3, 128, 100, 1, True, torch.bfloat16)
    given, scores, targets, bias = x.scores.cuda(), x.scores.cuda(), x.targets.cuda(), x.bias.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        softmax_residual_(scores, targets, bias=bias, first_row=1, num_columns=100)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), patch.object(residual_kernel, "torch_softmax_residual_", None):
        losses = softmax_residual_(scores, targets, bias=bias, first_row=1, num_columns=100)
    for shift in (1.0, 2.0):
        scores.copy_(given * shift)
        graph.replay()
        expected = (given * shift).float().cpu()
        expected_losses = softmax_residual_(expected, x.targets, bias=x.bias, first_row=1, num_columns=100)
        torch.testing.assert_close(losses.cpu(), expected_losses, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(scores.cpu().float(), expected, rtol=2**-8, atol=2e-7)


def failed(case: str) -> str | None:
    try:
        CASES[case]("cpu")
    except Exception:  # all of them are told
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    print(json.dumps({case: text for case in CASES if (text := failed(case)) is not None}))
