"""A compiled step beside the plain one, in a process of its own: prints how far they differ, and how often it compiled.

    python compiled_harness.py PRESET DEVICE

On the CPU the compiler's tracer and autograd run with the plain kernels, which need no C++ compiler; the traced graph must be
whole. On CUDA all of it runs, and recorded steps of the compiled code follow.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from spread_harness import SMALL, Data, difference, network_of

from athwe_core.data.packing import FIXED_PADDING, pack
from athwe_core.data.rows import training_rows
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training import compiled
from athwe_core.training.build import TrainingSetup
from athwe_core.training.optim import make_optimizer
from athwe_core.training.recorded import RecordedSteps
from athwe_core.training.step import compute_gradients, train_step


def main(preset: str, device: str) -> None:
    config = replace_in(
        build_config(preset), [*SMALL, "model.dropout=0", "model.num_layers=1", f"training.device={device}"]
    )
    data = Data()
    setup = network_of(config, data)
    rows = training_rows(data.split, batching="packed", max_length=6)
    real = torch.compile

    def traced(model: Any, *, dynamic: bool) -> Any:
        assert not dynamic
        return real(model, backend="aot_eager", dynamic=False, fullgraph=True)

    if device == "cpu":
        torch.compile = traced  # type: ignore[assignment]

    def batch_of(count: int) -> Any:
        return pack(data, rows, np.arange(count), max_length=6, padding=FIXED_PADDING).to(device)

    def results(setup: TrainingSetup, count: int) -> dict[str, torch.Tensor]:
        setup.model.zero_grad()
        terms = compute_gradients(setup, batch_of(count), config, epoch=0, step=0)
        found = {name: p.grad.clone() for name, p in setup.model.named_parameters() if p.grad is not None}
        return found | {f"term {name}": value for name, value in terms.items()}

    notes: list[str] = []
    trial = compiled.compile_or_not(setup, batch_of(7), config, notify=notes.append)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    # other targets, tokens and rows, which are the same shape once filled up
    differences = [difference(results(trial, n), results(replace(trial, compiled=None), n)) for n in (7, 4, 2)]
    after = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    if device != "cpu":
        differences.append(recorded_difference(trial, config, [batch_of(n) for n in (7, 4, 2)], notes))
    print(
        json.dumps(
            {
                "notes": notes,
                "graphs_before": graphs,
                "graphs_after": after,
                "largest_difference": max(differences),
            }
        )
    )


def recorded_difference(setup: TrainingSetup, config: Any, batches: list[Any], notes: list[str]) -> float:
    """The largest difference of a loss term between replayed and plain steps of equal models, over three steps."""
    plain = copy.deepcopy(replace(setup, compiled=None))
    optimizers = [make_optimizer(one.model, lr=0.001) for one in (setup, plain)]
    steps, found = RecordedSteps(setup, optimizers[0], config, notify=notes.append), []
    for step, batch in enumerate(batches):
        terms = steps.take(batch, epoch=0, step=step)
        if (terms is None) != (step == 0):
            notes.append(f"step {step} is recorded: {terms is not None}")
        terms = terms or train_step(setup, optimizers[0], batch, config, epoch=0, step=step)
        found.append(difference(terms, train_step(plain, optimizers[1], batch, config, epoch=0, step=step)))
    return max(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
