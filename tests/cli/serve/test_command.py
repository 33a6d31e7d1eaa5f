"""`athwe serve` as it is typed: mistakes, the line for programs, the end by a signal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from cli_runner import call, one_error_line

import athwe_core as athwe
from athwe_core.serving.service import RunSource

ROOT = Path(__file__).parents[3]


def test_mistakes_are_one_line(source: RunSource, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("short\n")
    folder = source.runs_dir.parent
    for arguments, code, message in [
        (("--host", "0.0.0.0"), 2, "--host must be this machine's own, 127.0.0.1, without --api-key-file"),
        (("--api-key-file", str(tmp_path / "short.txt")), 2, "--api-key-file must hold keys of 16 characters or more"),
        (("--api-key-file", str(tmp_path / "none.txt")), 1, "none.txt cannot be used: No such file"),
        (("--run", "nothing"), 2, "--run must be a run in"),
        (("--run", "first", "--run", "first"), 2, "must name another run"),
        (("--run", "first", "--images", "nowhere"), 3, "must be a folder or a zip archive"),
        (("--run", "first", "--timeout-seconds", "0"), 2, "--timeout-seconds must be above 0"),
        (("--run", "first", "--port", "70000"), 2, ""),
    ]:
        result = call(folder, "serve", "--port", "0", *arguments)
        assert result.exit_code == code, result.output
        if message:
            assert message in one_error_line(result)


def test_it_tells_where_it_is_answers_and_ends_on_sigterm(run: athwe.Run, source: RunSource, tmp_path: Path) -> None:
    key = "a key of enough characters"
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    command = [sys.executable, "-m", "athwe_cli", "serve", "--run", "first", "--port", "0", "--json", "--no-page"]
    command += ["--api-key-file", str(tmp_path / "keys.txt")]
    places = {"ATHWE_RUNS": str(source.runs_dir), "ATHWE_PREPARED": str(source.prepared_dir)}
    environment = os.environ | places | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        assert facts == {"url": facts["url"], "runs": ["demo/athwe/first"], "page": False, "pid": process.pid}
        rows = [{"item_ids": [run.data.item_tokens[3]], "timestamps": [1]}]
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.post(f"{facts['url']}/recommend", json={"histories": rows}, headers=headers, timeout=20)
        assert len(answer.json()["recommendations"][0]["item_ids"]) == 10
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told
    assert told.splitlines()[-1] == "stopped: 1 histories answered in 1 batches"
    assert "Traceback" not in told
