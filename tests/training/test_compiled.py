import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from setups import setup_of

from athwe_core.config import Config
from athwe_core.data.packing import FIXED_PADDING, pack
from athwe_core.data.rows import training_rows
from athwe_core.distributed import ProcessGroup
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training import compiled as module
from athwe_core.training.build import TrainingSetup
from athwe_core.training.compiled import compile_or_not, wants_compiler

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "device", "processes", "loss", "preset", "expected"),
    [
        ("auto", CPU, 1, "full", "athwe", False),
        ("auto", CUDA, 1, "full", "athwe", True),
        ("on", CPU, 1, "full", "hm4sr", True),
        ("off", CUDA, 1, "full", "hm4sr", False),
        ("on", CUDA, 2, "full", "hm4sr", False),
        ("on", CUDA, 1, "sampled", "hm4sr", False),
        ("on", CUDA, 1, "full", "athwe-published", False),
    ],
)
def test_what_is_compiled(
    choice: str, device: torch.device, processes: int, loss: str, preset: str, expected: bool
) -> None:
    overrides = [f"training.compiler={choice}", f"losses.catalogue.kind={loss}"]
    config = replace_in(build_config(preset), overrides)
    has_fixed_shapes = not config.model.wavelet.enabled or config.model.wavelet.form == "causal"
    assert wants_compiler(config, device, ProcessGroup(0, processes), has_fixed_shapes=has_fixed_shapes) is expected


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.long), pytest.param("cuda", marks=pytest.mark.gpu)]
)
@pytest.mark.parametrize("preset", ["hm4sr", "athwe"])
def test_a_compiled_step_is_the_plain_step_and_is_compiled_once(preset: str, device: str) -> None:
    """In another process: the compiler cannot see through the checks of shapes that these tests put around functions."""
    harness = Path(__file__).with_name("compiled_harness.py")
    command = [sys.executable, harness, preset, device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["notes"] == []
    assert found["graphs_after"] == found["graphs_before"] > 0
    assert found["largest_difference"] < (1e-4 if device == "cpu" else 1e-3)


@pytest.fixture
def world(catalogue: Any, time_range: Any, make_config: Callable) -> tuple[Config, TrainingSetup]:
    config = make_config("hm4sr")
    return config, setup_of(config, catalogue, time_range, torch.float32)


def test_without_a_working_compiler_it_goes_on_with_one_line(
    world: tuple[Config, TrainingSetup], make_data: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, setup = world

    def broken(*_: Any) -> None:
        raise RuntimeError("no C++ compiler was found\nand forty lines of advice")

    monkeypatch.setattr(module.torch, "compile", lambda _, **__: broken)
    data = make_data([9, 8])
    rows = training_rows(data.split, batching="packed", max_length=6)
    batch = pack(data, rows, np.arange(len(rows)), max_length=6, padding=FIXED_PADDING)
    notes: list[str] = []
    assert compile_or_not(setup, batch, config, notify=notes.append) is setup
    assert notes == ["the compiler failed (no C++ compiler was found): going on without it"]


def test_the_limit_of_recompilations_is_raised_for_a_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch._dynamo.config.recompile_limit
    monkeypatch.setattr(
        module.torch, "compile", lambda loss_module, **_: lambda *_: torch._dynamo.config.recompile_limit
    )
    assert before < module.MOST_SHAPES == module._for_many_shapes(module.torch.compile(None))(1, 2)
    assert torch._dynamo.config.recompile_limit == before


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.__version__.startswith("2.13."), reason="the harness is written for the inside of torch 2.13"
)
@pytest.mark.parametrize("preset", ["athwe", "hm4sr", "sasrec"])
@pytest.mark.parametrize("capability", [80, 90])
def test_a_step_compiles_for_a_device_that_is_not_here(preset: str, capability: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton writes the kernels and has no build for this system")
    command = [sys.executable, str(Path(__file__).with_name("ahead_harness.py")), preset, str(capability)]
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | caches)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert min(kernels["forward"], kernels["backward"]) >= 20
