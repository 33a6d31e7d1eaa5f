"""`athwe serve` as it is typed: mistakes, the line for programs, the end by a signal."""

import json
import os
import signal
import threading
from pathlib import Path

import httpx
from cli_runner import call, one_error_line

import athwe_core as athwe
from athwe_cli.serve.server import bind
from athwe_core.serving.service import RunSource


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
    """In this process: the server takes signals over while it runs, and the signal comes when it has answered."""
    key, answers = "a key of enough characters", []
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    rows = [{"item_ids": [run.data.item_tokens[3]], "timestamps": [1]}]

    def visit() -> None:
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {key}"},
                transport=httpx.HTTPTransport(retries=10),  # half a second and more between two
                timeout=60,
            ) as client:
                answers.append(client.post("/recommend", json={"histories": rows}))
        finally:
            if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # it runs, and would wait for ever
                os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    visitor.start()
    arguments = (
        "--run",
        "first",
        "--port",
        str(port),
        "--json",
        "--no-page",
        "--api-key-file",
        str(tmp_path / "keys.txt"),
    )
    result = call(source.runs_dir.parent, "serve", *arguments)
    visitor.join(10)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts == {"url": f"http://127.0.0.1:{port}", "runs": ["demo/athwe/first"], "page": False, "pid": os.getpid()}
    assert len(answers[0].json()["recommendations"][0]["item_ids"]) == 10
    assert result.stderr.splitlines()[-1] == "stopped: 1 histories answered in 1 batches"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
