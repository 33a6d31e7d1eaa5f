"""The server: one process, one event loop for the network, one thread that computes."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from athwe_cli.serve.guard import Guard
from athwe_cli.serve.limits import Limits
from athwe_core.errors import AthweError, ConfigError
from athwe_core.serving.service import Service

GRACE_SECONDS = 5.0
"""More than the longest request, until a stopping server gives up."""
BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at an address. Raises ConfigError where that is not possible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        remedy = "Choose another --port, or 0 for any free one"
        raise ConfigError("--host, --port", f"cannot be used ({error.strerror})", f"{host}:{port}", remedy) from None
    bound.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # connections inherit it; asyncio does not set it on these
    bound.setblocking(False)
    return bound


def serve_until_stopped(
    app: Guard,
    service: Service,
    listening: socket.socket,
    *,
    limits: Limits,
    check_seconds: float,
    on_started: Callable[[], None],
    notify: Callable[[str], None],
    on_server: Callable[[uvicorn.Server], None] = lambda _: None,
) -> None:
    """Answer requests until SIGTERM or SIGINT, then those that are under way.

    Args:
        app: from `create_app`.
        service: closed at the end.
        listening: from `bind`.
        limits: those of `app`.
        check_seconds: how often a newer run is looked for; 0 = only on SIGHUP.
        on_started: called when requests are taken.
        notify: called with one line on what happens.
        on_server: called with the server, whose `should_exit` stops it too.
    """
    config = uvicorn.Config(
        _with_reload(app, service, check_seconds, notify),
        http=_protocol(limits.body_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # the guard reports errors; malformed requests are answered and counted
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(limits.body_seconds + limits.wait_seconds + GRACE_SECONDS),
    )
    running = _Server(config, on_started)
    on_server(running)
    gc.collect()
    gc.freeze()  # the libraries are a million objects: to look through them again and again stops answers for 0.3 s
    try:
        running.run(sockets=[listening])
    finally:
        gc.unfreeze()
        listening.close()
        service.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then tell that requests are taken."""
        await super().startup(sockets)
        if self.started:
            self._on_started()


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's, which gives up on a client that sends no whole head of a request in time."""

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc]  # of httptools where that is installed, else of h11
        def connection_made(self, transport: Any) -> None:
            super().connection_made(_JoinedWrites(transport, self.loop))
            self.loop.call_later(seconds, self._give_up)

        def _give_up(self) -> None:
            if self.cycle is None:
                self.transport.close()

    return Impatient


class _JoinedWrites:
    """A transport that sends in one call what is written in one turn of the loop: the head and the body of an answer."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _with_reload(app: Guard, service: Service, check_seconds: float, notify: Callable[[str], None]) -> Any:
    """The application, which looks for newer runs while it lives."""

    async def look(again: asyncio.Event) -> None:
        failed = ""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(again.wait(), check_seconds or None)
            again.clear()
            try:
                is_new = await asyncio.to_thread(service.reload)
            except (AthweError, OSError) as error:
                if str(error) != failed:  # once, and not again at every look
                    app.metrics.reload("failed")
                    notify(f"the runs could not be loaded again, those that were there go on: {error}")
                failed = str(error)
                continue
            failed = ""
            if is_new:
                app.metrics.reload("loaded")
                notify(f"serving {', '.join(service.served.names)} now")

    @asynccontextmanager
    async def living() -> AsyncIterator[None]:
        again = asyncio.Event()
        if hasattr(signal, "SIGHUP"):
            with suppress(RuntimeError, ValueError):  # outside of the main thread there are no signals
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, again.set)
        looking = asyncio.create_task(look(again))
        yield
        looking.cancel()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        async with living():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application
