"""A compiled step beside the plain one, in a process of its own: prints how far they differ, and how often it compiled.

The compiler's tracer and autograd run with the plain kernels, which need no C++ compiler; the traced graph must be whole.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from spread_harness import SMALL, Data, difference, network_of

from athwe_core.data.packing import FIXED_PADDING, pack, training_rows
from athwe_core.models.registry import build_config, replace_in
from athwe_core.training import compiled
from athwe_core.training.build import TrainingSetup
from athwe_core.training.step import compute_gradients


def main(preset: str) -> None:
    config = replace_in(build_config(preset), [*SMALL, "model.dropout=0"])
    data = Data()
    setup = network_of(config, data)
    rows = training_rows(data.split, batching="packed", max_length=6)
    real = torch.compile

    def traced(model: Any, *, dynamic: bool) -> Any:
        assert not dynamic
        return real(model, backend="aot_eager", dynamic=False, fullgraph=True)

    torch.compile = traced  # type: ignore[assignment]

    def batch_of(count: int) -> Any:
        return pack(data, rows, np.arange(count), max_length=6, padding=FIXED_PADDING)

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


if __name__ == "__main__":
    main(sys.argv[1])
