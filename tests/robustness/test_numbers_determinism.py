"""The seed decides a run to the last bit, whatever process it is in; another seed is another run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = """
import hashlib, json, sys
from pathlib import Path
import torch
from athwe_core.models.registry import build_config, replace_in
from athwe_core.data.prepare import PrepareOptions, prepare
from athwe_core.models.inputs import adapt_to_data
from athwe_core.training.loop import train
from athwe_core.runs.find import create_run

class Silence:
    epoch_begins = step_ends = epoch_ends = lambda *_, **__: None

torch.set_num_threads(1)
folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
options = PrepareOptions(demo_users=100, demo_items=100)
data = prepare("demo", data_dir=folder, prepared_dir=folder / "prepared", options=options)
small = ["model.hidden_size=8", "model.inner_size=12", "model.max_length=6", "training.batch_targets=200"]
outcomes = {}
for number, (seed, precision, batching) in enumerate(cases):
    chosen = [f"training.seed={seed}", f"training.precision={precision}", f"training.batching={batching}"]
    config, _ = adapt_to_data(replace_in(build_config("athwe"), [*small, "training.epochs=1", *chosen]), data)
    run = create_run(folder, config, data, preset="athwe", name=f"r{number}", command="test")
    results = train(run, data, listener=Silence()).results
    files = [run.best / "weights.safetensors", run.last / "weights.safetensors", run.last / "optimizer.safetensors"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    records = [{k: v for k, v in record.items() if "seconds" not in k} for record in run.metrics()]
    ranks = run.ranks("test")["rank"].to_list()
    results = {k: v for k, v in results.items() if "seconds" not in k}
    outcomes[f"{seed} {precision} {batching}"] = [digests, results, records, ranks]
print(json.dumps([data.manifest["content_hash"], outcomes]))
"""
CASES = [(0, "fp32", "packed"), (1, "fp32", "packed"), (0, "bf16", "prefix")]


@pytest.mark.long
def test_numbers_training_is_decided_by_its_seed(tmp_path: Path) -> None:
    """Two processes with unlike hash seeds train the same runs, in opposite orders."""
    found = []
    for number, cases in enumerate((CASES, CASES[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-W", "ignore", "-c", TRAIN, str(folder), json.dumps(cases)]
        environment = os.environ | {"PYTHONHASHSEED": str(number + 1)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    outcomes = found[0][1]
    assert len(outcomes) == 3
    one, other = outcomes["0 fp32 packed"], outcomes["1 fp32 packed"]
    assert all(a != b for a, b in zip(one, other, strict=True))
