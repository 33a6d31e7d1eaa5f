"""Keys, host names, and clients that are slow, go away, or send anything at all."""

import base64
import json
import random
import socket
import time

import httpx
import pytest
from serve_harness import HeldBack, Running, running

import athwe_core as athwe
from athwe_cli.serve.limits import Limits

KEY = "a key of enough characters"


def raw(served: Running, content: bytes, *, seconds: float = 20) -> bytes:
    """What the server sends back to bytes, until it closes."""
    with socket.create_connection(served.address, timeout=seconds) as connection:
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_a_key_is_needed_where_there_are_some(run: athwe.Run) -> None:
    source = HeldBack()
    source.let(9)
    with running(source, keys=("another key that is good", KEY)) as served:
        get = served.client.get
        assert get("/metrics").status_code == 401
        assert get("/metrics").headers["WWW-Authenticate"].startswith("Basic ")
        basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
        for header in (f"Bearer {KEY}", "bearer another key that is good", f"Basic {basic}"):
            assert get("/metrics", headers={"Authorization": header, "Host": "any.name"}).status_code == 200
        for header in ("Bearer wrong", "Bearer", "Basic !!", f"Digest {KEY}", KEY, "Basic"):
            assert get("/metrics", headers={"Authorization": header}).status_code == 401
        assert get("/health").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:99", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example:8000", 421), ("", 421)],
)
def test_without_a_key_only_names_of_this_machine(served: Running, host: str, status: int) -> None:
    """Another site's page, whose name was made to point here, is kept out."""
    assert served.client.get("/health", headers={"Host": host}).status_code == status


def test_a_slow_body_is_refused_and_holds_nobody_up(run: athwe.Run) -> None:
    source = HeldBack()
    source.let(9)
    with running(source, limits=Limits(body_seconds=0.4)) as served:
        head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        with (
            socket.create_connection(served.address, timeout=20) as slow,
            socket.create_connection(served.address) as mute,
        ):
            slow.sendall(head + b'{"histories"')
            began = time.monotonic()
            assert served.recommend((["a"], [1])).status_code == 200
            assert time.monotonic() - began < 0.35
            assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
            mute.settimeout(20)
            assert mute.recv(10) == b""  # closed: no head of a request came
        assert served.errors == []


def test_half_a_body_leaves_no_trace(served: Running) -> None:
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(served.address, timeout=20) as gone:
        gone.sendall(head + b'{"histories": [{"item_ids"')
    assert served.client.get("/health").status_code == 200
    assert served.errors == []


def test_what_is_no_http_gets_400(served: Running) -> None:
    assert raw(served, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert raw(served, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert served.errors == []


def mutated(rng: random.Random, body: bytes) -> bytes:
    """A body with some bytes changed, removed, repeated or put in."""
    content = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        part = rng.choice(
            (b"", bytes([rng.randrange(256)]), b'"', b"[", b"]}", b"-1", b"1e999", b"null", b"NaN", b"true")
        )
        content[at : rng.choice((at, at + 1, end))] = rng.choice((part, bytes(content[at:end]) * 2))
    return bytes(content)


def test_fuzzed_bodies_are_answered_or_refused_never_failed(run: athwe.Run, served: Running) -> None:
    """tests/benchmarks/load_serve.py sends 10,000."""
    rng, tokens = random.Random(0), run.data.item_tokens
    good = {"histories": [{"item_ids": tokens[3:7], "timestamps": [1, 2, 3, 4], "user_id": "7"}], "k": 5}
    good |= {"exclude_seen": True, "allowed": tokens[1:30]}
    expected = served.client.post("/recommend", json=good).json()
    statuses = set()
    for number in range(200):
        body = mutated(rng, json.dumps(good).encode())
        path = rng.choice(("/recommend", "/recommend", "/similar"))
        response = served.client.post(path, content=body, headers={"Content-Type": "application/json"})
        statuses.add(response.status_code)
        assert response.status_code in (200, 413, 422), (number, body)
        if response.status_code != 200:
            assert response.json()["detail"][0].keys() == {"field", "message"}
        else:
            answer = response.json()["recommendations"]
            assert all(set(row["item_ids"]) <= set(tokens) for row in answer)
    assert statuses >= {200, 422}
    assert served.client.post("/recommend", json=good).json() == expected
    assert served.errors == []


def test_no_answer_names_the_server_or_its_libraries(served: Running) -> None:
    response = httpx.get(f"{served.url}/health")
    assert "server" not in response.headers
