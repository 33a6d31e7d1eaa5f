"""What every request passes first: key, host, size and time of its body; and what becomes of an unexpected error."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from time import perf_counter

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athwe_cli.serve.answers import UNEXPECTED, refusal
from athwe_cli.serve.direct import Direct
from athwe_cli.serve.limits import Limits
from athwe_cli.serve.metrics import Metrics

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/health"})
"""These need no key, so that a load balancer can look."""


class Guard:
    """Passes on requests whose body is whole, within limits and allowed.

    Args:
        app: gets them.
        direct: answers POST requests of JSON by path, before `app`.
        limits: of the body.
        keys: one of them is needed; empty = none. It comes as `Authorization: Bearer KEY`, or as the password of HTTP basic
            authentication, for which browsers ask.
        hosts: names by which the service may be called, without port; None = any. Where there is no key, this keeps pages of
            other sites out, whose name was made to point here.
        metrics: counts the requests.
        report: called with each unexpected error.
    """

    def __init__(
        self,
        app: ASGIApp,
        direct: Mapping[str, Direct],
        *,
        limits: Limits,
        keys: tuple[str, ...],
        hosts: frozenset[str] | None,
        metrics: Metrics,
        report: Callable[[Exception], None],
    ) -> None:
        self._app, self._direct, self._limits, self._report = app, direct, limits, report
        self.metrics = metrics
        self._keys = [key.encode() for key in keys]
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = self._refusal(scope)
            body = b""
            if refused is None:
                found = await self._body(scope, receive)
                if found is None:
                    return  # the client went away
                refused, body = (found, b"") if isinstance(found, Response) else (None, found)
            answer = refused or await self._answer(scope, body)
            if answer is not None:
                await answer(scope, receive, sending)
                return
            await self._app(scope, _once(body, receive), sending)
        except Exception as error:
            self._report(error)
            if not status:
                await refusal(500, UNEXPECTED)(scope, receive, sending)
        finally:
            self.metrics.request(scope["path"], status, perf_counter() - began)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        if self._hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)
            name = host[0] if len(host) == 2 and host[1].isdigit() else ":".join(host)
            if name not in self._hosts:
                return refusal(421, f"this service is {' or '.join(sorted(self._hosts))}", "Host")
        if self._keys and scope["path"] not in OPEN_PATHS:
            given = _key_of(headers.get(b"authorization", b""))
            matches = [hmac.compare_digest(given, key) for key in self._keys]  # all of them, so that time tells nothing
            if not any(matches):
                asks = {"WWW-Authenticate": 'Basic realm="athwe: any name, the key as password", charset="UTF-8"'}
                return refusal(401, "needs Authorization: Bearer KEY", "Authorization", asks)
        return None

    async def _answer(self, scope: Scope, body: bytes) -> Response | None:
        """The answer to a request that needs no framework; None for all others."""
        direct = self._direct.get(scope["path"])
        if direct is None or scope["method"] != "POST" or not body or not _is_json(scope):
            return None
        return await direct.answer(body)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """The whole body; an answer where it is too large or too slow; None where the client went away."""
        limit = self._limits.body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > limit:
            return _too_large(limit)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        return _too_large(limit)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return refusal(
                408, f"the body must come within {self._limits.body_seconds:g} s", headers={"Connection": "close"}
            )


def _is_json(scope: Scope) -> bool:
    kinds = (value.partition(b";")[0].strip() for name, value in scope["headers"] if name == b"content-type")
    return next(kinds, b"").lower() == b"application/json"


def _too_large(limit: int) -> Response:
    return refusal(413, f"the body must have at most {limit:,} bytes", headers={"Connection": "close"})


def _once(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, and then what comes."""
    is_read = False

    async def next_message() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _key_of(header: bytes) -> bytes:
    """The key of an Authorization header; empty where there is none."""
    scheme, _, value = header.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""
