"""`athwe recommend --run hf:OWNER/NAME` with the real client of the hub, against a server of this machine."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import athwe_core as athwe
from athwe_core.serving.export import export_run

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CALLS = """
import json, sys
from athwe_cli.app import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, prog_name="athwe")
    except SystemExit as end:
        print(json.dumps({"exit code": end.code}))
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks for a model: a revision, the list of its files, and each file."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        """A file, or the list of files."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """The facts of a file."""
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""

    def _answer(self, *, with_body: bool) -> None:
        self.asked.append(self.path)
        if self.path == "/api/models/me/toys/revision/v2":
            files = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
            content = json.dumps({"id": "me/toys", "sha": COMMIT, "siblings": files}).encode()
        elif self.path.startswith(f"/api/models/me/toys/tree/{COMMIT}"):
            entries = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": COMMIT}
                for path in sorted(self.folder.iterdir())
            ]
            content = json.dumps(entries).encode()
        elif self.path.startswith(f"/me/toys/resolve/{COMMIT}/"):
            content = (self.folder / self.path.rpartition("/")[2]).read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def hub(run: athwe.Run, tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    """Address of a hub that has the run as `me/toys`."""
    export_run(run.folder, run.data, tmp_path / "exported", form="hub")
    Hub.folder, Hub.asked = tmp_path / "exported", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Hub
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_a_model_of_the_hub_recommends_as_the_run_does(
    hub: tuple[str, type[Hub]], run: athwe.Run, tmp_path: Path
) -> None:
    address, server = hub
    items = run.data.item_tokens[1:4]
    rows = [f"new,{item},2021-05-0{day}\n" for day, item in enumerate(items, start=1)]
    (tmp_path / "visits.csv").write_text("user,item,time\n" + "".join(rows))
    recommend = [
        "recommend",
        "--run",
        "hf:me/toys@v2",
        "--histories",
        str(tmp_path / "visits.csv"),
        "--k",
        "5",
        "--json",
    ]
    unknown = ["recommend", "--run", "hf:me/other", "--histories", str(tmp_path / "visits.csv")]
    root = str(Path(athwe.__file__).parents[1])
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALLS, json.dumps([recommend, recommend, unknown])],
        env=environment | {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    found = [entry["recommendations"] for entry in printed if "recommendations" in entry]
    assert len(found) == 2, done.stderr
    assert found[0] == found[1]
    first = 1_619_827_200  # 2021-05-01
    seconds = [first + 86_400 * day for day in range(3)]
    expected = run.recommend(histories={"user_id": ["new"] * 3, "item_id": items, "timestamp": seconds}, k=5)
    assert [row["item_id"] for row in found[0]] == expected["item_id"].to_list()
    assert sum(path.endswith("/model.safetensors") for path in server.asked) in (
        1,
        2,
    )  # facts and file, once: then the cache
    assert printed[-1] == {"exit code": 3}
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --run cannot be fetched (")
    assert "'me/other'" in line
