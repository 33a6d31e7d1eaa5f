"""The table of a suite: one line a case, the columns of a CUDA device where there is one, no empty table of rankings."""

from typing import Any

import pytest

from athwe_core.analysis.benchmark.records import SuiteResult
from athwe_core.analysis.benchmark.suite_table import suite_markdown

HEAD = "| preset | rows | precision | compiled | s a step (min) | / fp32 floor | s an epoch | peak GB |"


def result(**changes: Any) -> SuiteResult:
    step = {
        "preset": "hm4sr",
        "rows": "packed",
        "precision": "bf16",
        "compiler": "on",
        "graphs": False,
        "targets": 16_384,
        "rounds": 1,
        "step_seconds": {"median": 0.25, "min": 0.2, "max": 0.3},
        "epoch_seconds": 25.0,
        "floor_seconds": {"fp32": 0.125, "bf16": 0.0625},
        "memory_floor_seconds": 0.05,
        "ratio": 2.0,
        "peak_memory_bytes": 3 * 10**9,
        "state_bytes": 10**9,
        "kernels": None,
        "notes": [],
    }
    machine = {"device": "a card", "threads": 2, "torch": "2.13.0", "python": "3.11.7", "date": "2026-11-27"}
    sizes = {"users": 2_000, "items": 1_000, "mean_length": 8.9, "feature_width": 768}
    return {"machine": machine, "sizes": sizes, "steps": [step | changes], "ranking": []}  # type: ignore[typeddict-item]


def test_a_processor_has_no_columns_of_a_cuda_device() -> None:
    lines = suite_markdown(result()).splitlines()
    assert lines[0].startswith("a card, 2 threads, torch 2.13.0, 2026-11-27; 1,000 items, 2,000 users, features of 768")
    assert lines[2] == HEAD
    assert lines[-1] == "| hm4sr | packed | bf16 | on | 0.250 (0.200) | 2.00 | 25.0 | 3.00 |"


@pytest.mark.parametrize(("graphs", "how"), [(False, "only"), (True, "and graphs")])
def test_a_cuda_device_has_its_floors_and_kernels(graphs: bool, how: str) -> None:
    lines = suite_markdown(result(kernels=500, graphs=graphs)).splitlines()
    assert lines[2].startswith(HEAD)
    cells = f"| hm4sr | packed | bf16 | {how} | 0.25000 (0.20000) | 2.00 | 25.00 | 3.00 | 16,384 | 4.00 | 5.00 | 2.00 | 500 |"
    assert lines[-1] == cells


def test_rankings_stand_in_a_table_of_their_own() -> None:
    found = result()
    found["ranking"] = [{"preset": "hm4sr", "users": 2_000, "seconds": 1.5}]
    assert suite_markdown(found).endswith("\n\n| ranking of | users | s |\n|---|---|---|\n| hm4sr | 2,000 | 1.50 |\n")
