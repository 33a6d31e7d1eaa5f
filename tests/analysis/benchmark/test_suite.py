import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from athwe_core.analysis.benchmark import suite
from athwe_core.analysis.benchmark.suite import (
    Case,
    Size,
    known_suite,
    model_cases,
    run_suite,
    suite_cases,
)
from athwe_core.analysis.benchmark.suite_table import suite_markdown
from athwe_core.analysis.experiments.model_table import TABLE_1
from athwe_core.errors import AthweError

CPU = torch.device("cpu")


@pytest.mark.parametrize("is_fast", [True, False])
def test_cases_of_a_processor_are_fp32_and_bf16_where_it_is_fast(
    is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "has_fast_bf16", lambda _: is_fast)
    cases = suite_cases(CPU)
    assert len(cases) == len(set(cases))
    assert {case.rows for case in cases} == {"padded", "prefix", "packed"}
    assert {case.precision for case in cases} == ({"fp32", "bf16"} if is_fast else {"fp32"})
    assert {case.compiler for case in cases} == {"off"}


def test_cases_of_a_cuda_device_are_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "has_fast_bf16", lambda _: True)
    cases = suite_cases(torch.device("cuda"))
    assert Case("hm4sr", "packed", "bf16", "on") in cases
    assert Case("hm4sr", "packed", "bf16", "off") in cases


def test_models_are_timed_as_their_presets_say_and_packed_ones_in_padded_rows_too() -> None:
    assert model_cases(["sasrec", "tedrec"]) == [
        Case("sasrec", "packed", "fp32"),
        Case("sasrec", "padded", "fp32"),
        Case("tedrec", "prefix", "fp32"),
    ]
    tables = model_cases(TABLE_1)
    assert len(tables) == len(set(tables))
    assert {case.preset for case in tables} == set(TABLE_1)


@pytest.mark.long
def test_the_suite_measures_each_case_twice_and_not_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for a busy core take many times as long
    cases, notes, kept = [Case("hm4sr", "packed", "fp32")], list[str](), list[int]()
    size = Size(200, 300)

    def run(**known: Any) -> Any:
        keep = lambda so_far: kept.append(sum(one["rounds"] for one in so_far["steps"]))  # noqa: E731
        return run_suite("cpu", steps=1, notify=notes.append, cases=cases, size=size, keep=keep, **known)

    result = run()
    assert len(notes) == 2
    assert kept == [0, 0, 1, 2]  # both rankings, both rounds
    (tmp_path / "suite.json").write_text(json.dumps(result))
    assert run(known=known_suite(tmp_path / "suite.json")) == result
    assert len(notes) == 2
    (one,) = result["steps"]
    assert asdict(cases[0]).items() <= one.items()
    seconds = one["step_seconds"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert one["ratio"] == pytest.approx(seconds["median"] / one["floor_seconds"]["fp32"])
    assert one["epoch_seconds"] == pytest.approx(2 * seconds["median"])  # 1,380 targets or so in steps of 1,024
    assert one["memory_floor_seconds"] > 0
    assert one["state_bytes"] > 300 * 768 * 4 * 2
    assert [ranked["preset"] for ranked in result["ranking"]] == ["hm4sr", "athwe"]
    text = suite_markdown(result)
    assert f"| hm4sr | packed | fp32 | off | {seconds['median']:.3f} ({seconds['min']:.3f}) |" in text
    one["kernels"] = 500
    assert f"| 1,024 | {seconds['median'] / one['floor_seconds']['bf16']:.2f} |" in suite_markdown(result)


def test_results_of_another_size_or_version_are_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    assert known_suite(path) is None
    path.write_text('{"machine": {}')
    assert known_suite(path) is None
    path.write_text('{"machine": {}, "sizes": {}, "steps": [{"preset": "hm4sr"}], "ranking": []}')
    assert known_suite(path) is None
    empty = suite._empty(CPU, Size(1, 2))
    other = suite._empty(CPU, Size(1, 3))
    assert suite._same_machine(empty, empty)
    assert not suite._same_machine(empty, other)


def test_descriptions_say_how_a_case_runs() -> None:
    assert str(Case("hm4sr", "packed", "bf16", "on")) == "hm4sr packed bf16 compiled, 1,024 targets"
    assert str(Case("hm4sr", "packed", "bf16", "on", graphs=False, targets=16_384)).endswith(
        "no graphs, 16,384 targets"
    )


def test_a_case_that_fails_says_why() -> None:
    cases = [Case("no such preset", "packed", "fp32")]
    with pytest.raises(AthweError, match="no such preset"):
        run_suite("cpu", steps=1, notify=lambda _: None, cases=cases, size=Size(200, 300))
