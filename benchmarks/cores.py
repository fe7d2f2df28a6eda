"""Which cores a benchmark's processes run on, so that clients take none of the server's."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from quiet import BUSY_FIELDS, TICKS

Cores = frozenset[int]


def parsed(text: str) -> Cores:
    """From "0,1" or "2-9" or both."""
    spans = [part.partition("-") for part in text.split(",")]
    return frozenset(core for first, _, last in spans for core in range(int(first), int(last or first) + 1))


def add_cores(parser: argparse.ArgumentParser) -> None:
    everything = frozenset(os.sched_getaffinity(0))
    parser.add_argument("--server-cores", type=parsed, default=everything, help="of servers and engines, such as 0,1")
    parser.add_argument("--client-cores", type=parsed, default=everything, help="of clients, such as 2-9")


def keep_to(cores: Cores) -> None:
    """This thread, and what threads and processes it starts from now on."""
    os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def starting_on(cores: Cores) -> Iterator[None]:
    """Processes started inside are kept to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_seconds(cores: Cores) -> float:
    """Processor seconds that everything has used on these cores since the system started; 0 where it is unknown."""
    path = Path("/proc/stat")
    lines = path.read_text().splitlines() if path.exists() else []
    counts = {name: fields.split() for name, _, fields in (line.partition(" ") for line in lines)}
    return sum(int(counts[f"cpu{core}"][field]) for core in cores if counts for field in BUSY_FIELDS) / TICKS
