"""Whatever lies where a checkpoint should: the run goes on from what was written, or the error names the file."""

import copy
import hashlib
import json
import math
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_cases import assert_told, few_and_many, fuzz, mutated, time_limit
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from athwe_core.analysis.evaluate_run import evaluate_run
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.errors import CheckpointError, ConfigError, DataError
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config, replace_in
from athwe_core.runs.checkpoint import OPTIMIZER, STATE, WEIGHTS, load_weights
from athwe_core.runs.find import METRICS, RunFolder, create_run, list_runs
from athwe_core.training.build import TrainingSetup, build_setup
from athwe_core.training.loop import train
from athwe_core.training.optim import make_optimizer
from athwe_core.training.state import TrainingState, restore

TINY = ("model.hidden_size=4", "model.inner_size=4", "model.num_layers=1", "model.max_length=4", "training.epochs=2")
TINY = (*TINY, "model.modalities=[id]", "losses.cp.weight=0", "training.precision=fp32", "training.batch_targets=200")


class Silence:
    def epoch_begins(self, *_: Any, **__: Any) -> None: ...
    def step_ends(self, *_: Any) -> None: ...
    def epoch_ends(self, *_: Any, **__: Any) -> None: ...


class Saved:
    """A finished run, its last checkpoint as it was written, and a network and optimiser to load it into."""

    def __init__(self, run: RunFolder, prepared: PreparedDataset) -> None:
        self.run, self.prepared = run, prepared
        self.records = (run.path / METRICS).read_bytes()
        self.content = {name: (run.last / name).read_bytes() for name in (WEIGHTS, OPTIMIZER, STATE)}
        self.setup: TrainingSetup = build_setup(run.config(), prepared)
        self.optimizer = make_optimizer(self.setup.model, lr=1.0)
        self.progress = self.load()
        self.weights = load_file(run.last / WEIGHTS)
        self.moments = copy.deepcopy(self.optimizer.state_dict()["state"])

    def load(self) -> TrainingState:
        """What going on from the last checkpoint starts with; weights that were not loaded stay at 7."""
        with torch.no_grad():
            for parameter in self.setup.model.parameters():
                parameter.fill_(7.0)
        self.optimizer.state.clear()
        return restore(self.run, self.setup, self.optimizer, lambda _: None)[0]

    def assert_same(self, progress: TrainingState) -> None:
        """What was loaded is what was saved, to the last bit."""
        assert progress == self.progress
        found = self.setup.model.state_dict()
        assert found.keys() == self.weights.keys()
        assert all(torch.equal(found[name], value) for name, value in self.weights.items())
        state = self.optimizer.state_dict()["state"]
        assert state.keys() == self.moments.keys()
        assert all(
            torch.equal(state[i][part], value) for i, parts in self.moments.items() for part, value in parts.items()
        )

    def replace(self, **content: bytes) -> None:
        """Write the files `weights`, `optimizer`, `state` anew: as given, else as they were; going on cuts the records."""
        (self.run.path / METRICS).write_bytes(self.records)
        for name, kept in self.content.items():
            (self.run.last / name).write_bytes(content.get(Path(name).stem, kept))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("runs")
    options = PrepareOptions(demo_users=100, demo_items=100)
    prepared = prepare("demo", data_dir=folder, prepared_dir=folder / "prepared", options=options)
    config, _ = adapt_to_data(replace_in(build_config("athwe-64"), [*TINY, "losses.pcl.weight=0"]), prepared)
    run = create_run(folder / "runs", config, prepared, preset="athwe", name="run", command="test")
    train(run, prepared, listener=Silence())
    shutil.rmtree(run.previous)
    return Saved(run, prepared)


def sealed(state: dict[str, Any], **content: bytes) -> bytes:
    """`state.json` with the checksums of the content and of itself, as training would have written it."""
    files = {f"{name}.safetensors": hashlib.sha256(value).hexdigest() for name, value in content.items()}
    state = state | {"files": {name: value for name, value in state["files"].items() if name != STATE} | files}
    own = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    return json.dumps(state | {"files": state["files"] | {STATE: own}}, indent=2).encode()


