"""Whole steps recorded as CUDA graphs: forward, backward and Adam start with one call in place of hundreds of kernels."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from athwe_core.batch import PackedBatch
from athwe_core.config import Config
from athwe_core.models.protocol import LossInputs
from athwe_core.safe_write import reason
from athwe_core.training.build import TrainingSetup
from athwe_core.training.optim import GuardedAdam
from athwe_core.training.step import draw_inputs, dropout_of_step, update

LossTerms = dict[str, Tensor]
Record = Callable[[Callable[[], LossTerms]], tuple[LossTerms, Callable[[], None]]]
"""Records the device's work of a call without doing it. Returns the call's result, and what does the work: each replay reads
the same memory for its inputs and writes the same memory for its results."""

MOST_RECORDINGS = 16
"""Most batch shapes that are recorded; steps of further shapes run as they are."""


@dataclass(frozen=True)
class _Recording:
    inputs: list[Tensor]
    """Memory that a replay reads: the batch, then the draws."""
    terms: LossTerms
    """Memory that a replay writes."""
    replay: Callable[[], None]


class RecordedSteps:
    """Training steps by the shape of their batch: the first of a shape is not recorded, later ones replay a recording.

    A replay draws the dropout of its own step: CUDA graphs read the seed when they start. Numbers in Python become part of a
    recording, so the model must have fixed shapes, and the step one process and the full catalogue loss.

    Args:
        setup, optimizer, config: as of `train_step`. Weights, moments and buffers must stay where they are in memory. All
            groups of weights have one learning rate, which may change from step to step.
        notify: called with one sentence when recording fails; every step runs as it is from then on.
        record: how a step is recorded; None = as a CUDA graph.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        optimizer: GuardedAdam,
        config: Config,
        *,
        notify: Callable[[str], None],
        record: Record | None = None,
    ) -> None:
        self._setup, self._optimizer, self._config, self._notify = setup, optimizer, config, notify
        self._record = CudaGraphs(setup.device) if record is None else record
        self._rate = torch.zeros((), device=setup.device)
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._works = True

    def take(self, batch: PackedBatch, *, epoch: int, step: int) -> LossTerms | None:
        """`train_step` by a recording.

        Args:
            batch, epoch, step: as of `train_step`; the batch on the device.
        Returns: as of `train_step`, in memory that the next step overwrites; None where this step must run as it is.
        """
        if not self._works:
            return None
        inputs = draw_inputs(self._setup, batch, self._config, epoch=epoch, step=step)
        values = [*_tensors(batch).values(), *inputs.draws.values()]
        key = (batch.all_supervised, batch.longest_row, *((value.shape, value.dtype) for value in values))
        if key not in self._recordings:
            if len(self._recordings) < MOST_RECORDINGS:
                self._recordings[key] = None
            return None
        with dropout_of_step(self._config, epoch=epoch, step=step):
            recording = self._recordings[key] or self._recorded(batch, inputs)
            if recording is None:
                return None
            self._recordings[key] = recording
            torch._foreach_copy_(recording.inputs, values)
            self._rate.fill_(self._optimizer.param_groups[0]["lr"])
            recording.replay()
        return recording.terms

    def release(self) -> None:
        """Forget all recordings and make no more; their memory is free again."""
        self._works = False
        self._recordings.clear()

    def _recorded(self, batch: PackedBatch, inputs: LossInputs) -> _Recording | None:
        """A recording of one step; None, with a sentence to `notify`, where it fails."""
        own: dict[str, Any] = {name: value.clone() for name, value in _tensors(batch).items()}
        draws = {name: value.clone() for name, value in inputs.draws.items()}
        own_batch, own_inputs = replace(batch, **own, num_targets=0), replace(inputs, draws=draws)
        groups = self._optimizer.param_groups
        rate = groups[0]["lr"]
        for group in groups:  # a rate in memory can change between replays; torch wants to be told of the recording
            group["lr"], group["capturable"] = self._rate, True
        try:
            terms, replay = self._record(lambda: update(self._setup, self._optimizer, own_batch, own_inputs))
        except Exception as error:  # of many kinds; the step itself runs again without a recording
            self.release()
            self._notify(f"a step cannot be recorded as a CUDA graph ({reason(error)}): going on without")
            return None
        finally:
            for group in groups:
                group["lr"], group["capturable"] = rate, False
        return _Recording([*own.values(), *draws.values()], terms, replay)


def recorded_or_not(
    setup: TrainingSetup, optimizer: GuardedAdam, config: Config, *, notify: Callable[[str], None]
) -> RecordedSteps | None:
    """Steps that are recorded where the device is CUDA, for a setup whose steps `wants_compiler` would compile."""
    return RecordedSteps(setup, optimizer, config, notify=notify) if setup.device.type == "cuda" else None


class CudaGraphs:
    """Records calls as CUDA graphs that share their memory: no two of them run at a time.

    Args:
        device: the CUDA device that the calls use.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def __call__(self, call: Callable[[], LossTerms]) -> tuple[LossTerms, Callable[[], None]]:
        """Record a call.

        Args:
            call: starts kernels, and neither reads nor waits for their results.
        Returns: the call's result, not yet computed, and the replay.
        """
        graph = torch.cuda.CUDAGraph()
        # Another thread may allocate pinned memory meanwhile. A failed recording leaves its own stream as the current one.
        with (
            torch.cuda.device(self._device),
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = call()
        return result, graph.replay


def _tensors(batch: PackedBatch) -> dict[str, Tensor]:
    """The tensors of a batch by field."""
    return {f.name: value for f in fields(batch) if isinstance(value := getattr(batch, f.name), Tensor)}
