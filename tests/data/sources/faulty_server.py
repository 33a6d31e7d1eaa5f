"""A local web server that has files, and can stall, cut off, redirect, lie about lengths and refuse."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[Any, int], None]
"""Answers a request: takes the handler, and how many requests of its path there were, this one included."""


class Server:
    """Serves `files` by path, with ranges. `answers` replaces that for single paths; `released` ends the stalls."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.handle_path()

            def do_GET(self) -> None:
                self.handle_path()

            def handle_path(self) -> None:
                outer.requests.append((self.command, self.path, self.headers.get("Range")))
                count = sum(self.path == path and self.command == method for method, path, _ in outer.requests)
                try:
                    outer.answers.get(self.path, outer.answer)(self, count)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def send(self, status: int, content: bytes = b"", *, length: int | None = None, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)
                    self.wfile.flush()
                self.close_connection = length is not None

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, handler: Any, _count: int) -> None:
        """A file, or the part of it that is asked for where it has the version that is asked for."""
        path = handler.path
        if path not in self.files:
            handler.send(404, b"not here")
            return
        content, tag = self.files[path], self.tags.get(path, '"first"')
        start = range_start(handler)
        if start is None or handler.headers.get("If-Range", tag) != tag:
            handler.send(200, content, ETag=tag)
        elif start >= len(content):
            handler.send(416, Content_Range=f"bytes */{len(content)}")
        else:
            handler.send(206, content[start:], ETag=tag, Content_Range=content_range(start, len(content)))

    def cut(self, path: str, at: int, *, times: int = 1) -> None:
        """Close the connection after `at` bytes of the first responses to a path."""

        def answer(handler: Any, count: int) -> None:
            if handler.command == "HEAD" or count > times:
                self.answer(handler, count)
                return
            start = range_start(handler) or 0
            rest = self.files[path][start:]
            kind = {"Content_Range": content_range(start, len(self.files[path]))} if start else {}
            handler.send(206 if start else 200, rest[:at], length=len(rest), ETag='"first"', **kind)

        self.answers[path] = answer

    def stall(self, path: str, at: int) -> None:
        """Send nothing more after `at` bytes of the first response to a path."""

        def answer(handler: Any, count: int) -> None:
            if handler.command == "HEAD" or count > 1:
                self.answer(handler, count)
                return
            content = self.files[path]
            handler.send(200, content[:at], length=len(content), ETag='"first"')
            self.released.wait(20)

        self.answers[path] = answer


def range_start(handler: Any) -> int | None:
    """The first byte that a request wants; None where it wants the whole file."""
    wanted = handler.headers.get("Range")
    return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else None


def content_range(start: int, total: int) -> str:
    """The header that tells which part of a file a response holds."""
    return f"bytes {start}-{total - 1}/{total}"
