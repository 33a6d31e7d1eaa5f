"""Fetching from a server that stalls, redirects, lies, sends too much and fails at first; and what is never connected to."""

import importlib.util
import io
import ipaddress
import re
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
from PIL import Image

from athwe_core.data.features import download, public_hosts
from athwe_core.data.features.download import Limits, fetch_all
from athwe_core.data.features.image_download import FAILURES, download_images
from athwe_core.data.features.public_hosts import is_public
from athwe_core.errors import ConfigError

QUICK = Limits(retries=2, backoff_seconds=0.01, seconds=0.5, max_bytes=20_000, redirects=3, allow_private_hosts=True)


def picture(kind: str = "JPEG", colour: object = (200, 10, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of few bytes that says it has 3.6 thousand million pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(5_000_000))) + chunk(b"IEND", b"")


class Server:
    """Answers by path and counts requests; `released` ends the stalls."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.released = threading.Event()
        self.headers: dict[str, str] = {}
        self.extra: dict[str, Callable[[Any, int], None]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests[self.path] += 1
                outer.at_once += 1
                outer.most_at_once = max(outer.most_at_once, outer.at_once)
                outer.headers = dict(self.headers)
                try:
                    outer.answer(self, outer.requests[self.path])
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    outer.at_once -= 1

            def send(self, status: int, content: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, handler: Any, count: int) -> None:
        name, _, number = handler.path[1:].partition("/")
        if name in self.extra:
            self.extra[name](handler, count)
        elif name == "picture":
            handler.send(200, picture(number or "JPEG"))
        elif name == "stall":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"\xff\xd8\xff")
            handler.wfile.flush()
            self.released.wait(20)
            handler.close_connection = True
        elif name == "redirect":
            handler.send(302, Location="/picture" if number == "0" else f"/redirect/{int(number) - 1}")
        elif name == "forever":
            handler.send(301, Location=f"/forever/{count}")
        elif name == "lie":
            handler.send(200, b"<html>no picture</html>", Content_Type="image/jpeg")
        elif name == "torn":
            handler.send(200, picture()[:-200], Content_Type="image/jpeg")
        elif name == "bomb":
            handler.send(200, bomb())
        elif name == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(picture())))
            handler.end_headers()
            handler.wfile.write(picture()[:100])
            handler.close_connection = True
        elif name == "large":
            handler.send(200, picture() + bytes(30_000))
        elif name == "endless":
            handler.send_response(200)
            handler.end_headers()
            for _ in range(1000):
                handler.wfile.write(bytes(1000))
            handler.close_connection = True
        elif name == "flaky":
            handler.send(200, picture()) if count > 2 else handler.send(503)
        else:
            handler.send(int(name))

    def close(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def fetch(server: Server, path: str, limits: Limits = QUICK) -> tuple[bytes | None, str | None]:
    """Content or reason of one path."""
    found: dict[str, bytes] = {}
    reasons = fetch_all({"one": f"{server.url}/{path}"}, found.__setitem__, limits=limits)
    return found.get("one"), reasons.get("one")


def test_content_comes_whole(server: Server) -> None:
    assert fetch(server, "picture") == (picture(), None)
    assert server.headers["Accept-Encoding"] == "identity"
    assert server.headers["User-Agent"].startswith("athwe/")


@pytest.mark.parametrize(
    ("path", "reason", "requests"),
    [
        ("404", "status 404", 1),
        ("403", "status 403", 1),
        ("204", "status 204", 1),
        ("500", "status 500 (3 attempts)", 3),
        ("large", "more than 20,000 bytes", 1),
        ("endless", "more than 20,000 bytes", 1),
        ("stall", "took longer than 0.5 s (3 attempts)", 3),
    ],
)
def test_what_fails_says_why_and_is_tried_again_where_that_may_help(
    server: Server, path: str, reason: str, requests: int
) -> None:
    assert fetch(server, path) == (None, reason)
    assert server.requests[f"/{path}"] == requests


def test_a_connection_that_breaks_off_is_tried_again(server: Server) -> None:
    content, reason = fetch(server, "cut")
    assert content is None
    assert reason is not None
    assert reason.startswith("RemoteProtocolError")
    assert reason.endswith("(3 attempts)")
    assert server.requests["/cut"] == 3


def test_a_server_that_recovers(server: Server) -> None:
    assert fetch(server, "flaky") == (picture(), None)
    assert server.requests["/flaky"] == 3


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reasons = fetch_all({"one": f"http://127.0.0.1:{port}/x"}, lambda *_: None, limits=QUICK)
    assert reasons["one"].startswith("ConnectError")


def test_redirects_are_followed_up_to_a_number(server: Server) -> None:
    assert fetch(server, "redirect/2") == (picture(), None)
    assert fetch(server, "redirect/3") == (None, "more than 3 redirects")
    assert fetch(server, "forever") == (None, "more than 3 redirects")


@pytest.mark.parametrize("wait", ["1", "date"])
def test_the_server_may_ask_to_wait(server: Server, wait: str) -> None:
    def busy(handler: Any, count: int) -> None:
        after = formatdate(time() + 2, usegmt=True) if wait == "date" else wait
        handler.send(200, b"x") if count > 1 else handler.send(429, Retry_After=after)

    server.extra["busy"] = busy
    began = monotonic()
    assert fetch(server, "busy") == (b"x", None)
    assert monotonic() - began > 0.8
    began = monotonic()
    server.requests.clear()
    assert fetch(server, "busy", replace(QUICK, longest_wait_seconds=0.05)) == (b"x", None)
    assert monotonic() - began < 0.8


def test_waits_double_and_vary(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(download.asyncio, "sleep", sleep)
    monkeypatch.setattr(download.random, "uniform", lambda low, high: high)
    fetch(server, "500", replace(QUICK, retries=4, backoff_seconds=0.5, longest_wait_seconds=5.0))
    assert waits == [0.75, 1.5, 3.0, 5.0]


def test_no_more_requests_at_once_than_allowed(server: Server) -> None:
    def slow(handler: Any, _count: int) -> None:
        threading.Event().wait(0.02)
        handler.send(200, b"x")

    server.extra["slow"] = slow
    found: dict[str, bytes] = {}
    urls = {str(number): f"{server.url}/slow/{number}" for number in range(20)}
    assert fetch_all(urls, found.__setitem__, limits=replace(QUICK, concurrency=3)) == {}
    assert len(found) == 20
    assert 2 <= server.most_at_once <= 3


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/relative", "data:image/png;base64,AA", ""]
)
def test_only_http_and_https(url: str) -> None:
    reasons = fetch_all({"one": url}, lambda *_: None, limits=QUICK)
    assert reasons["one"].startswith("only http and https are fetched")


def test_a_redirect_to_another_scheme_is_refused(server: Server) -> None:
    server.extra["out"] = lambda handler, _count: handler.send(302, Location="file:///etc/passwd")
    assert fetch(server, "out") == (None, "only http and https are fetched, not file:/etc/passwd")


@pytest.mark.parametrize("url", ["http://[::1", "http://a b/", "http://" + "a" * 300 + "/"])
def test_what_is_no_url_is_a_failure_of_its_own(url: str) -> None:
    assert set(fetch_all({"one": url}, lambda *_: None, limits=replace(QUICK, retries=0))) == {"one"}


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2600::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]"])
def test_this_machine_is_refused_under_every_name(server: Server, host: str) -> None:
    url = f"http://{host}:{server.http.server_port}/picture"
    reasons = fetch_all({"one": url}, lambda *_: None, limits=replace(QUICK, allow_private_hosts=False))
    assert "which is not public; --allow-private-hosts connects to it" in reasons["one"]
    assert not server.requests


def test_a_name_that_resolves_to_this_machine_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_args: Any, **_kwargs: Any) -> list[Any]:
        assert host == "pictures.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://pictures.example:{server.http.server_port}/picture"
    reasons = fetch_all({"one": url}, lambda *_: None, limits=replace(QUICK, allow_private_hosts=False))
    assert reasons["one"].startswith("pictures.example is 127.0.0.1, which is not public")
    assert not server.requests


def test_a_redirect_into_a_private_network_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_hosts, "is_public", lambda address: str(address) == "127.0.0.1")
    server.extra["in"] = lambda handler, _count: handler.send(302, Location="http://127.0.0.2:1/picture")
    content, reason = fetch(server, "in", replace(QUICK, allow_private_hosts=False))
    assert content is None
    assert reason == "127.0.0.2 is 127.0.0.2, which is not public; --allow-private-hosts connects to it"
    assert fetch(server, "picture", replace(QUICK, allow_private_hosts=False)) == (picture(), None)


def test_an_environments_proxy_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("ALL_PROXY", server.url)
    reasons = fetch_all({"one": "http://127.0.0.1:1/x"}, lambda *_: None, limits=replace(QUICK, retries=0))
    assert reasons["one"].startswith("ConnectError")
    assert not server.requests


def test_pictures_land_under_their_item_with_the_suffix_of_their_content(server: Server, tmp_path: Path) -> None:
    said: list[tuple[str, int, int, float]] = []
    urls = {f"item {kind}": f"{server.url}/picture/{kind}" for kind in ("JPEG", "PNG", "WEBP")}
    found = download_images(urls, tmp_path / "pictures", limits=QUICK, progress=lambda *facts: said.append(facts))
    names = {"item JPEG": "item JPEG.jpg", "item PNG": "item PNG.png", "item WEBP": "item WEBP.webp"}
    assert found.source.entries == names
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == set(names.values())
    assert (found.kept, found.fetched, found.failures) == (0, 3, {})
    assert said[-1][:3] == ("downloading images", 3, 3)
    assert found.source.picture("item PNG").size == (40, 30)  # type: ignore[union-attr]


def test_failures_are_listed_beside_the_pictures_and_tried_again_later(server: Server, tmp_path: Path) -> None:
    wrong = {"gone": "404", "lies": "lie", "torn": "torn", "loop": "forever", "slow": "stall", "huge": "large"}
    wrong |= {"bomb": "bomb"}
    urls = {item: f"{server.url}/{path}" for item, path in {"good": "picture", **wrong}.items()}
    found = download_images(urls, tmp_path, limits=QUICK)
    assert (found.kept, found.fetched) == (0, 1)
    lines = (tmp_path / FAILURES).read_text().splitlines()
    assert lines[0] == "item_id\turl\treason"
    listed = {item: (url, reason) for item, url, reason in (line.split("\t") for line in lines[1:])}
    assert {item: url for item, (url, _) in listed.items()} == {item: urls[item] for item in wrong}
    assert listed["gone"][1] == "status 404"
    assert listed["lies"][1] == "is no JPEG, PNG or WebP but begins with b'<html>no pic'"
    assert listed["torn"][1].startswith("is a broken picture (")
    assert re.fullmatch(r"is a broken picture \(.*pixels.*\)", listed["bomb"][1])
    assert {path.name for path in tmp_path.iterdir()} == {"good.jpg", FAILURES}
    before = server.requests.copy()
    again = download_images({**urls, **dict.fromkeys(wrong, f"{server.url}/picture")}, tmp_path, limits=QUICK)
    assert (again.kept, again.fetched, again.failures) == (1, 7, {})
    assert server.requests["/picture"] - before["/picture"] == 7
    assert not (tmp_path / FAILURES).exists()


def test_what_a_kill_left_unfinished_or_broken_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(picture()[:50])
    (tmp_path / "b.jpg").write_bytes(picture()[:-200])
    (tmp_path / "c.png").write_bytes(picture("PNG", (0, 0, 9)))
    (tmp_path / "other.txt").write_text("the user's own")
    found = download_images(dict.fromkeys("abc", f"{server.url}/picture"), tmp_path, limits=QUICK)
    assert (found.kept, found.fetched) == (1, 2)
    assert found.source.entries == {"a": "a.jpg", "b": "b.jpg", "c": "c.png"}
    assert (tmp_path / "c.png").read_bytes() == picture("PNG", (0, 0, 9))
    assert {path.name for path in tmp_path.iterdir()} == {"a.jpg", "b.jpg", "c.png", "other.txt"}


ODD_IDS = [
    "../up",
    "a/b",
    "a\\b",
    "",
    "..",
    ".hidden",
    "nul\0",
    "x" * 300,
    "tab\tend",
    "é",
    "/etc/x",
    "C:\\x",
    "//host/x",
]
DEVICES = ["CON", "nul", "Aux.x", "com1", "LPT9.tar", "prn .x", "CONIN$"]


@pytest.mark.parametrize("item", [*ODD_IDS, *DEVICES])
def test_an_id_never_leaves_the_folder(server: Server, tmp_path: Path, item: str) -> None:
    folder = tmp_path / "deep" / "pictures"
    for _ in range(2):
        found = download_images({item: f"{server.url}/picture"}, folder, limits=QUICK)
        assert len(found.source) == 1
    assert found.kept == 1
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.parent == folder
    assert path.name.split(".")[0].rstrip() not in {name.split(".")[0].rstrip() for name in DEVICES}
    assert found.source.picture(item) is not None


@pytest.mark.parametrize("item", ["console", "B00NUL", "com10", "a.con", "x.y.z"])
def test_an_id_that_is_a_file_name_is_the_name(server: Server, tmp_path: Path, item: str) -> None:
    download_images({item: f"{server.url}/picture"}, tmp_path, limits=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == [f"{item}.jpg"]


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"download_images needs the library httpx, which is not installed\. Run: pip install 'athwe\[encoders\]'"
    with pytest.raises(ConfigError, match=message):
        fetch_all({"one": "http://127.0.0.1/"}, lambda *_: None)
