"""Clients of an HTTP server, in a process of their own: `python load.py < plan.json` prints one JSON line.

A plan sends the same few bodies over and over: each of `clients` waits for its answer before it asks again (a closed
loop), or requests leave at random times, `rate` of them a second, whatever the server does (an open loop, as real
clients do). The latency of an open loop counts from when a request was due, also where this process sent it late.
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
    """seconds: how long requests are sent; a closed loop sends at least `least`.  rate: None: closed."""

    url: str
    bodies: list[str]
    clients: int
    seconds: float
    least: int = 1
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Trip:
    """A request that was answered with 200. due, sent, answered: seconds.  timing: the answer's Server-Timing."""

    due: float
    sent: float
    answered: float
    timing: bytes

    @property
    def latency(self) -> float:
        """Milliseconds."""
        return (self.answered - min(self.due, self.sent)) * 1e3

    def stages(self) -> dict[str, float]:
        """Milliseconds that this process was late by, that the server says it spent on what, and the rest."""
        spans = [span.split(";dur=") for span in self.timing.decode().split(", ")]
        server = {name: float(milliseconds) for name, milliseconds in spans}
        total = server.pop("total")
        late = max(self.sent - self.due, 0.0) * 1e3
        return {"late": late, **server, "waking": total - sum(server.values()), "outside": self.latency - late - total}


@dataclass(slots=True)
class Seen:
    """statuses: how often each came.  trips: of those with 200.  size: bytes of the last answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    trips: list[Trip] = field(default_factory=list)
    size: int = 0
    sent: int = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[int] | None = None
        self.size = 0
        self.timing = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(error or ConnectionResetError("the server closed the connection"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"server-timing":
            self.timing = value

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
        while time.perf_counter() < until or seen.sent < plan.least:
            await note(connection, next(source), time.perf_counter(), seen)

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

    async def one(due: float) -> None:
        while idle and idle[0].transport.is_closing():  # by a server that waited long for a request
            idle.popleft()
        connection = idle.popleft() if idle else await connect(plan)
        await note(connection, next(source), due, seen)
        idle.append(connection)

    started = time.perf_counter()
    for due in started + np.cumsum(gaps):
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return time.perf_counter() - started


async def note(connection: Connection, request: bytes, due: float, seen: Seen) -> None:
    seen.sent += 1
    sent = time.perf_counter()
    status = await connection.ask(request)
    seen.statuses[status] += 1
    if status == 200:
        seen.trips.append(Trip(due, sent, time.perf_counter(), connection.timing))
        seen.size = connection.size


async def run(plan: Plan) -> dict[str, Any]:
    seen = Seen()
    seconds = await (closed if plan.rate is None else opened)(plan, seen)
    latencies = [trip.latency for trip in seen.trips]
    middle, most = np.percentile(latencies, [50, 99]).tolist() if latencies else (None, None)
    return {
        "clients": plan.clients,
        "rate": plan.rate,
        "seconds": seconds,
        "answers": len(latencies),
        "refused": {str(status): count for status, count in seen.statuses.items() if status != 200},
        "per_second": len(latencies) / seconds,
        "median_ms": middle,
        "p99_ms": most,
        "bytes": seen.size,
        "stages": where(seen.trips) if plan.rate is not None else {},
    }


def where(trips: list[Trip]) -> dict[str, dict[str, float]]:
    """Mean milliseconds by stage, of the middle fifth of the requests and of the slowest hundredth.

    late: until it was sent.  tokenization, queue, inference: as the server says.  waking: what else passed between its
    first and last look at the clock, waiting for its event loop mostly.  outside: sockets and both event loops.
    """
    told = sorted((trip for trip in trips if trip.timing), key=lambda trip: trip.latency)
    parts = {"middle": told[int(0.4 * len(told)) : int(0.6 * len(told))], "slowest": told[int(0.99 * len(told)) :]}
    return {name: means([trip.stages() for trip in part]) for name, part in parts.items() if part}


def means(all_stages: list[dict[str, float]]) -> dict[str, float]:
    return {stage: round(sum(one[stage] for one in all_stages) / len(all_stages), 2) for stage in all_stages[0]}


def plan_as_json(plan: Plan) -> bytes:
    return json.dumps(asdict(plan)).encode()


if __name__ == "__main__":
    click.echo(json.dumps(uvloop.run(run(Plan(**json.load(sys.stdin))))))
