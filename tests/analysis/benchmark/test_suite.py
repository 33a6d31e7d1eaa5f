import json
from dataclasses import asdict

import pytest
import torch

from athwe_core.analysis.benchmark import suite
from athwe_core.analysis.benchmark.suite import Case, Size, run_suite, suite_cases, suite_markdown
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


def test_the_suite_measures_each_case_twice_and_writes_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for a busy core take many times as long
    cases, notes = [Case("hm4sr", "packed", "fp32")], list[str]()
    result = run_suite("cpu", steps=1, notify=notes.append, cases=cases, size=Size(200, 300))
    assert len(notes) == 2
    json.dumps(result)
    (one,) = result["steps"]
    assert asdict(cases[0]).items() <= one.items()
    seconds = one["step_seconds"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert one["ratio"] == pytest.approx(seconds["median"] / one["floor_seconds"]["fp32"])
    assert one["epoch_seconds"] == pytest.approx(2 * seconds["median"])  # 1,380 targets or so in steps of 1,024
    assert [ranked["preset"] for ranked in result["ranking"]] == ["hm4sr", "athwe"]
    text = suite_markdown(result)
    assert f"| hm4sr | packed | fp32 | off | {seconds['median']:.3f} ({seconds['min']:.3f}) |" in text


def test_a_case_that_fails_says_why() -> None:
    with pytest.raises(AthweError, match="no such preset"):
        run_suite("cpu", steps=1, notify=lambda _: None, cases=[Case("no such preset", "packed", "fp32")])
