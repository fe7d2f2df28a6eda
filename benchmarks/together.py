"""Requests that come together: each answered after the other, as the scheduler has it, or all by turns.

    python benchmarks/together.py [--requests 6] [--documents 40] [--rounds 10]

So many rerank requests begin at once; until they are answered a query of 12 tokens comes every 30 ms. By turns is the
same scheduler where no request is long enough to trade its turns. Milliseconds, in
interleaved rounds in both orders. Weights are random, of MiniLM-L6's shape. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import time
from collections import defaultdict
from contextlib import suppress

import made_up
import numpy as np
from tokenizers import Tokenizer
from workloads import drawn, vocabulary_words, workload

from onepass import Encoder
from onepass.schedule import scheduler

SHORT = {"one after another": scheduler.SHORT, "by turns": 1 << 30}
BETWEEN = 0.03  # seconds between queries


async def timed(encoder: Encoder, query: str, documents: list[str]) -> float:
    started = time.perf_counter()
    await encoder.arerank(query, documents)
    return time.perf_counter() - started


async def burst(encoder: Encoder, requests: int, texts: list[str]) -> tuple[list[float], list[float]]:
    """Seconds of each request, and of the queries meanwhile."""
    queries: list[asyncio.Task[float]] = []

    async def ask() -> None:
        while True:
            await asyncio.sleep(BETWEEN)
            queries.append(asyncio.create_task(timed(encoder, "a query", [texts[0][:40]])))

    asking = asyncio.create_task(ask())
    size = len(texts) // requests
    parts = [texts[place * size :][:size] for place in range(requests)]
    found = await asyncio.gather(*[timed(encoder, f"query {place}", part) for place, part in enumerate(parts)])
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    return list(found), list(await asyncio.gather(*queries))


def quartiles(values: list[float]) -> list[float]:
    """Median, lower and upper."""
    return [round(float(np.quantile(values, q)), 1) for q in (0.5, 0.25, 0.75)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=6)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    folder = made_up.reranker()
    words = np.array(vocabulary_words(folder))
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = workload("together", drawn(arguments.requests * arguments.documents, median=90), words, library).texts
    logging.getLogger("onepass").setLevel(logging.ERROR)  # texts that are cut
    results: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in SHORT}
    with Encoder(folder) as encoder:
        asyncio.run(burst(encoder, arguments.requests, texts))
        for number in range(arguments.rounds):
            for name in (SHORT, reversed(SHORT))[number % 2]:
                scheduler.SHORT = SHORT[name]
                requests, queries = asyncio.run(burst(encoder, arguments.requests, texts))
                for kind, value in (
                    ("first", min(requests)),
                    ("mean", np.mean(requests)),
                    ("last", max(requests)),
                    ("query", np.median(queries)),
                    ("query p95", np.quantile(queries, 0.95)),
                ):
                    results[name][kind].append(float(value) * 1e3)
    found = {name: {kind: quartiles(values) for kind, values in own.items()} for name, own in results.items()}
    for name, own in found.items():
        said = ", ".join(f"{kind} {median} ({low}..{high})" for kind, (median, low, high) in own.items())
        print(f"{name}: {said}")  # noqa: T201
    facts = {"requests": arguments.requests, "documents": arguments.documents, "rounds": arguments.rounds}
    print(json.dumps({"benchmark": "together", "machine": platform.machine(), **facts, "milliseconds": found}))  # noqa: T201


if __name__ == "__main__":
    main()
