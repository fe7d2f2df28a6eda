"""Clients of an HTTP server, in a process of their own: `python load.py < plan.json` prints one JSON line.

A plan sends the same few bodies over and over: each of `clients` waits for its answer before it asks again (a closed
loop), or requests leave at random times, `rate` of them a second, whatever the server does (an open loop, as real
clients do).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import click
import httptools
import numpy as np
import uvloop


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: how long requests are sent; a closed loop goes on until `least` were answered.  rate: None: closed."""

    url: str
    bodies: list[str]
    clients: int
    seconds: float
    least: int = 1
    rate: float | None = None


@dataclass(slots=True)
class Seen:
    """statuses: how often each came.  latencies: milliseconds of those with 200.  size: bytes of the last answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    size: int = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[int] | None = None
        self.size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(error or ConnectionResetError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        self.size += len(body)

    def on_message_complete(self) -> None:
        assert self.answered is not None
        self.answered.set_result(self.parser.get_status_code())

    async def ask(self, request: bytes) -> int:
        self.parser, self.size = httptools.HttpResponseParser(self), 0
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answered


async def connect(plan: Plan) -> Connection:
    address = urlsplit(plan.url)
    _, connection = await asyncio.get_running_loop().create_connection(Connection, address.hostname, address.port)
    return connection


def requests(plan: Plan) -> Iterator[bytes]:
    address = urlsplit(plan.url)
    head = f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
    written = [f"{head}content-length: {len(body.encode())}\r\n\r\n{body}".encode() for body in plan.bodies]
    return itertools.cycle(written)


async def closed(plan: Plan, seen: Seen) -> float:
    """Seconds from the first request to the last answer."""
    source, started = requests(plan), time.perf_counter()
    until = started + plan.seconds

    async def client(connection: Connection) -> None:
        while time.perf_counter() < until or len(seen.latencies) < plan.least:
            begun = time.perf_counter()
            await note(connection, next(source), begun, seen)

    connections = [await connect(plan) for _ in range(plan.clients)]
    started = time.perf_counter()
    until = started + plan.seconds
    await asyncio.gather(*map(client, connections))
    return time.perf_counter() - started


async def opened(plan: Plan, seen: Seen) -> float:
    """Poisson arrivals; a request takes an idle connection, or a new one."""
    assert plan.rate is not None
    source, idle = requests(plan), deque([await connect(plan) for _ in range(plan.clients)])
    gaps = np.random.default_rng(0).exponential(1 / plan.rate, int(plan.rate * plan.seconds) + 1)
    running = set()

    async def one() -> None:
        connection = idle.popleft() if idle else await connect(plan)
        await note(connection, next(source), time.perf_counter(), seen)
        idle.append(connection)

    started = time.perf_counter()
    for due in started + np.cumsum(gaps):
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one())
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return time.perf_counter() - started


async def note(connection: Connection, request: bytes, begun: float, seen: Seen) -> None:
    status = await connection.ask(request)
    seen.statuses[status] += 1
    if status == 200:
        seen.latencies.append((time.perf_counter() - begun) * 1e3)
        seen.size = connection.size


async def run(plan: Plan) -> dict[str, Any]:
    seen = Seen()
    seconds = await (closed if plan.rate is None else opened)(plan, seen)
    middle, most = np.percentile(seen.latencies, [50, 99]).tolist() if seen.latencies else (None, None)
    return {
        "clients": plan.clients,
        "rate": plan.rate,
        "seconds": seconds,
        "answers": len(seen.latencies),
        "refused": {str(status): count for status, count in seen.statuses.items() if status != 200},
        "per_second": len(seen.latencies) / seconds,
        "median_ms": middle,
        "p99_ms": most,
        "bytes": seen.size,
    }


def plan_as_json(plan: Plan) -> bytes:
    return json.dumps(asdict(plan)).encode()


if __name__ == "__main__":
    click.echo(json.dumps(uvloop.run(run(Plan(**json.load(sys.stdin))))))
