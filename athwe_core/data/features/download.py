"""The network: models from the Hugging Face hub, and many small files from anywhere.

Addresses of files come from data, so they are not trusted: only http and https, only public hosts (`public_transport`),
bounded size, time and redirects.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import athwe_core
from athwe_core.data.features.public_hosts import RefusedError, public_transport
from athwe_core.errors import ConfigError, DataError
from athwe_core.host_process import run_coroutine

if TYPE_CHECKING:
    import httpx

TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Limits:
    """How patient and how trusting `fetch_all` is.

    Attributes:
        concurrency: Requests at once.
        max_bytes: Most bytes of one file.
        seconds: Most seconds of one attempt, from the name's resolution to the last byte.
        retries: Further attempts after a temporary failure.
        backoff_seconds: Wait before the first further attempt; doubles each time, with jitter of a half.
        longest_wait_seconds: Of one wait, whatever the server asks for.
        redirects: Most redirects of one file.
        allow_private_hosts: Also connect to this machine and to private networks.
    """

    concurrency: int = 16
    max_bytes: int = 16 * 2**20
    seconds: float = 60.0
    retries: int = 4
    backoff_seconds: float = 0.5
    longest_wait_seconds: float = 60.0
    redirects: int = 5
    allow_private_hosts: bool = False


class TemporaryError(Exception):
    """Trying again may help; `seconds` is what the server asked to wait."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def fetch_all(
    urls: Mapping[str, str],
    receive: Callable[[str, bytes], None],
    *,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Fetch many files, each into memory, several at a time; also where an event loop runs already, as in a notebook.

    Args:
        urls: What to fetch, by a key of the caller's.
        receive: Called with the key and the content of each file; a ValueError of it is the reason of a failure.
        limits: Defaults where None.
        progress: Called with the number of files done, failures included.
    Returns:
        The reason of each failure, by key.
    Raises:
        ConfigError: httpx is not installed.
    """
    if importlib.util.find_spec("httpx") is None:
        remedy = "Run: pip install 'athwe[encoders]'"
        raise ConfigError("download_images", "needs the library httpx, which is not installed", remedy=remedy)
    return run_coroutine(_fetch_all(urls, receive, limits or Limits(), progress or (lambda _: None)))


async def _fetch_all(
    urls: Mapping[str, str], receive: Callable[[str, bytes], None], limits: Limits, progress: Callable[[int], None]
) -> dict[str, str]:
    import httpx  # noqa: PLC0415

    failures: dict[str, str] = {}
    waiting = iter(urls.items())
    done = 0

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal done
        for key, url in waiting:
            try:
                receive(key, await _with_retries(client, url, limits))
            except (RefusedError, ValueError) as error:
                failures[key] = " ".join(str(error).split())
            done += 1
            progress(done)

    headers = {
        "User-Agent": f"athwe/{athwe_core.__version__}",
        "Accept": "image/*,*/*;q=0.1",
        "Accept-Encoding": "identity",
    }
    timeout = httpx.Timeout(limits.seconds)
    async with httpx.AsyncClient(
        transport=public_transport(max_connections=limits.concurrency, allow_private=limits.allow_private_hosts),
        headers=headers,
        timeout=timeout,
        trust_env=False,
    ) as client:
        await asyncio.gather(*(work(client) for _ in range(min(limits.concurrency, len(urls)))))
    return failures


async def _with_retries(client: httpx.AsyncClient, url: str, limits: Limits) -> bytes:
    for attempt in range(limits.retries + 1):
        try:
            async with asyncio.timeout(limits.seconds):
                return await _fetch(client, url, limits)
        except TimeoutError:
            found = TemporaryError(f"took longer than {limits.seconds:g} s")
        except TemporaryError as error:
            found = error
        if attempt < limits.retries:
            wait = limits.backoff_seconds * 2**attempt * random.uniform(0.5, 1.5)
            await asyncio.sleep(min(max(wait, found.seconds or 0.0), limits.longest_wait_seconds))
    raise RefusedError(f"{found} ({limits.retries + 1} attempts)")


async def _fetch(client: httpx.AsyncClient, address: str, limits: Limits) -> bytes:
    import httpcore  # noqa: PLC0415
    import httpx  # noqa: PLC0415

    try:
        url = httpx.URL(address)
        for _ in range(limits.redirects + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise RefusedError(f"only http and https are fetched, not {str(url)[:200]}")
            async with client.stream("GET", url) as response:
                if response.status_code not in REDIRECTS:
                    return await _content(response, limits.max_bytes)
                url = url.join(response.headers.get("Location", ""))
        raise RefusedError(f"more than {limits.redirects} redirects")
    except httpx.InvalidURL as error:
        raise RefusedError(f"not a URL ({error})") from None
    except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise RefusedError(f"{type(error).__name__} {error}") from None
    except (
        httpx.HTTPError,
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        OSError,
    ) as error:
        raise TemporaryError(f"{type(error).__name__} {error}".strip()) from None


async def _content(response: httpx.Response, max_bytes: int) -> bytes:
    status = response.status_code
    if status in TEMPORARY:
        raise TemporaryError(f"status {status}", retry_after(response.headers.get("Retry-After")))
    if status != 200:
        raise RefusedError(f"status {status}")
    too_long = f"more than {max_bytes:,} bytes"
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise RefusedError(too_long)
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > max_bytes:
            raise RefusedError(too_long)
    return bytes(content)


def retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header: a number of seconds or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except ValueError:
        return None


def fetch_model(repository: str, *, revision: str | None, option: str) -> Path:
    """The files of a model on the Hugging Face hub: from its cache where it has them, else fetched.

    Args:
        repository: `owner/model`.
        revision: Branch, tag or commit; None = what the cache holds, else the newest.
        option: The option that named it, for messages.
    Returns: The snapshot's folder, named by its commit.
    Raises:
        DataError: It is not in the cache and cannot be fetched (HF_HUB_OFFLINE is honoured).
    """
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars  # noqa: PLC0415

    wanted: dict[str, Any] = {
        "revision": revision,
        "allow_patterns": ["*.json", "*.txt", "*.model", "*.safetensors"],
        "ignore_patterns": ["*/*"],
    }
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with suppress(Exception):  # not there, or not whole: it is fetched below, where what is wrong is said
            cached = Path(huggingface_hub.snapshot_download(repository, local_files_only=True, **wanted))
            if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
                return cached
        return Path(huggingface_hub.snapshot_download(repository, **wanted))
    except Exception as error:  # the hub's client raises dozens of kinds, all of which mean the same to the user
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "Give a folder that holds the model, or a name as on huggingface.co; offline, fetch it before"
        raise DataError(option, f"cannot be fetched ({reason})", repository, remedy) from None
    finally:
        if had_bars:
            enable_progress_bars()
