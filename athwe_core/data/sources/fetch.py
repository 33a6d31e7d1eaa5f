"""Large files over HTTP: resumed after a break, with limits on waiting, attempts and redirects."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import athwe_core
from athwe_core.data.features.download import REDIRECTS, TEMPORARY, TemporaryError, retry_after
from athwe_core.data.features.public_hosts import is_public
from athwe_core.data.readers.reading import ByteProgress, ignore
from athwe_core.data.sources.part_file import PartFile, refuse_full_disk
from athwe_core.errors import ConfigError, DataError
from athwe_core.messages import brief, reason

if TYPE_CHECKING:
    import httpx

NO_HEAD = {403, 405, 501}
"""Statuses of servers that answer no HEAD request."""
_WEB_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)
_WEB_PAGES = ("text/html", "application/xhtml+xml")
_TITLE = re.compile(rb"<title[^>]*>([^<]*)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Patience:
    """How long a download waits, and how often it tries.

    Attributes:
        seconds: Most seconds without a byte, > 0.
        retries: Further attempts in a row that bring nothing new, >= 0.
        backoff_seconds: Wait before the first further attempt; doubles each time.
        longest_wait_seconds: Of one wait, whatever the server asks for.
        redirects: Most redirects of one request.
    """

    seconds: float = 30.0
    retries: int = 4
    backoff_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    redirects: int = 5


class Fetcher:
    """Fetches files, one after the other; used as a context.

    Args:
        patience: Limits; the defaults where None.
        notify: Called with one sentence for each redirect, break and new attempt.
    Raises:
        ConfigError: httpx is not installed, or the proxy that the environment names cannot be used.
    """

    def __init__(self, patience: Patience | None = None, notify: Callable[[str], None] = ignore) -> None:
        if importlib.util.find_spec("httpx") is None:
            remedy = "Run: pip install 'athwe[download]'"
            raise ConfigError("athwe download", "needs the library httpx, which is not installed", remedy=remedy)
        import httpx  # noqa: PLC0415

        self._patience, self._notify = patience or Patience(), notify
        headers = {"User-Agent": f"athwe/{athwe_core.__version__}", "Accept-Encoding": "identity"}
        try:
            self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(self._patience.seconds))
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # of a proxy that the environment names
            rule, remedy = f"cannot be used ({reason(error)})", "Name a proxy with http:// in HTTPS_PROXY, or unset it"
            raise ConfigError("the proxy of the environment", rule, remedy=remedy) from None
        self._redirected: set[str] = set()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def size(self, url: str) -> int | None:
        """Bytes of a file; None where the server does not tell. Raises DataError where it is not there."""

        def ask() -> int | None:
            with self._open("HEAD", url) as response:
                if response.status_code in NO_HEAD:
                    return None
                _refuse_status(response, url)
                _refuse_web_page(response, url)
                return _length(response)

        return self._with_retries(url, ask, lambda: 0)

    def fetch(self, url: str, target: Path, *, progress: ByteProgress = ignore) -> Path:
        """Fetch a file to `target` + `.part`, from where an earlier attempt ended.

        Args:
            url: http or https.
            target: What the file will be called; its folder exists.
            progress: Called with the bytes on disk and the bytes in all, 0 where these are not known.
        Returns:
            The part file, as long as the server said.
        Raises:
            DataError: The server has no such file, sends a web page, redirects too often or to where it must not, or the
                disk has no room; or the attempts are used up, and then the part stays.
        """
        part = PartFile(target)

        def attempt() -> Path:
            self._attempt(url, part, progress)
            return part.path

        return self._with_retries(url, attempt, lambda: part.size)

    def _with_retries(self, url: str, attempt: Callable[[], _Found], reached: Callable[[], int]) -> _Found:
        failures, most = 0, reached()
        while True:
            try:
                return attempt()
            except TemporaryError as error:
                if (now := reached()) > most:
                    failures, most = 0, now
                failures += 1
                if failures > self._patience.retries:
                    kept = f"Run the command again: it continues at {now / 1e6:,.1f} MB" if now else "Try again later"
                    raise DataError(url, f"cannot be fetched ({error}; {failures} attempts)", remedy=kept) from None
                wait = max(self._patience.backoff_seconds * 2 ** (failures - 1), error.seconds or 0.0)
                wait = min(wait, self._patience.longest_wait_seconds)
                self._notify(f"{url}: {error}; trying again in {wait:.0f} s")
                time.sleep(wait)

    def _attempt(self, url: str, part: PartFile, progress: ByteProgress) -> None:
        known = part.known(url)
        start = part.size if known is not None else 0
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and known is not None and known.version is not None:
            headers["If-Range"] = known.version
        with self._open("GET", url, headers) as response:
            if response.status_code == 416:
                if known is not None and _range(response)[1] == known.total == start:
                    return
                part.remove()
                raise TemporaryError("the part on disk does not fit any more")
            _refuse_status(response, url)
            if response.status_code == 206:
                if known is None or _range(response) != (start, known.total):
                    part.remove()
                    raise TemporaryError("the file has changed since its first part was fetched")
                total: int | None = known.total
            else:
                if start:
                    self._notify(f"{url}: the server sends the file from its beginning")
                start, total = 0, _length(response)
                part.remove()
                _refuse_web_page(response, url)
                part.begin(url, _version(response), total)
            refuse_full_disk(part.path.parent, (total or 0) - start)
            self._receive(response, url, part, start, total, progress)

    def _receive(
        self, response: httpx.Response, url: str, part: PartFile, start: int, total: int | None, progress: ByteProgress
    ) -> None:
        done = start
        progress(done, total or 0)
        with part.path.open("ab" if start else "wb") as file, _named_failures():
            for content in response.iter_raw():
                if not done and _WEB_PAGE.match(content):
                    part.remove()
                    raise _web_page(url, content)
                file.write(content)
                done += len(content)
                progress(done, total or 0)
        if total is not None and done != total:
            raise TemporaryError(f"ended after {done:,} of {total:,} bytes")

    @contextmanager
    def _open(self, method: str, address: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """The response to a request, after redirects. The client's own failures are temporary."""
        import httpx  # noqa: PLC0415

        first = url = httpx.URL(address)
        for _ in range(self._patience.redirects + 1):
            with _named_failures():
                response = self._client.send(
                    self._client.build_request(method, url, headers=dict(headers or {})), stream=True
                )
            try:
                if response.status_code not in REDIRECTS:
                    yield response
                    return
                target = url.join(response.headers.get("Location", ""))
            finally:
                response.close()
            _refuse_redirect(first, url, target)
            if str(target) not in self._redirected:
                self._redirected.add(str(target))
                self._notify(f"{url} redirects to {brief(str(target), most=300)}")
            url = target
        raise DataError(address, f"redirects more than {self._patience.redirects} times", remedy="Try again later")