def refused_or_same(saved: Saved) -> str:
    try:
        progress = saved.load()
    except CheckpointError as caught:
        error = caught
    else:
        saved.assert_same(progress)
        return "same"
    assert_told(error, place=str(saved.run.path))
    assert error.remedy
    return "refused"


@few_and_many
@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, STATE])
def test_fuzz_checkpoint_files(name: str, cases: int, saved: Saved) -> None:
    """Damage of any file is noticed, or hit nothing that matters (white space of `state.json`)."""

    def check(content: bytes) -> str:
        saved.replace(**{Path(name).stem: content})
        return refused_or_same(saved)

    found = fuzz(check, mutated(saved.content[name]), cases=cases)
    assert found["refused"] > 0.7 * cases
    if name != STATE:
        assert found["same"] <= 0.05 * cases  # two changes that undo each other


@few_and_many
@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER])
def test_fuzz_checkpoint_files_under_right_checksums(name: str, cases: int, saved: Saved) -> None:
    """Another program's file, or one forged: refused, or loaded as what it says, never half."""
    state = json.loads(saved.content[STATE])

    def check(content: bytes) -> str:
        files = {Path(name).stem: content}
        saved.replace(**files, state=sealed(state, **files))
        try:
            saved.load()
        except CheckpointError as caught:
            assert_told(caught)
            return "refused"
        found = saved.setup.model.state_dict()
        assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in saved.weights.items()}
        return "loaded"

    found = fuzz(check, mutated(saved.content[name], most=2), cases=cases)
    assert min(found["refused"], found["loaded"]) > cases / 20


absurd = st.recursive(
    st.sampled_from([None, True, -1, 0, 1, 2, 10**30, 1e308, -1e308, float("nan"), float("inf"), "", "2", "x" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["epoch", "ce", ""]), inner, max_size=2)
    ),
    max_leaves=4,
)


@few_and_many
@pytest.mark.parametrize("is_sealed", [False, True])
def test_fuzz_checkpoint_state_with_absurd_values(is_sealed: bool, cases: int, saved: Saved) -> None:
    """Values that no training wrote; under a right checksum they are of the right types and sizes, or refused."""

    def check(changes: list[tuple[str, Any]]) -> str:
        state = json.loads(saved.content[STATE])
        for key, value in changes:
            part = state["progress"] if key in state["progress"] and isinstance(state["progress"], dict) else state
            if value is absurd:
                part.pop(key, None)
            else:
                part[key] = value
            if not isinstance(state.get("progress"), dict) or not isinstance(state.get("files"), dict):
                break
        can_seal = is_sealed and isinstance(state.get("files"), dict)
        saved.replace(state=sealed(state) if can_seal else json.dumps(state).encode())
        if not is_sealed:
            return refused_or_same(saved)
        try:
            progress = saved.load()
        except CheckpointError as caught:
            assert_told(caught)
            return "refused"
        assert min(progress.epoch, progress.step, progress.best_epoch) >= 0
        assert {type(value) for value in (progress.epoch, progress.step, progress.best_epoch)} == {int}
        assert progress.best_epoch <= progress.epoch <= 2
        assert progress.best_value <= 1
        assert progress.seconds < math.inf
        return "taken"

    keys = st.sampled_from([*json.loads(saved.content[STATE])["progress"], "progress", "format", "files", "other"])
    found = fuzz(check, st.lists(st.tuples(keys, absurd | st.just(absurd)), min_size=1, max_size=3), cases=cases)
    assert found["refused"] > cases / 2


def settings_of(run: RunFolder, _: Path) -> Any:
    return run.config()


def provenance_of(run: RunFolder, prepared_dir: Path) -> Any:
    listed = [found.name for found in list_runs(run.path.parents[2])]
    return listed, run.manifest(), run.open_data(prepared_dir).version


