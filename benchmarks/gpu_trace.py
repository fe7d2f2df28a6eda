"""Is the device ever idle? Rerank requests back to back through the Encoder, under torch's profiler. Part of gpu.py.

Texts go in, scores come out. Some clients each send a request as soon as the one before is answered, as to a server
that is busy. They begin one after another: those that begin in one moment end in one, too, and then nobody's texts are
tokens yet. Idle is the time between the first and the last thing the device did in which it did nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from onepass import Encoder

SWITCH_SECONDS, COLLECT_AFTER = 0.001, (20_000, 20, 20)  # of server/serve.py
WARM = 8  # requests of each client before
DEVICE_WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
Span = tuple[float, float]


def traced(encoder: Encoder, query: str, documents: list[str], folder: Path, *, requests: int, at_once: int) -> Any:
    """(facts, the spans in which the device was busy, in seconds from its first work on, one behind the other)."""
    with as_in_a_server():
        asyncio.run(stream(encoder, query, documents, WARM * at_once, at_once))  # graphs of the usual sizes, too
        started = time.perf_counter()
        asyncio.run(stream(encoder, query, documents, 1, 1))
        apart = (time.perf_counter() - started) / at_once
        started = time.perf_counter()
        asyncio.run(stream(encoder, query, documents, requests, at_once, apart))
        plain = time.perf_counter() - started
        with profiler() as recorded:
            started = time.perf_counter()
            asyncio.run(stream(encoder, query, documents, requests, at_once, apart))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
    spans = busy(work(recorded, folder))
    length = spans[-1][1] - spans[0][0]
    gaps = [b[0] - a[1] for a, b in pairwise(spans)]
    facts = {
        "requests": requests,
        "at_once": at_once,
        "apart_seconds": round(apart, 4),
        "documents": len(documents),
        "seconds": round(plain, 4),
        "seconds_under_profiler": round(seconds, 4),
        "traced_seconds": round(length, 4),
        "idle_share": round(sum(gaps) / length, 4),
        "gaps": len(gaps),
        "longest_gaps_ms": [round(gap * 1e3, 3) for gap in sorted(gaps, reverse=True)[:10]],
    }
    return facts, [(begin - spans[0][0], end - spans[0][0]) for begin, end in spans]


@contextmanager
def as_in_a_server() -> Iterator[None]:
    """The interpreter as onepass's server sets it: threads take turns each millisecond, and what was loaded is left out
    of the search for cycles, which would stop everything for a tenth of a second in the middle of a trace.
    """
    before = sys.getswitchinterval(), gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])
        gc.unfreeze()


async def stream(
    encoder: Encoder, query: str, documents: list[str], requests: int, clients: int, apart: float = 0.0
) -> None:
    """So many requests in all, of clients that begin `apart` seconds one after another."""
    numbers = iter(range(requests))

    async def client(place: int) -> None:
        await asyncio.sleep(place * apart)
        for number in numbers:
            await encoder.arerank(f"{query} {number}", documents)

    await asyncio.gather(*map(client, range(clients)))


def profiler() -> Any:
    """Of what the device does; without a GPU of torch's operators on all threads."""
    if torch.cuda.is_available():
        return profile(activities=[ProfilerActivity.CUDA])
    return profile(activities=[ProfilerActivity.CPU], experimental_config=_ExperimentalConfig(profile_all_threads=True))


def work(recorded: Any, folder: Path) -> list[dict[str, Any]]:
    """What ran on the device, by chrome's trace format; without a GPU torch's operators stand for it."""
    path = folder / "trace.json"
    recorded.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    path.unlink()
    kinds = DEVICE_WORK if torch.cuda.is_available() else {"cpu_op"}
    return [event for event in events if event.get("cat") in kinds and "dur" in event]


def busy(events: list[dict[str, Any]]) -> list[Span]:
    """Seconds, in order and apart."""
    spans: list[Span] = []
    for begin, end in sorted((event["ts"] * 1e-6, (event["ts"] + event["dur"]) * 1e-6) for event in events):
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((begin, end))
    return spans


def kernels(call: Any, folder: Path, top: int = 14) -> list[dict[str, Any]]:
    """Where the device's time goes in one call: by kernel its share, how often, and microseconds in all."""
    with profiler() as recorded:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    events = work(recorded, folder)
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in events:
        times[event["name"]] += event["dur"]
        counts[event["name"]] += 1
    whole = sum(times.values())
    span = busy(events)
    length = (span[-1][1] - span[0][0]) * 1e6
    rows = [
        {"kernel": name[:110], "share": round(spent / whole, 4), "calls": counts[name], "microseconds": round(spent)}
        for name, spent in times.most_common(top)
    ]
    every = {"kernel": "all", "share": 1.0, "calls": len(events), "microseconds": round(whole), "span": round(length)}
    return [every, *rows]


def picture(spans: list[Span], title: str, path: Path, *, lines: int = 6, width: int = 960) -> None:
    """An SVG: time runs along `lines` bars below one another, dark where the device was busy."""
    length = spans[-1][1] / lines
    high, left, top = 22, 70, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 20}" height="{top + lines * (high + 8) + 12}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">{title}</text>',
    ]
    for line in range(lines):
        begin, y = line * length, top + line * (high + 8)
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{begin * 1e3:.0f} ms</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{width}" height="{high}" fill="#fecaca"/>')
        for x, across in drawn(spans, begin, length, width):
            parts.append(f'<rect x="{left + x:.1f}" y="{y}" width="{across:.1f}" height="{high}" fill="#c2410c"/>')
    path.write_text("\n".join([*parts, "</svg>", ""]))


def drawn(spans: list[Span], begin: float, length: float, width: int) -> list[tuple[float, float]]:
    """(x, width) in tenths of a pixel, what touches at that size as one."""
    found: list[tuple[float, float]] = []
    for first, last in spans:
        a, b = (round((min(max(at, begin), begin + length) - begin) / length * width, 1) for at in (first, last))
        if b <= a:
            continue
        if found and a - (found[-1][0] + found[-1][1]) < 0.1:
            found[-1] = (found[-1][0], round(b - found[-1][0], 1))
        else:
            found.append((a, round(b - a, 1)))
    return found