@contextmanager
def _named_failures() -> Iterator[None]:
    """Turn what the HTTP client raises into a temporary failure."""
    import httpx  # noqa: PLC0415

    try:
        yield
    except httpx.TimeoutException:
        raise TemporaryError("the server sends nothing") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise TemporaryError(brief(str(error), most=200) or type(error).__name__) from None


def _refuse_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in TEMPORARY:
        raise TemporaryError(f"status {status}", retry_after(response.headers.get("Retry-After")))
    if status not in (200, 206):
        gone = "It may have moved: look at the page of the data set, and name the new address in a table of your own"
        raise DataError(url, f"cannot be fetched (status {status})", remedy=gone)


def _refuse_web_page(response: httpx.Response, url: str) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _WEB_PAGES:
        with _named_failures():
            start = b"" if response.request.method == "HEAD" else next(response.iter_raw(), b"")
        raise _web_page(url, start)


def _web_page(url: str, start: bytes) -> DataError:
    found = _TITLE.search(start)
    title = f" ({brief(found[1].strip())})" if found else ""
    remedy = "Open the address in a browser: the server may want a login or a consent, or the file has moved"
    return DataError(url, f"is a web page{title} and not the file", remedy=remedy)


def _refuse_redirect(first: httpx.URL, before: httpx.URL, target: httpx.URL) -> None:
    """Refuse a redirect that leaves the web, drops encryption, or leads from a public host into a private network."""
    shown = brief(str(target), most=300)
    is_web = target.scheme in ("http", "https") and bool(target.host) and (target.port or 0) < 2**16
    if not is_web or (before.scheme, target.scheme) == ("https", "http"):
        raise DataError(str(first), "must only redirect to https addresses", shown)
    if target.host != before.host and not _is_private(first) and _is_private(target):
        raise DataError(str(first), "must not redirect to a private network", shown)


def _is_private(url: httpx.URL) -> bool:
    """Whether a host has an address that is not public. False for one without any: a proxy may know it."""
    with suppress(OSError):
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        return not all(is_public(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)
    return False


def _length(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _version(response: httpx.Response) -> str | None:
    """What tells a version of the file from others byte by byte; None without that."""
    version: str | None = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return None if version is None or version.startswith("W/") else version


def _range(response: httpx.Response) -> tuple[int | None, int | None]:
    """The first byte that a partial response holds, and the length of the whole file; None where it does not tell."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (int(found[1]) if found and found[1] else None), (int(found[2]) if found and found[2] != "*" else None)
