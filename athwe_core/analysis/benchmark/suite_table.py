"""The results of `bench --suite` as tables for a README."""

from __future__ import annotations

from athwe_core.analysis.benchmark.records import SuiteResult


def suite_markdown(result: SuiteResult) -> str:
    """The tables for a README."""
    machine, sizes = result["machine"], result["sizes"]
    is_cuda = any(one["kernels"] is not None for one in result["steps"])
    heads = ["preset", "rows", "precision", "compiled", "s a step (min)", "/ fp32 floor", "s an epoch", "peak GB"]
    if is_cuda:
        heads += ["targets", "/ bf16 floor", "/ memory floor", "GB above the tables", "kernels, plain"]
    lines = [
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {machine['date']}; "
        f"{sizes['items']:,} items, {sizes['users']:,} users, features of {sizes['feature_width']}, 1,024 targets a step "
        "unless another number is given.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for one in result["steps"]:
        step, peak = one["step_seconds"], one["peak_memory_bytes"]
        how = one["compiler"] if one["compiler"] == "off" or not is_cuda else "and graphs" if one["graphs"] else "only"
        digits = 5 if is_cuda else 3
        cells = [one["preset"], one["rows"], one["precision"], how]
        cells += [f"{step['median']:.{digits}f} ({step['min']:.{digits}f})", f"{one['ratio']:.2f}"]
        cells += [f"{one['epoch_seconds']:.{2 if is_cuda else 1}f}", f"{peak / 1e9:.2f}"]
        if is_cuda:
            cells += [f"{one['targets']:,}", f"{step['median'] / one['floor_seconds']['bf16']:.2f}"]
            cells += [f"{step['median'] / one['memory_floor_seconds']:.2f}", f"{(peak - one['state_bytes']) / 1e9:.2f}"]
            cells += [str(one["kernels"])]
        lines.append(f"| {' | '.join(cells)} |")
    if result["ranking"]:
        lines += ["", "| ranking of | users | s |", "|---|---|---|"]
    lines += [f"| {one['preset']} | {one['users']:,} | {one['seconds']:.2f} |" for one in result["ranking"]]
    return "\n".join(lines) + "\n"
