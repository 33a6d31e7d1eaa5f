"""Finished runs on the same data, opened to score and explain single histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from athwe_core.analysis.case_study.item_metadata import ItemFacts, item_facts
from athwe_core.analysis.case_study.result import RunFacts
from athwe_core.analysis.case_study.select_user import Case
from athwe_core.config import Config
from athwe_core.data.packing import pack_histories
from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError, DataError
from athwe_core.evaluation.ranking import target_ranks
from athwe_core.models.protocol import Explanation, Model
from athwe_core.runs.checkpoint import load_state
from athwe_core.runs.find import RunFolder
from athwe_core.training.build import build_best

History = tuple[list[int], list[int]]
"""Internal item ids and unix seconds, oldest first, at least one."""


@dataclass(frozen=True)
class ForwardPass:
    """What a model computes from one history."""

    explanation: Explanation
    """The model's inside view; empty where it gives none."""
    vector: Float[Tensor, " K"]
    """The user vector."""
    scores: Float[Tensor, " V"]
    repeat: Float[Tensor, " V"] | None
    """The learned term for seen items in each score; None where the model has none."""


@dataclass(frozen=True)
class CaseRun:
    """A run with its best weights, in evaluation mode."""

    folder: RunFolder
    config: Config
    model: Model
    table: Float[Tensor, "V K"]
    bias: Float[Tensor, " V"] | None

    @property
    def name(self) -> str:
        return self.folder.name

    def facts(self) -> RunFacts:
        """The run's preset and its best epoch."""
        progress, metric = load_state(self.folder.best)["progress"], self.config.training.selection_metric
        found = RunFacts(
            preset=self.folder.manifest()["preset"],
            metric=metric,
            best_value=progress["best_value"],
            best_epoch=progress["best_epoch"],
        )
        if metric == "ndcg@20":
            found["validation_ndcg@20"] = found["best_value"]
        return found

    def window(self, case: Case) -> History:
        """The latest items of a case, as many as the model reads."""
        length = self.config.model.max_length
        return case.item_ids[-length:], case.timestamps[-length:]

    @torch.inference_mode()
    def forward(self, history: History) -> ForwardPass:
        """Score one history and explain it."""
        batch = pack_histories([history]).to(self.table.device)
        vector = self.model.user_vectors(batch, self.table)
        seen = self.model.seen_items(batch)
        scores = self.model.ranking_scores(batch, self.table, self.bias)
        terms = None if seen is None else seen.add_to(torch.zeros_like(scores))[0]
        return ForwardPass(self.model.explain(batch, self.table), vector[0], scores[0], terms)

    @torch.inference_mode()
    def scores(self, histories: Sequence[History]) -> Float[Tensor, "n V"]:
        """Scores of the whole catalogue for each history, in one batch."""
        batch = pack_histories(histories).to(self.table.device)
        return self.model.ranking_scores(batch, self.table, self.bias)[batch.user_index.argsort()]

    def by_modality(self, found: ForwardPass, items: Sequence[int]) -> list[dict[str, float]]:
        """The parts of each item's score, which sum to it: modalities, the bias where the model has one, and
        `repeat` for items of the history where the model has a term for them.

        Args:
            found: the forward pass of the history.
            items: internal ids.
        Returns: by name of the part, for each item; empty for a model without parts.
        """
        columns_of = found.explanation.score_parts
        if not columns_of:  # the score may be no inner product
            return [{} for _ in items]
        products = self.table[list(items)] * found.vector
        parts = {name: products[:, columns].sum(-1).tolist() for name, columns in columns_of.items()}
        if self.bias is not None:
            parts["bias"] = self.bias[list(items)].tolist()
        found_parts = [{name: values[row] for name, values in parts.items()} for row in range(len(items))]
        if found.repeat is not None:
            for part, term in zip(found_parts, found.repeat[list(items)].tolist(), strict=True):
                if term != 0:
                    part["repeat"] = term
        return found_parts


@dataclass(frozen=True)
class CaseRuns:
    """Runs on the same data; the first one gives the rank of the target."""

    runs: list[CaseRun]
    prepared: PreparedDataset

    @cached_property
    def items(self) -> ItemFacts:
        return item_facts(self.prepared)


def open_runs(folders: Sequence[RunFolder], prepared_dir: Path) -> CaseRuns:
    """Load the best weights of each run.

    Raises:
        ConfigError: A run is named twice.
        DataError: Two runs were trained on different data.
        CheckpointError: A run has no best weights yet.
    """
    names = [folder.name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("--against", "must name another run", name)
    data = [folder.manifest()["data"] for folder in folders]
    for name, other in zip(names, data, strict=True):
        if other["content_hash"] != data[0]["content_hash"]:
            here, there = (f"{d['name']} version {d['version']}" for d in (data[0], other))
            rule = f"must be trained on the same data as {names[0]}, {here}"
            raise DataError(f"run {name}", rule, there, "Choose runs of one prepared version")
    prepared = folders[0].open_data(prepared_dir)
    return CaseRuns([_open(folder, prepared) for folder in folders], prepared)


def _open(folder: RunFolder, prepared: PreparedDataset) -> CaseRun:
    model = build_best(folder, prepared).model
    with torch.inference_mode():
        return CaseRun(folder, folder.config(), model, model.item_table(), model.item_bias())


def ranks(scores: Float[Tensor, "n V"], item: int, *, excluded: Int64[Tensor, " E"]) -> list[int | float]:
    """Expected rank of an item under each row of scores, without the excluded items; an int unless items tie."""
    n = len(scores)
    rows = torch.arange(n, device=scores.device).repeat_interleave(len(excluded))
    targets = torch.full((n,), item, device=scores.device)
    found = target_ranks(scores, targets, excluded=(rows, excluded.repeat(n))).tolist()
    return [int(rank) if rank == int(rank) else rank for rank in found]


def top_items(scores: Float[Tensor, " V"], *, k: int, excluded: Int64[Tensor, " E"]) -> list[int]:
    """The k best items, best first, ties in the order of their ids; fewer where not k are left."""
    allowed = torch.ones_like(scores, dtype=torch.bool)
    allowed[0] = False
    allowed[excluded] = False
    order = scores.sort(descending=True, stable=True).indices
    return order[allowed[order]][:k].tolist()
