"""`athwe bench`: how long a training step takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.analysis.benchmark.records import BenchResult
    from athwe_core.config import Config


@one_line_errors
def bench(
    dataset: Annotated[
        str | None, typer.Option(help="A prepared data set. Default: generated data.", show_default=False)
    ] = None,
    users: Annotated[int, typer.Option(help="Generated users.")] = 22_363,
    items: Annotated[int, typer.Option(help="Generated items.")] = 12_101,
    mean_length: Annotated[float, typer.Option(help="Mean interactions of a generated user.")] = 8.9,
    feature_width: Annotated[int, typer.Option(help="Width of generated text and image features.")] = 768,
    preset: opt.Preset = "hm4sr",
    batching: opt.Batching = None,
    precision: opt.Precision = None,
    compiler: opt.Compile = None,
    device: opt.Device = None,
    overrides: opt.Set = None,
    steps: Annotated[int, typer.Option(help="Timed steps. As many untimed ones come before, at most 20.", min=1)] = 20,
    growth: Annotated[
        bool,
        typer.Option("--growth", help="Measure how time and memory grow with items, users, targets and processes."),
    ] = False,
    suite: Annotated[
        bool,
        typer.Option(
            "--suite", help="Time each preset, batching and precision at the size of Beauty, and the ranking."
        ),
    ] = False,
    models: Annotated[
        bool,
        typer.Option(
            "--models",
            help="With --suite: every model of table1 instead, as its preset says and in padded rows as published code has.",
        ),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            help="With --suite: only cases whose description has this text, such as 'hm4sr packed'.", show_default=False
        ),
    ] = None,
    largest: Annotated[
        int, typer.Option(help="With --growth: largest number of generated items and users.", min=1000)
    ] = 100_000,
    to: Annotated[
        Path | None,
        typer.Option(
            help="With --growth or --suite: folder for the results. A suite writes each case when it is measured, and does "
            "not measure it again.",
            show_default=False,
        ),
    ] = None,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    as_json: opt.Json = False,
) -> None:
    """Time training steps, and compare them with the floor.

    The floor is the time of the three matrix products of the catalogue's cross-entropy alone. Without --dataset the data are
    generated, as many users and items as in Beauty.

    Example: athwe bench --preset hm4sr --precision auto --json

    Example: athwe bench --growth --largest 1000000 --to growth

    Example: athwe bench --suite --to suite

    Example: athwe bench --suite --models --steps 3 --to models
    """
    output = Output(as_json=as_json)
    measured = preset if not suite else "every model" if models else "the presets of the suite"
    output.note(f"measuring training steps of {measured} on {dataset or 'generated data'}")
    from athwe_core.analysis.benchmark.generated import generate_bench_data
    from athwe_core.analysis.benchmark.step_time import bench_generated, bench_prepared
    from athwe_core.config import nested, parse_override
    from athwe_core.data.prepare import open_prepared
    from athwe_core.errors import ConfigError
    from athwe_core.models.inputs import adapt_to_data
    from athwe_core.models.registry import build_config

    if not suite and (models or only is not None):
        rule = "needs --suite, which measures several cases"
        raise ConfigError("--models" if models else "--only", rule, remedy="Add --suite")
    flags = {
        "training.batching": batching,
        "training.precision": precision,
        "training.compiler": compiler,
        "training.device": device,
    }
    changes = [nested(key, value) for key, value in flags.items() if value is not None]
    config = build_config(preset, [*changes, *map(parse_override, overrides or [])])
    if suite:
        _suite(config.training.device, steps, users, items, models, only, to, output)
        return
    if growth:
        _growth(config, preset, largest, feature_width, steps, to, output)
        return
    if dataset is not None:
        data = open_prepared(dataset, prepared_dir=prepared)
        result = bench_prepared(data, adapt_to_data(config, data)[0], steps=steps)
    else:
        generated = generate_bench_data(num_users=users, num_items=items, mean_length=mean_length)
        result = bench_generated(generated, config, num_items=items, feature_width=feature_width, steps=steps)
    result["settings"]["preset"] = preset
    output.table(_table(result))
    output.json(result)


def _suite(
    device: str, steps: int, users: int, items: int, models: bool, only: str | None, to: Path | None, output: Output
) -> None:
    import json

    from athwe_core.analysis.benchmark.records import SuiteResult
    from athwe_core.analysis.benchmark.suite import (
        RANKED_PRESETS,
        Size,
        known_suite,
        model_cases,
        run_suite,
        suite_cases,
    )
    from athwe_core.analysis.benchmark.suite_table import suite_markdown
    from athwe_core.analysis.experiments.model_table import TABLE_1
    from athwe_core.device import resolve_device
    from athwe_core.errors import require
    from athwe_core.safe_write import replace_text

    every = model_cases(TABLE_1) if models else suite_cases(resolve_device(device))
    cases = [case for case in every if only is None or only in str(case)]
    require(len(cases) > 0, "--only", "must be part of one of: " + "; ".join(map(str, every)), only)
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)

    def keep(result: SuiteResult) -> None:
        if to is not None:
            replace_text(to / "suite.json", json.dumps(result, indent=2) + "\n")
            replace_text(to / "suite.md", suite_markdown(result))

    known = None if to is None else known_suite(to / "suite.json")
    size = Size(users=users, items=items)
    ranked = () if models else RANKED_PRESETS
    result = run_suite(
        device, steps=steps, notify=output.note, cases=cases, ranked=ranked, size=size, known=known, keep=keep
    )
    output.text(suite_markdown(result))
    if to is not None:
        output.note(f"written to {to}")
    output.json(result)


def _growth(
    config: Config, preset: str, largest: int, feature_width: int, steps: int, to: Path | None, output: Output
) -> None:
    import json

    from athwe_core.analysis.benchmark.scaling import growth_laws, growth_points, measure_growth
    from athwe_core.analysis.benchmark.scaling_figure import growth_figure
    from athwe_core.analysis.figures.save import save_figure
    from athwe_core.device import resolve_device
    from athwe_core.safe_write import replace_text

    points = growth_points(largest=largest)
    found = list(measure_growth(config, points, feature_width=feature_width, steps=steps, notify=output.note))
    device = str(resolve_device(config.training.device))
    laws = growth_laws(found)
    settings = {"preset": preset, "device": device, "feature_width": feature_width, "steps": steps}
    result = settings | {"points": found, "laws": laws}
    table = Table(title=f"growth of {preset} on {device}", title_justify="left")
    for column in (
        "what grows",
        "items",
        "users",
        "targets",
        "processes",
        "loss",
        "s a step",
        "GB",
        "s per 1,000 ranked",
    ):
        table.add_column(column, justify="left" if column in ("what grows", "loss") else "right")
    for point in found:
        sizes = [f"{size:,}" for size in (point["items"], point["users"], point["targets"], point["processes"])]
        measured = [f"{point['step_seconds']['median']:.3f}", f"{point['peak_memory_bytes'] / 1e9:.2f}"]
        table.add_row(point["axis"], *sizes, point["loss"], *measured, f"{point['ranking_seconds']:.2f}")
    output.table(table)
    for law in laws:
        output.note(f"{law['quantity']} ({law['loss']}) grows with {law['axis']} as size^{law['exponent']:.2f}")
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        replace_text(to / "growth.json", json.dumps(result, indent=2) + "\n")
        save_figure(growth_figure(found, preset=preset, device=device), to / "growth")
        output.note(f"written to {to}")
    output.json(result)


def _table(result: BenchResult) -> Table:
    table = Table(title="training step", title_justify="left", show_header=False)
    times, floor = result["step_seconds"], result["floor_seconds"]
    table.add_row("median step (min to max)", f"{times['median']:.4f} s ({times['min']:.4f} to {times['max']:.4f})")
    table.add_row("catalogue products alone", f"fp32 {floor['fp32']:.4f} s, bf16 {floor['bf16']:.4f} s")
    table.add_row("step / fp32 floor", f"{result['ratio']:.2f}")
    table.add_row(
        "targets, tokens a second", f"{result['targets_per_second']:,.0f}, {result['tokens_per_second']:,.0f}"
    )
    table.add_row("peak memory", f"{result['peak_memory_bytes'] / 1e9:.2f} GB")
    for name, value in result["settings"].items():
        table.add_row(name.replace("_", " "), f"{value:.2f}" if isinstance(value, float) else str(value))
    return table