def records_of(run: RunFolder, _: Path) -> Any:
    return run.metrics()


def ranks_of(run: RunFolder, _: Path) -> Any:
    return run.ranks("test").to_dict(as_series=False)


@few_and_many
@pytest.mark.parametrize(
    ("name", "read", "place"),
    [
        ("config.yaml", settings_of, "config.yaml"),
        ("manifest.json", provenance_of, ""),  # it may name a data set that is not there
        ("metrics.jsonl", records_of, "metrics.jsonl"),
        ("per_user.parquet", ranks_of, "per_user.parquet"),
    ],
)
def test_fuzz_checkpoint_run_files(
    name: str, read: Callable[[RunFolder, Path], Any], place: str, cases: int, saved: Saved
) -> None:
    """Files of a run: read as what they say, or refused; ranks notice any damage."""
    saved.replace()
    path, prepared_dir = saved.run.path / name, saved.prepared.path.parents[1]
    written, expected = path.read_bytes(), read(saved.run, prepared_dir)

    def check(content: bytes) -> str:
        path.write_bytes(content)
        try:
            found = read(saved.run, prepared_dir)
        except (CheckpointError, ConfigError, DataError) as caught:
            assert_told(caught, place=place)
            return "refused"
        if read is ranks_of:
            assert found == expected
        return "same" if found == expected else "read"

    try:
        found = fuzz(check, mutated(written), cases=cases)
    finally:
        path.write_bytes(written)
    assert found["refused"] > cases / 10


