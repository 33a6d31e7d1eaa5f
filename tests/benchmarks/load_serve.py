"""Load and faults against a running `athwe serve` on this machine: requests a second, times, wrong answers, memory.

    athwe serve --run RUN --port 8000 --no-page
    python tests/benchmarks/load_serve.py --dataset Toys_and_Games --prepared prepared

Each client sends histories of 9 items of real users over a connection of its own: the next one when it has its answer, which
shows the most that the service answers, or, paced, requests come at a steady rate and count from when they were due. Every
eighth answer under load is compared with that to the same history alone. Faults: fuzzed bodies, half bodies, clients that
send a byte a second, and bursts that fill the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import athwe_core as athwe

LENGTH, K = 9, 10
CLOSE = 1e-4
"""Scores of a batch differ from those alone by rounding: items may change places where their scores are this close."""
Answer = tuple[int, bytes]


class Client:
    """One connection, opened again where the server closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> Answer:
        """Status and body of the answer."""
        if self.writer is None or self.writer.is_closing() or self.reader is None or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        told = await self.reader.readuntil(b"\r\n\r\n")
        lines = told.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        answer = await self.reader.readexactly(length)
        if b"connection: close" in lines:
            self.close()
        return int(told[9:12]), answer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None


def bodies(dataset: str, prepared: Path, count: int) -> list[bytes]:
    """Requests with the last items of users."""
    data = athwe.load_dataset(dataset, prepared_dir=prepared)
    found = []
    for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        if end - start >= LENGTH and len(found) < count:
            span = slice(end - LENGTH, end)
            items = [data.item_tokens[item] for item in data.item_ids[span]]
            row = {"item_ids": items, "timestamps": data.timestamps[span].tolist()}
            found.append(json.dumps({"histories": [row], "k": K}).encode())
    return found


def is_same(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two answers agree up to rounding."""
    (a,), (b,) = mine["recommendations"], theirs["recommendations"]
    if len(a["scores"]) != len(b["scores"]):
        return False
    near = all(abs(x - y) <= CLOSE for x, y in zip(a["scores"], b["scores"], strict=True))
    last = b["scores"][-1]
    scores = dict(zip(a["item_ids"], a["scores"], strict=True))
    kept = (item for item, score in zip(b["item_ids"], b["scores"], strict=True) if score > last + CLOSE)
    return near and all(item in scores for item in kept)


async def load(
    port: int, requests: list[bytes], alone: list[Any], *, clients: int, seconds: float, rate: float = 0
) -> dict[str, Any]:
    """Requests a second and times in milliseconds; a rate of 0 = each client's next request when it has its answer."""
    times: list[float] = []
    wrong: list[str] = []
    began = time.perf_counter()
    numbers = itertools.count()

    async def ask() -> None:
        client = Client(port)
        while True:
            number = next(numbers)
            due = began + number / rate if rate else time.perf_counter()
            if due > began + seconds:
                break
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            at = number % len(requests)
            status, answer = await client.post("/recommend", requests[at])
            times.append(time.perf_counter() - due)
            if status != 200 or (number % 8 == 0 and not is_same(json.loads(answer), alone[at])):
                wrong.append(f"{status} {answer[:200]!r}")
        client.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    taken = time.perf_counter() - began
    times.sort()
    return {
        "clients": clients,
        "requests": len(times),
        "per_second": round(len(times) / taken, 1),
        "p50_ms": round(1000 * times[len(times) // 2], 2),
        "p99_ms": round(1000 * times[int(0.99 * len(times))], 2),
        "longest_ms": round(1000 * times[-1], 2),
        "wrong": wrong[:3],
        "num_wrong": len(wrong),
    }


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


async def fuzz(port: int, requests: list[bytes], count: int) -> dict[str, Any]:
    """Statuses of answers to mutated bodies; those of 500 and more are failures."""
    rng, client = random.Random(0), Client(port)
    statuses: dict[int, int] = {}
    failed = []
    for _ in range(count):
        body = mutated(rng, rng.choice(requests))
        status, answer = await client.post(rng.choice(("/recommend", "/similar")), body)
        statuses[status] = statuses.get(status, 0) + 1
        if status >= 500:
            failed.append(f"{body!r}: {answer[:200]!r}")
    client.close()
    return {"bodies": count, "statuses": dict(sorted(statuses.items())), "failed": failed[:3]}


async def unfinished(port: int, count: int, *, seconds: float) -> None:
    """Connections that send half a body and go away, and others that send a byte a second."""
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n"

    async def gone() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b'{"histories": [')
        await writer.drain()
        writer.close()

    async def slow() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        for _ in range(int(seconds)):
            writer.write(b" ")
            await asyncio.sleep(1)
        writer.close()

    await asyncio.gather(*(each() for _ in range(count) for each in (gone, slow)))


async def burst(port: int, requests: list[bytes], *, clients: int) -> dict[int, int]:
    """Statuses of large requests that come at the same time: some find the queue full."""
    rows = [row for body in requests for row in json.loads(body)["histories"]]
    large = json.dumps({"histories": (rows * 256)[:256], "k": K}).encode()
    clients_ = [Client(port) for _ in range(clients)]
    found = await asyncio.gather(*(client.post("/recommend", large) for client in clients_))
    statuses: dict[int, int] = {}
    for client, (status, _) in zip(clients_, found, strict=True):
        client.close()
        statuses[status] = statuses.get(status, 0) + 1
    return statuses


def resident_mb(pid: int | None) -> float | None:
    """Memory of the server, of Linux."""
    if pid is None:
        return None
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rate", type=float, default=400.0, help="paced requests a second")
    parser.add_argument("--fuzzed", type=int, default=10_000)
    parser.add_argument("--soak-minutes", type=float, default=0.0)
    parser.add_argument("--pid", type=int, help="of the server, to report its memory")
    given = parser.parse_args()
    requests = bodies(given.dataset, given.prepared, 512)
    client = Client(given.port)
    alone = [json.loads((await client.post("/recommend", body))[1]) for body in requests]
    client.close()

    async def loaded(clients: int, seconds: float, rate: float = 0) -> dict[str, Any]:
        return await load(given.port, requests, alone, clients=clients, seconds=seconds, rate=rate)

    def show(what: str, found: object) -> None:
        print(json.dumps({what: found, "resident_mb": resident_mb(given.pid)}), flush=True)

    show("alone", await loaded(1, given.seconds))
    show("together", await loaded(given.clients, given.seconds))
    show("paced", await loaded(given.clients, given.seconds, given.rate))
    show("fuzzed", await fuzz(given.port, requests, given.fuzzed))
    show("burst", await burst(given.port, requests, clients=12))
    slow = asyncio.create_task(unfinished(given.port, 50, seconds=given.seconds))
    show("beside unfinished requests", await loaded(given.clients, given.seconds))
    await slow
    end = time.monotonic() + 60 * given.soak_minutes
    while time.monotonic() < end:
        show("soak", await loaded(given.clients, min(60.0, max(end - time.monotonic(), 1.0))))


if __name__ == "__main__":
    asyncio.run(main())
