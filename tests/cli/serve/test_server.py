"""The server: where it listens, and newer runs without a lost request."""

import socket
import threading
import time

import pytest
from serve_harness import HeldBack, running

from athwe_cli.serve.server import bind
from athwe_core.errors import ConfigError, DataError


def test_an_address_that_is_taken_or_none_is_one_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"--host, --port cannot be used .*'127\.0\.0\.1:{port}'\. Choose another"
        ):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match="--host, --port cannot be used"):
        bind("no such host", 80)
    if socket.has_ipv6:
        with bind("::1", 0) as sixth:
            assert sixth.family == socket.AF_INET6


def test_a_newer_run_is_loaded_while_requests_come_and_a_broken_one_is_reported_once() -> None:
    source = HeldBack()
    source.let(100_000)
    with running(source, check_seconds=0.02) as served:
        seen, stop, bad = set(), threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                response = served.recommend((["a"], [1]))
                if response.status_code != 200:
                    bad.append(response.text)
                seen.add(response.json()["run"])

        asking = threading.Thread(target=ask)
        asking.start()
        source.name = "held/back/2"
        until(lambda: "held/back/2" in seen)
        opened = source.open

        def refuses() -> None:
            raise DataError("weights", "are damaged")

        source.open, source.name = refuses, "held/back/3"  # type: ignore[method-assign,assignment]
        until(lambda: any("weights are damaged" in note for note in served.notes))
        time.sleep(0.1)
        source.open = opened  # type: ignore[method-assign]
        until(lambda: "held/back/3" in seen)
        stop.set()
        asking.join(10)
        assert bad == []
        broken = "the runs could not be loaded again, those that were there go on: weights are damaged"
        assert served.notes == ["serving held/back/2 now", broken, "serving held/back/3 now"]
        numbers = served.client.get("/metrics").text
        assert 'athwe_reloads_total{result="loaded"} 2.0' in numbers
        assert 'athwe_reloads_total{result="failed"} 1.0' in numbers


def until(is_true: object) -> None:
    """Wait for a condition, at most 10 s."""
    assert callable(is_true)
    end = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.005)
