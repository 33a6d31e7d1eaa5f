"""What the benchmarks measure, as their JSON files hold it."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class StepSeconds(TypedDict):
    """Wall-clock seconds of a training step."""

    median: float
    min: float
    max: float


class StepTimes(TypedDict):
    """Timed training steps."""

    seconds: list[float]
    """Of each step, in order."""
    step_seconds: StepSeconds
    targets_per_second: float
    tokens_per_second: float


class FloorSeconds(TypedDict):
    """Seconds of the three matrix products of the catalogue's cross-entropy alone, by precision."""

    fp32: float
    bf16: float


class BenchSettings(TypedDict):
    """What a benchmark measured."""

    rows: int
    """Item rows of the catalogue, the padding row included."""
    feature_width: int
    mean_length: float
    batching: str
    batch_targets: int
    precision: str
    device: str
    threads: int
    torch: str
    steps: int
    preset: NotRequired[str]


class BenchResult(TypedDict):
    """A benchmark of one configuration on one data set."""

    step_seconds: StepSeconds
    targets_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int
    floor_seconds: FloorSeconds
    ratio: float
    """Median step over the fp32 floor."""
    notes: list[str]
    settings: BenchSettings
    dataset: NotRequired[str]


class PointResult(StepTimes):
    """What a process measures at one point of `bench --growth`."""

    peak_memory_bytes: int
    """Of the largest process, mapped files included."""
    ranking_seconds: float
    """For a thousand users."""


class GrowthPoint(PointResult):
    """The same with the fields of its `Point`."""

    axis: str
    items: int
    users: int
    targets: int
    processes: int
    loss: str


class GrowthLaw(TypedDict):
    """quantity = constant * size^exponent."""

    axis: str
    loss: str
    quantity: str
    """step, memory or ranking."""
    exponent: float
    constant: float
    """In seconds or bytes."""


class CaseRound(TypedDict):
    """What a process measures of one case of `bench --suite`."""

    seconds: list[float]
    steps_per_epoch: int
    floor_seconds: FloorSeconds
    memory_floor_seconds: float
    """Time to move the bytes that a step cannot avoid."""
    peak_memory_bytes: int
    state_bytes: int
    """Bytes of weights, moments and features, which stay from step to step."""
    kernels: int | None
    """CUDA kernels of a step that is neither compiled nor recorded; None on other devices."""
    notes: list[str]


class CaseResult(TypedDict):
    """A case over all rounds."""

    preset: str
    rows: str
    precision: str
    compiler: str
    graphs: bool
    targets: int
    rounds: int
    """Passes over the list of cases that this one was measured in."""
    step_seconds: StepSeconds
    epoch_seconds: float
    floor_seconds: FloorSeconds
    memory_floor_seconds: float
    ratio: float
    """Median step over the fp32 floor."""
    peak_memory_bytes: int
    state_bytes: int
    kernels: int | None
    notes: list[str]


class RankingResult(TypedDict):
    """Time to rank the whole catalogue for every user."""

    preset: str
    users: int
    seconds: float


class Machine(TypedDict):
    """Where a suite was measured."""

    device: str
    threads: int
    torch: str
    python: str
    date: str


class SuiteSizes(TypedDict):
    """The generated data of a suite."""

    users: int
    items: int
    mean_length: float
    feature_width: int


class SuiteResult(TypedDict):
    """The tables of `bench --suite`."""

    machine: Machine
    sizes: SuiteSizes
    steps: list[CaseResult]
    ranking: list[RankingResult]
