"""A server in a thread of the test's own process, with a real run or with one whose computing a test holds back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from athwe_cli.serve import server
from athwe_cli.serve.api import create_app
from athwe_cli.serve.limits import Limits
from athwe_core.errors import DataError
from athwe_core.serving.engine import Ranked
from athwe_core.serving.service import Served, Service, Source


@dataclass
class Running:
    """A server that takes requests."""

    url: str
    service: Service
    client: httpx.Client
    notes: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """For plain sockets."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def recommend(self, *histories: tuple[Sequence[Any], Sequence[Any]], **options: Any) -> httpx.Response:
        """POST /recommend."""
        rows = [{"item_ids": list(items), "timestamps": list(times)} for items, times in histories]
        return self.client.post("/recommend", json={"histories": rows, **options})


@contextmanager
def running(
    source: Source,
    *,
    limits: Limits | None = None,
    keys: tuple[str, ...] = (),
    check_seconds: float = 0,
    **options: Any,
) -> Iterator[Running]:
    """Serve a source until the end of the block, then stop as on SIGTERM."""
    limits = limits or Limits()
    service = Service(source, **options)
    errors: list[Exception] = []
    app = create_app(service, limits=limits, keys=keys, report=errors.append)
    listening = server.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    started, notes, servers = threading.Event(), [], []
    arguments: dict[str, Any] = {"limits": limits, "check_seconds": check_seconds, "notify": notes.append}
    arguments |= {"on_started": started.set, "on_server": servers.append}
    thread = threading.Thread(
        target=server.serve_until_stopped, args=(app, service, listening), kwargs=arguments, daemon=True
    )
    thread.start()
    assert started.wait(20)
    with httpx.Client(base_url=url, timeout=20) as client:
        try:
            yield Running(url, service, client, notes, errors)
        finally:
            client.close()
            servers[0].should_exit = True
            thread.join(20)
            assert not thread.is_alive()


class HeldBack:
    """A source whose model answers when a test lets it. It knows the items a, b and c."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.name = "held/back/1"
        self.error: Exception | None = None

    def version(self) -> str:
        return self.name

    def open(self) -> Served:
        return Served((self.name,), self.name, self, None)  # type: ignore[arg-type]

    def recommend_request(self, item_ids: list[str], timestamps: list[int], **_: Any) -> Any:
        if set(item_ids) - set("abc"):
            raise DataError("item_ids", "must be a, b or c", item_ids)
        return _Request(item_ids)

    def answer(self, requests: Sequence[_Request]) -> list[Ranked]:
        self.began.release()
        assert self.may_end.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        return [Ranked(request.item_ids, [1.0] * len(request.item_ids)) for request in requests]

    def let(self, times: int = 1) -> None:
        """Answer that many batches."""
        for _ in range(times):
            self.may_end.release()


@dataclass(frozen=True)
class _Request:
    item_ids: list[str]
    unknown: tuple[str, ...] = ()
