"""A trained model as an ONNX graph: histories in, user vectors and the best items out, without Python at run time."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from athwe_core.batch import PackedBatch
from athwe_core.errors import ConfigError
from athwe_core.messages import reason
from athwe_core.models.protocol import Model
from athwe_core.serving.trained_model import TrainedModel
from athwe_core.warning_filters import warnings_as

GRAPH, IDS = "model.onnx", "item_ids.json"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
"""Of the extra `onnx`."""
TOLERANCE = 1e-4
"""Largest difference of user vectors and of scores between the graph and the model, as a share of the largest or of 1."""
INPUTS = ("item_numbers", "timestamps", "lengths", "exclude_seen")
OUTPUTS = ("user_vectors", "items", "scores")


def dense_batch(
    items: Int64[Tensor, "B n"], times: Int64[Tensor, "B n"], lengths: Int64[Tensor, " B"], *, max_length: int
) -> PackedBatch:
    """The latest items of right-padded histories, each a row of `max_length` tokens supervised at its last real one.

    Every shape follows from B, so that a graph can be made of it. The tokens behind the last real one are padding, which a
    causal model does not read.

    Args:
        items: item numbers; entries from `lengths` on are ignored.
        times: unix seconds, in time order.
        lengths: in 1..n.
        max_length: L, latest items of a history that the model reads.
    """
    B, L = lengths.shape[0], max_length  # len() would make a constant of it
    place = torch.arange(L, device=items.device)
    begin = (lengths - L).clamp(min=0)
    read = (lengths - begin)[:, None]  # tokens that the model reads
    at = begin[:, None] + torch.minimum(place, read - 1)  # padding repeats the last token
    is_token = place < read
    times = times.gather(1, at)
    token = torch.arange(B * L, device=items.device)
    row = torch.arange(B, device=items.device)
    return PackedBatch(
        item_ids=torch.where(is_token, items.gather(1, at), 0).flatten(),
        timestamps=times.flatten(),
        intervals=torch.cat([torch.zeros_like(times[:, :1]), times[:, 1:] - times[:, :-1]], dim=1).flatten(),
        positions=place.repeat(B),
        offsets=torch.arange(B + 1, device=items.device) * L,
        rows=row[:, None].expand(B, L).reshape(-1),
        user_index=row,
        target_index=row * L + read[:, 0] - 1,
        target_ids=torch.zeros_like(lengths),
        prefix_weight=torch.ones(B * L, device=items.device),
        grid_tokens=token.view(B, L),
        token_slots=token,
        all_supervised=False,
        num_targets=B,
        longest_row=L,
    )


class HistoryToItems(nn.Module):
    """What the graph computes.

    Args:
        model: a causal model in evaluation mode.
        k: items for each history, in 1..V-1.
    """

    def __init__(self, model: Model, *, k: int) -> None:
        super().__init__()
        self.model, self.k = model, k
        with torch.no_grad():
            self.register_buffer("table", model.item_table())
            bias = model.item_bias()
            self.register_buffer("bias", bias)

    def forward(
        self,
        items: Int64[Tensor, "B n"],
        times: Int64[Tensor, "B n"],
        lengths: Int64[Tensor, " B"],
        exclude_seen: Bool[Tensor, ""],
    ) -> tuple[Float[Tensor, "B K"], Int64[Tensor, "B k"], Float[Tensor, "B k"]]:
        """User vectors, and the k best items with their scores, best first. The score -inf: no item is left."""
        table = self.get_buffer("table")
        bias = None if self.bias is None else self.get_buffer("bias")
        batch = dense_batch(items, times, lengths, max_length=self.model.max_length)
        vectors = self.model.user_vectors(batch, table)
        scores, terms = self.model.scores(vectors, table, bias), self.model.seen_items(batch)
        scores = scores if terms is None else terms.add_to(scores)
        is_token = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
        seen = torch.where(is_token & exclude_seen, items, 0)  # column 0, the padding, is always left out
        left_out = torch.zeros_like(scores).scatter(
            1, torch.cat([torch.zeros_like(seen[:, :1]), seen], dim=1), -torch.inf
        )
        best = (scores + left_out).topk(self.k, dim=1)
        return vectors, best.indices, best.values


def write_onnx(trained: TrainedModel, folder: Path, *, k: int) -> None:
    """Write `model.onnx` and `item_ids.json`, the raw id of each item number.

    Args:
        trained: the model and its items.
        folder: must exist.
        k: items for each history; of a smaller catalogue all.
    Raises:
        ConfigError: A library is missing, or the model has no causal form or uses operators that ONNX does not have.
    """
    require_libraries(*LIBRARIES)
    model = trained.model.cpu()
    graph = HistoryToItems(model, k=min(k, len(trained.items) - 1)).eval()
    example = (
        torch.ones(2, 3, dtype=torch.int64),
        torch.arange(3).repeat(2, 1),
        torch.tensor([3, 2]),
        torch.tensor(True),
    )
    batch, history = torch.export.Dim("batch"), torch.export.Dim("history")
    shapes = ({0: batch, 1: history}, {0: batch, 1: history}, {0: batch}, None)
    try:
        with torch.no_grad(), warnings_as("ignore"):
            torch.onnx.export(
                graph,
                example,
                folder / GRAPH,
                dynamo=True,
                external_data=graph.get_buffer("table").nbytes > 2**30,  # one file holds at most 2 GB
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_shapes=shapes,
                verbose=False,
            )
            _require_agreement(graph, folder / GRAPH, num_item_rows=len(trained.items))
    except Exception as error:  # torch's exporter raises many kinds
        cause: BaseException = error
        while cause.__cause__ is not None:  # the outer ones tell how far the exporter came
            cause = cause.__cause__
        rule = f"cannot be exported: it uses what ONNX or its exporter does not have ({reason(cause)})"
        raise ConfigError(f"--format onnx: model {type(model).__name__}", rule, remedy="Use --format hub") from None
    (folder / IDS).write_text(json.dumps(trained.item_tokens, ensure_ascii=False), encoding="utf-8")


def _require_agreement(graph: HistoryToItems, path: Path, *, num_item_rows: int) -> None:
    """Run the graph on histories of other sizes than it was made from. Raises ValueError where it differs from the model."""
    import onnxruntime  # noqa: PLC0415 - an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    L = graph.model.max_length
    for batch, history in ((1, 1), (5, L + 3)):
        items = torch.randint(1, num_item_rows, (batch, history), generator=generator)
        times = torch.randint(0, 10**8, (batch, history), generator=generator).sort(dim=1).values + 10**9
        lengths = torch.randint(1, history + 1, (batch,), generator=generator)
        inputs = (items, times, lengths, torch.tensor(False))
        vectors, _, scores = graph(*inputs)
        named = dict(zip(INPUTS, (value.numpy() for value in inputs), strict=True))
        found = session.run((OUTPUTS[0], OUTPUTS[2]), named)
        for what, value, expected in zip(("user vectors", "scores"), found, (vectors, scores), strict=True):
            error = float((torch.from_numpy(value) - expected).abs().max()) / max(1.0, float(expected.abs().max()))
            if not error < TOLERANCE:
                raise ValueError(f"{what} of {batch} histories differ by {error:.1e}")


def require_libraries(*names: str) -> None:
    """Raise ConfigError where a library of the extra `onnx` is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        rule = f"needs {' and '.join(missing)}, not installed here"
        raise ConfigError("--format onnx", rule, remedy="Run: pip install 'athwe[onnx]'")
