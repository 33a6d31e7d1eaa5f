"""`athwe prepare --download-images` asks no private host for anything unless it is told to."""

import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image
from trust_cases import NUM_ITEMS, call, write_atomic

ASKED: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """A picture for every path."""

    def do_GET(self) -> None:
        ASKED.append(self.path)
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(buffer.getvalue())

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    ASKED.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("is_allowed", [False, True])
def test_only_the_option_lets_a_private_host_be_asked(tmp_path: Path, port: int, host: str, is_allowed: bool) -> None:
    urls = {f"i{number}": {"title": "x", "image_url": f"http://{host}:{port}/{number}"} for number in range(NUM_ITEMS)}
    write_atomic(tmp_path / "data", "toy", items=urls)
    options = ["--allow-private-hosts"] if is_allowed else []
    fetched = tmp_path / "fetched"
    result = call(tmp_path, "prepare", "--dataset", "toy", "--download-images", str(fetched), *options)
    assert result.exit_code == 0, (result.output, result.exception)
    if is_allowed:
        assert sorted(ASKED) == [f"/{number}" for number in range(NUM_ITEMS)]
        assert {path.name for path in fetched.iterdir()} == {f"i{number}.png" for number in range(NUM_ITEMS)}
    else:
        assert ASKED == []
        (listed,) = fetched.iterdir()
        assert listed.read_text().count("which is not public; --allow-private-hosts connects to it") == NUM_ITEMS