HEADERS: dict[str, bytes | Callable[[], bytes]] = {
    "length beyond the file": struct.pack("<Q", 10**6) + b"{}",
    "length of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "length of 2^64 - 1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "no header": b"",
    "shape of 2^62": b'{"position":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,64]}}',
    "shape that overflows": b'{"position":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
    "offsets swapped": b'{"position":{"dtype":"F32","shape":[4,4],"data_offsets":[64,0]}}',
    "negative shape": b'{"position":{"dtype":"F32","shape":[-1,4],"data_offsets":[0,64]}}',
    "unknown dtype": b'{"position":{"dtype":"F4","shape":[4,4],"data_offsets":[0,8]}}',
    "deep": b"[" * 100_000,
    "a million names": lambda: b"{" + b",".join(b'"n%d":{}' % n for n in range(10**6)) + b"}",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_fuzz_checkpoint_absurd_headers_are_refused(kind: str, saved: Saved) -> None:
    made = HEADERS[kind]
    header = made if isinstance(made, bytes) else made()
    content = header if kind.startswith(("length", "no")) else struct.pack("<Q", len(header)) + header + bytes(64)
    saved.replace(weights=content, state=sealed(json.loads(saved.content[STATE]), weights=content))
    with time_limit(10), pytest.raises(CheckpointError, match=r"weights\.safetensors must ") as caught:
        saved.load()
    assert_told(caught.value)


def test_fuzz_checkpoint_a_file_of_many_gigabytes_is_refused_unread(saved: Saved) -> None:
    saved.replace()
    for name in (STATE, WEIGHTS):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with (saved.run.last / name).open("ab") as file:
            file.truncate(2**29 if name == WEIGHTS else 2**34)  # sparse: it takes no room
        with time_limit(60), pytest.raises(CheckpointError, match=name):
            saved.load()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
        saved.replace()


def test_files_of_two_checkpoints_do_not_mix(saved: Saved) -> None:
    best = {name: (saved.run.best / name).read_bytes() for name in (WEIGHTS, STATE)}
    other = {key: value + 1 for key, value in saved.weights.items()}
    saved.replace(weights=save(other))
    assert refused_or_same(saved) == "refused"
    saved.replace(state=best[STATE])  # it does not list the optimiser's state
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is damaged"):
        saved.load()
    saved.replace()
    assert refused_or_same(saved) == "same"


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("model.num_layers=2", r"it lacks transformer"),
        ("model.temporal_moe.enabled=false", r"it has t\S+ too"),
        ("model.max_length=5", r"must hold position of shape \(5, 4\), got \(4, 4\)"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(override: str, difference: str, saved: Saved) -> None:
    saved.replace()
    network = build_setup(replace_in(saved.run.config(), [override]), saved.prepared).model
    with pytest.raises(CheckpointError, match=difference):
        load_weights(saved.run.last, network)


def test_a_checkpoint_of_another_preset_is_refused(saved: Saved) -> None:
    saved.replace()
    config, _ = adapt_to_data(replace_in(build_config("hm4sr"), TINY), saved.prepared)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors must .*it (lacks|has) \w+"):
        load_weights(saved.run.last, build_setup(config, saved.prepared).model)
    assert saved.load() == saved.progress  # the run's own preset goes on


def test_a_checkpoint_of_another_data_set_is_refused(saved: Saved, tmp_path: Path) -> None:
    saved.replace()
    other = prepare(
        "demo", data_dir=tmp_path, prepared_dir=tmp_path, options=PrepareOptions(demo_users=100, demo_items=101)
    )
    network = build_setup(saved.run.config(), other).model
    with pytest.raises(CheckpointError, match=r"must hold tables\.\S+ of shape .*Has the data set or the config"):
        load_weights(saved.run.last, network)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_a_checkpoint_of_another_version_is_refused(number: Any, saved: Saved) -> None:
    saved.replace(state=sealed(json.loads(saved.content[STATE]) | {"format": number}))
    with pytest.raises(CheckpointError, match=rf"state\.json must have format 1, got {number!r}\. Train again with"):
        saved.load()


def test_ranks_that_are_damaged_are_made_anew_by_evaluate_with_a_checksum(saved: Saved) -> None:
    saved.replace()
    written, expected = saved.run.per_user.read_bytes(), saved.run.ranks("test")
    saved.run.per_user.write_bytes(written[:500] + b"?" + written[501:])
    with pytest.raises(CheckpointError, match=r"is damaged: .*athwe evaluate --run demo/athwe/run --split test"):
        saved.run.ranks("test")
    evaluate_run(saved.run, saved.prepared, split="test")
    assert saved.run.ranks("test").equals(expected)
    with pytest.raises(CheckpointError, match=r"must hold ranks of the validation split\. .*--split validation"):
        saved.run.ranks("validation")
    evaluate_run(saved.run, saved.prepared, split="validation")
    assert [len(saved.run.ranks(split)) for split in ("validation", "test")] == [len(expected)] * 2
    saved.run.write_ranks(expected)


TEXTS = {
    "deep": b'{"format": 1, "progress": ' + b"[" * 100_000 + b"}",
    "deep but whole": b'{"format": 1, "x": ' + b"[" * 900 + b"]" * 900 + b', "files": {"weights.safetensors": ""}}',
    "a key twice": b'{"format": 1, "format": 1}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"format": 1}'.encode("utf-16"),
    "nothing": b"",
    "a NUL byte": b'{"format": 1}\0',
    "a number of 5000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    "a list": b"[1]",
    "text": b'"state"',
    "no files": b'{"format": 1, "progress": {}}',
    "files that are none": b'{"format": 1, "files": [1]}',
    "unknown files": b'{"format": 1, "files": {"weights.safetensors": "", "state.jsom": ""}}',
}


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", TEXTS)
def test_fuzz_checkpoint_texts_that_are_no_record_are_refused(kind: str, name: str, saved: Saved) -> None:
    saved.replace()
    path = saved.run.last / name if name == STATE else saved.run.path / name
    read = {"state.json": saved.load, "manifest.json": saved.run.manifest, "metrics.jsonl": saved.run.metrics}[name]
    written = path.read_bytes()
    path.write_bytes(TEXTS[kind] if kind != "nothing" or name != METRICS else b"\n")
    try:
        with time_limit(5), pytest.raises(CheckpointError) as caught:
            read()
    finally:
        path.write_bytes(written)
    assert_told(caught.value, place=str(path))
    assert caught.value.remedy
