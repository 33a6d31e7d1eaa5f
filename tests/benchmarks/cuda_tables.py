"""The tables of a folder that on_cuda.sh filled, as Markdown: python tests/benchmarks/cuda_tables.py OUT."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from athwe_core.analysis.benchmark.suite import known_suite
from athwe_core.analysis.benchmark.suite_table import suite_markdown

STAGES = ("machine", "tests", "suite", "prepare", "train_hm4sr", "train_athwe", "million")
PAPER_NDCG = 0.0446
"""Test NDCG@10 of HM4SR on Toys_and_Games in the paper."""
NOT_RUN = "not run"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def read_json(path: Path) -> Any:
    """A JSON file; None where it is missing or was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def stages(out: Path) -> str:
    """How each stage ended."""
    rows = []
    for name in STAGES:
        found = read_json(out / f"{name}.json")
        rows.append((name, found["status"], found["seconds"], found["date"]) if found else (name, NOT_RUN, "", ""))
    return table(("stage", "status", "s", "date"), rows)


def machine(out: Path) -> str:
    """The device, and its rates as measured."""
    found = read_json(out / "machine.out")
    if found is None:
        return NOT_RUN
    rates = found["matrix_flops_per_second"]
    return (
        f"{found['device']}, torch {found['torch']}, CUDA {found['cuda']}, Python {found['python']}: products "
        f"{rates['bf16'] / 1e12:.3g} TFLOP/s in bf16 and {rates['fp32'] / 1e12:.3g} in fp32, copies "
        f"{found['copy_bytes_per_second'] / 1e12:.3g} TB/s."
    )


def tests(out: Path) -> str:
    """Numbers of tests by outcome, and the names of those that failed; also where time ran out before the last one."""
    try:
        text = (out / "tests.out").read_text(encoding="utf-8")
    except OSError:
        return NOT_RUN
    outcomes = dict(re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE))
    count = Counter(outcomes.values())
    failed = [name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR")]
    counts = f"{count['PASSED']} passed, {len(failed)} failed, {count['SKIPPED']} skipped."
    return "\n".join([counts, *(f"- {name}" for name in failed)])


def seconds_to_paper(metrics: Sequence[dict[str, Any]]) -> str:
    """Seconds of training and validation until NDCG@10 on validation is that of the paper on test."""
    seconds = 0.0
    for record in metrics:
        seconds += record["seconds"] + record["validation_seconds"]
        if record["validation"].get("ndcg@10", 0) >= PAPER_NDCG:
            return f"{seconds:.1f}"
    return "not reached"


def training(out: Path) -> str:
    """Both presets to their early stop."""
    rows = []
    for preset in ("hm4sr", "athwe"):
        found = read_json(out / f"train_{preset}.out")
        paths = list((out / "runs").glob(f"*/{preset}/on-cuda/metrics.jsonl"))
        metrics = [json.loads(line) for line in paths[0].read_text(encoding="utf-8").splitlines()] if paths else []
        if found is None or not metrics:
            rows.append((preset, *[NOT_RUN] * 7))
            continue
        ranking = sorted(record["validation_seconds"] for record in metrics)[len(metrics) // 2]
        test = found["test"]
        measured = (found["epochs"], f"{found['seconds_per_epoch']:.2f}", seconds_to_paper(metrics), f"{ranking:.2f}")
        rows.append((preset, *measured, f"{test['ndcg@10']:.4f}", f"{test['mrr@10']:.4f}", f"{test['hit@10']:.4f}"))
    heads = ("preset", "epochs", "s an epoch", "s to the paper's NDCG@10", "s to rank all users")
    return table((*heads, "test NDCG@10", "MRR@10", "Hit@10"), rows)


def million(out: Path) -> str:
    """The sampled loss on a million items."""
    heads = ("preset", "items", "s a step", "peak GB", "s to rank 1,000 users")
    found = read_json(out / "million.out")
    if found is None:
        return table(heads, [["sasrec", "1,000,000", *[NOT_RUN] * 3]])
    step, peak = found["step_seconds"]["median"], found["peak_memory_bytes"] / 1e9
    return table(
        heads,
        [(found["preset"], f"{found['items']:,}", f"{step:.5f}", f"{peak:.2f}", f"{found['ranking_seconds']:.2f}")],
    )


def main(out: Path) -> None:
    suite = known_suite(out / "suite" / "suite.json")
    parts = {
        "Stages": stages(out),
        "Machine": machine(out),
        "Tests": tests(out),
        "Steps and ranking": NOT_RUN if suite is None else suite_markdown(suite).strip(),
        "Training to the early stop": training(out),
        "A million items": million(out),
    }
    print("\n\n".join(f"## {head}\n\n{text}" for head, text in parts.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
