"""Connections to public addresses only, whatever a name, a redirect or a name server says.

The address is looked at after the name was resolved, and that very address is connected to: a name server that gives another
answer the second time changes nothing. Proxies are not used: they would resolve the names themselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out; what lies outside holds old forms of IPv4 addresses and of sites."""


class RefusedError(Exception):
    """A fetch that must not, or need not, be tried again; its text is the reason."""


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is on the public internet; one that embeds an IPv4 address is judged by that."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if embedded is None and address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(embedded)
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def public_transport(*, max_connections: int, allow_private: bool = False) -> Any:
    """A transport for `httpx.AsyncClient`.

    Args:
        max_connections: At once.
        allow_private: Connect to this machine and to private networks too.
    """
    import httpcore  # noqa: PLC0415
    import httpx  # noqa: PLC0415

    class CheckedBackend(httpcore.AsyncNetworkBackend):
        """Resolves a name once, refuses it when any address is not public, and connects to what it has checked."""

        def __init__(self) -> None:
            self.inner = httpcore.AnyIOBackend()

        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore.AsyncNetworkStream:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
            if not allow_private:
                private = [address for address in addresses if not is_public(ipaddress.ip_address(address))]
                if private:
                    raise RefusedError(
                        f"{host} is {private[0]}, which is not public; --allow-private-hosts connects to it"
                    )
            for address in addresses:
                try:
                    return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore.ConnectError, httpcore.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
            raise httpcore.ConnectError(f"{host} has no address")

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    class Stream(httpx.AsyncByteStream):
        def __init__(self, response: httpcore.Response) -> None:
            self.response = response

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for part in self.response.aiter_stream():
                yield part

        async def aclose(self) -> None:
            await self.response.aclose()

    class Transport(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self.pool = httpcore.AsyncConnectionPool(
                ssl_context=httpx.create_ssl_context(),
                max_connections=max_connections,
                network_backend=CheckedBackend(),
            )

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            url = httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            )
            response = await self.pool.handle_async_request(
                httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
            )
            return httpx.Response(response.status, headers=response.headers, stream=Stream(response))

        async def aclose(self) -> None:
            await self.pool.aclose()

    return Transport()
