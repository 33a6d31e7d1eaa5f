"""The main job, from data to pages, with the network blocked: it works, and nothing tried to reach out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = Path(__file__).parent / "no_network"
SMALL = [
    *("--set", "model.hidden_size=8", "--set", "model.inner_size=8", "--set", "model.num_layers=1"),
    *("--set", "model.max_length=8", "--set", "training.precision=fp32", "--set", "training.device=cpu"),
    *("--set", "training.batch_targets=512"),
]
MAIN_JOB = [
    ["prepare", "--dataset", "demo", "--users", "200", "--items", "150", "--clusters", "4"],
    ["audit", "--dataset", "demo", "--shuffles", "1"],
    ["train", "--dataset", "demo", "--epochs", "1", "--name", "first", *SMALL],
    ["evaluate", "--run", "first"],
    ["compare", "first"],
    ["case-study", "--random", "1", "--run", "first"],
    ["ablate", "--dataset", "demo", "--remove", "PCL", "--seeds", "1", "--epochs", "1", "--name", "without", *SMALL],
    ["tune", "--dataset", "demo", "--trials", "1", "--epochs", "1", "--name", "one", *SMALL],
    ["prepare", "--dataset", "demo", "--export", "csv", "--to", "exported"],
    ["report", "--dataset", "demo"],
]
HUGGING_FACE = {"transformers", "huggingface_hub", "tokenizers", "hf_xet", "datasets", "diffusers", "accelerate"}
CLIENTS = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp", "anyio", "websocket", "boto3"}
RUN_ALL = """
import json, sys
from athwe_cli.app import app

for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, prog_name="athwe")
    except SystemExit as end:
        if end.code not in (0, None):
            sys.exit(f"{arguments}: exit code {end.code}")
json.dump(sorted({name.partition(".")[0] for name in sys.modules}), open("modules.json", "w"))
"""
PHONES_HOME = """
import socket, urllib.request
for call in (
    lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("localhost", 9),
    lambda: urllib.request.urlopen("http://127.0.0.1:9", timeout=1),
):
    try:
        call()
    except PermissionError:
        pass  # as a program that hides its failure would
"""


def run_blocked(code: str, folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python code with the network blocked; what happened, and every attempt to reach out."""
    log = folder / "network.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ATHWE_", "HF_"))},
        "PYTHONPATH": str(BLOCK),
        "ATHWE_NETWORK_LOG": str(log),
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_the_block_notices_what_reaches_out_even_if_its_failure_is_hidden(tmp_path: Path) -> None:
    done, tried = run_blocked(PHONES_HOME, tmp_path)
    assert done.returncode == 0, done.stderr
    events = [line.split()[0] for line in tried]
    assert {"socket.sendto", "socket.getaddrinfo"} <= set(events)
    assert len(tried) >= 4


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the main job ran, and what tried to reach out."""
    folder = tmp_path_factory.mktemp("job")
    done, tried = run_blocked(RUN_ALL, folder, json.dumps(MAIN_JOB))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, tried


@pytest.mark.long
def test_the_main_job_never_reaches_out(job: tuple[Path, list[str]]) -> None:
    folder, tried = job
    assert tried == []
    pages = {path.name for path in (folder / "runs" / "demo").rglob("*.html")}
    assert {"audit.html", "report.html"} < pages
    assert len(pages) == 3
    assert (folder / "exported" / "demo" / "demo.csv").exists()
    assert (folder / "runs" / "demo" / "experiments" / "ablation-without" / "result.json").exists()
    removed = list((folder / "runs" / "demo" / "athwe").glob("PCL-removed-*"))
    assert len(removed) == 1  # beside `first`, which is taken as the full model
    assert json.loads((folder / "runs/demo/athwe/first/manifest.json").read_text())["status"] == "finished"


def test_the_main_job_loads_no_library_of_the_network(job: tuple[Path, list[str]]) -> None:
    loaded = set(json.loads((job[0] / "modules.json").read_text()))
    assert {"torch", "athwe_core", "matplotlib", "optuna"} <= loaded
    assert loaded & (HUGGING_FACE | CLIENTS) == set()
